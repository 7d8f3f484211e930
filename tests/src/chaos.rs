//! Processes of a cluster are killed and frozen in the middle of a shuffle, round after round, and nothing comes of it but
//! a delay. `cargo xtask chaos` runs as many rounds as one likes, the system tests a few.
//!
//! A round submits the job, waits for the end of the n-th task, and strikes. Afterwards it looks whether the result is the
//! one that a native count gives, whether anything ran again that did not have to, whether every client saw every event
//! once, and whether anything is left behind. Which blow is next, and after how many tasks, follows from the seed; how the
//! processes are scheduled does not, so a seed gives similar rounds and not the same ones.

mod blow;
mod ledger;
mod random;
mod remains;
mod watch;
mod work;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, getpid, set_child_subreaper};
use serde_json::Value;

pub use self::blow::Blow;
use self::blow::Struck;
use self::random::Random;
use self::remains::Remains;
use self::watch::Watch;
use self::work::Work;
use crate::process::now;
use crate::{Cluster, Running};

/// Hosts of the cluster.
const HOSTS: usize = 2;
/// The tenant.
const WHO: &str = "analytics";
/// No round may take longer, on a slow and busy machine: losing a host takes 5 s, and all the work can be done twice.
const ROUND: Duration = Duration::from_secs(100);

/// What a round was.
#[derive(Debug, Clone)]
pub struct Round {
    /// Its number, from 1.
    pub number: u32,
    /// What was done.
    pub blow: Blow,
    /// After how many tasks had ended.
    pub after: u64,
    /// How many tasks the job has.
    pub tasks: u64,
    /// How many of those that had ended ran again.
    pub rerun: u64,
    /// How many attempts ended, well or not.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
    /// From the submission until nothing was left of the job.
    pub time: Duration,
}

/// Runs so many rounds on one cluster and tells of each.
///
/// # Panics
/// If anything is not as it must be.
pub fn run(rounds: u32, seed: u64, mut told: impl FnMut(&Round)) {
    // Whatever loses its parent becomes a child of this process, and is found.
    set_child_subreaper(Some(getpid())).expect("this process may adopt its descendants");
    let mut random = Random::new(seed);
    let mut chaos = Chaos::start(&mut random);
    let mut deck = Vec::new();
    for number in 1..=rounds {
        if deck.is_empty() {
            deck.extend(Blow::ALL);
            random.shuffle(&mut deck);
        }
        let blow = deck.pop().expect("there are several blows");
        let place = Place { number, rounds, seed, blow };
        told(&chaos.round(number, blow, &mut random));
        drop(place);
    }
    chaos.stop();
}

/// Says where it happened if a round does not go well.
struct Place {
    number: u32,
    rounds: u32,
    seed: u64,
    blow: Blow,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { number, rounds, seed, blow } = self;
            eprintln!("round {number}, {blow}; again: cargo xtask chaos --rounds {rounds} --seed {seed}");
        }
    }
}

/// A cluster with its job.
struct Chaos {
    cluster: Cluster,
    work: Work,
    remains: Remains,
}

impl Chaos {
    fn start(random: &mut Random) -> Self {
        let cluster = Cluster::start(HOSTS);
        let work = Work::prepare(&cluster.path().join("crates"), random);
        fs::write(cluster.path().join("job.toml"), Work::job()).expect("the job file can be written");
        // The first job has the module compiled on both hosts; whatever is there after it may stay.
        let mut client = start_client(&cluster);
        let job = job_of(&mut client);
        finish_client(&cluster, &work, client);
        let _ = cluster.ask(WHO, &["job", "release", &job]);
        let remains = Remains::of(&cluster);
        Self { cluster, work, remains }
    }

    fn round(&mut self, number: u32, blow: Blow, random: &mut Random) -> Round {
        let begin = now();
        let mut client = start_client(&self.cluster);
        let job = job_of(&mut client);
        let mut watch = Watch::start(self.cluster.watch(WHO, &job));
        watch.until("the arrays of the job", |ledger| ledger.all() > 0);
        let tasks = watch.ledger().all();
        let after = 1 + random.below(tasks - 1);
        watch.until("the end of that many tasks", |ledger| ledger.done() >= after);
        let struck = blow.strike(&mut self.cluster, &mut client, &mut watch, random);
        watch.until("the end of the job", |ledger| ledger.end().is_some());
        assert_eq!(watch.ledger().end(), Some("succeeded"));
        match blow {
            Blow::Client => {
                client.signal(Signal::KILL);
                let _ = client.end();
                self.work.check(&self.cluster.ask(WHO, &["job", "result", &job, "top"]));
            }
            _ => finish_client(&self.cluster, &self.work, client),
        }
        self.judge(&job, &watch, &struck);
        let _ = self.cluster.ask(WHO, &["job", "release", &job]);
        watch.end();
        self.remains.check(&self.cluster);
        let (ledger, time) = (watch.ledger(), begin.elapsed());
        assert!(time < ROUND, "the round took {time:?}");
        let failed = ledger.failures().len() as u64;
        Round { number, blow, after, tasks, rerun: ledger.rerun(), attempts: ledger.attempts(), failed, time }
    }

    /// Looks at what the cluster says of the job.
    fn judge(&self, job: &str, watch: &Watch, struck: &Struck) {
        struck.check(watch.ledger());
        let mut again = Watch::start(self.cluster.watch(WHO, job));
        again.until("the end of the job, again", |ledger| ledger.end().is_some());
        let (before, after) = (watch.ledger().events(), again.ledger().events());
        assert_eq!(before, after, "who watches from the beginning sees other events than who watched all along");
        let status = self.cluster.ask(WHO, &["--json", "job", "show", job]);
        let status: Value = serde_json::from_str(&status).expect("the status of a job is JSON");
        assert_eq!(status["totals"]["attempts"], watch.ledger().attempts(), "{status}");
        assert_eq!(status["counts"]["succeeded"], watch.ledger().all(), "{status}");
        again.end();
    }

    /// Stops the cluster, of which nothing may be left either.
    fn stop(mut self) {
        self.cluster.stop();
        self.remains.check_stopped(&self.cluster);
    }
}

/// Where a client writes the result.
fn result(cluster: &Cluster) -> PathBuf {
    cluster.path().join("result")
}

/// A client that runs the job and writes its result.
fn start_client(cluster: &Cluster) -> Running {
    let mut command = cluster.partita(WHO);
    command.args(["run", "job.toml", "--result", "top", "--output"]).arg(result(cluster));
    Running::start(&mut command)
}

/// The number of the job that a client submitted.
fn job_of(client: &mut Running) -> String {
    let line = client.line("number of its job", |line| line.contains("submitted"));
    let number = line.split_whitespace().find(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    number.expect("the line has a number").to_owned()
}

/// Waits until a client has its result, and looks at it.
fn finish_client(cluster: &Cluster, work: &Work, client: Running) {
    let (status, output) = client.end();
    assert!(status.success(), "{status}\n{output}");
    work.check(&fs::read_to_string(result(cluster)).expect("the result was written"));
    fs::remove_file(result(cluster)).expect("the result was there a moment ago");
}
