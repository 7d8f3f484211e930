//! Processes: their output line by line, their end, and whoever descends from them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::DEADLINE;

/// Lines that nobody reads yet; a process that writes more waits.
const LINES: usize = 100_000;

/// A process that runs, with its output. Killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    readers: Vec<JoinHandle<()>>,
    seen: Vec<String>,
}

/// A process that ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it cannot be started or does not end.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let out = scope.spawn(|| text(out));
            let err = scope.spawn(|| text(err));
            let ended = wait_for_end(&child, DEADLINE);
            if !ended {
                let _ = child.kill();
            }
            let status = child.wait().expect("a child can be waited for");
            let stdout = out.join().expect("reading does not panic");
            let stderr = err.join().expect("reading does not panic");
            assert!(ended, "{command:?} did not end\n{stdout}\n{stderr}");
            Self { status, stdout, stderr }
        })
    }

    /// Its standard output.
    ///
    /// # Panics
    /// If it did not succeed.
    #[must_use]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// The error that it ended with: its standard error.
    ///
    /// # Panics
    /// If it succeeded, was killed, panicked, or said nothing.
    #[must_use]
    pub fn failure(self) -> String {
        assert!(self.status.code().is_some_and(|code| code != 0), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        assert!(!self.stderr.trim().is_empty(), "it failed without a word");
        self.stderr
    }
}

fn text(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// If that is not possible.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (sender, lines) = sync_channel(LINES);
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.push(read_lines(out, sender.clone()));
        }
        if let Some(err) = child.stderr.take() {
            readers.push(read_lines(err, sender));
        }
        Self { child, lines, readers, seen: Vec::new() }
    }

    /// Its id.
    ///
    /// # Panics
    /// Never: a child has one.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a line, of standard output or error, that `wanted` accepts.
    ///
    /// # Panics
    /// If it ends or the time is over before.
    pub fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begin = now();
        loop {
            let left = DEADLINE.saturating_sub(begin.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time; output:\n{}", self.seen.join("\n")),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without {what}; output:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// The lines that are there already and were not read; none, after the last.
    pub fn lines(&mut self) -> Vec<String> {
        let lines: Vec<String> = self.lines.try_iter().collect();
        self.seen.extend(lines.iter().cloned());
        lines
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a process that was not waited for can be signalled");
    }

    /// Waits until it has ended by itself, and returns how, with all that it wrote.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn end(mut self) -> (ExitStatus, String) {
        if !wait_for_end(&self.child, DEADLINE) {
            panic!("did not end; output:\n{}", self.output());
        }
        let status = self.child.wait().expect("a child can be waited for");
        (status, self.output())
    }

    /// All lines until now.
    fn output(&mut self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("output of process {}:\n{}", self.child.id(), self.output());
        }
        // A grandchild may hold the pipe open; the readers end with it.
        self.readers.clear();
    }
}

fn read_lines(from: impl Read + Send + 'static, to: SyncSender<String>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if to.send(text).is_err() {
                break;
            }
            line.clear();
        }
    })
}

/// Whether a child ends within that time. It still has to be waited for.
fn wait_for_end(child: &Child, time: Duration) -> bool {
    let Ok(descriptor) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else { return true };
    let timeout = Timespec::try_from(time).expect("deadlines are short");
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// A process and all that descend from it, as they were when asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Family {
    members: BTreeSet<(i32, u64)>,
}

impl Family {
    /// Of this process. What left it, by a parent's end, is not found.
    #[must_use]
    pub fn of(root: Pid) -> Self {
        let all = processes();
        let mut ids = BTreeSet::from([root.as_raw_nonzero().get()]);
        // A child may have a lower number than its parent, so one pass is not enough.
        loop {
            let before = ids.len();
            ids.extend(
                all.iter()
                    .filter(|process| ids.contains(&process.parent))
                    .map(|process| process.id)
                    .collect::<Vec<_>>(),
            );
            if ids.len() == before {
                break;
            }
        }
        let members = all.iter().filter(|process| ids.contains(&process.id));
        Self { members: members.map(|process| (process.id, process.started)).collect() }
    }

    /// Those of this family that are not in the other one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self { members: self.members.difference(&other.members).copied().collect() }
    }

    /// The same, and the members of the other one.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.members.extend(&other.members);
        self
    }

    /// The ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = i32> {
        self.members.iter().map(|(id, _)| *id)
    }

    /// As [`wait_until_gone`].
    ///
    /// # Panics
    /// If a member stays.
    pub fn wait_until_gone(&self) {
        wait_until_gone(self);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Waits until no member of the family is alive any more.
///
/// # Panics
/// If one stays.
pub fn wait_until_gone(family: &Family) {
    let begin = now();
    for (id, started) in &family.members {
        let Some(pid) = Pid::from_raw(*id) else { continue };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // The number may have been given to another process meanwhile.
        if !processes().iter().any(|process| process.id == *id && process.started == *started) {
            continue;
        }
        let left = Timespec::try_from(DEADLINE.saturating_sub(begin.elapsed())).expect("deadlines are short");
        let gone = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0);
        let name = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " ");
        assert!(gone, "process {id} is still there: {name}");
    }
}

/// The executors of a host: what its zygote forked.
#[must_use]
pub fn executors(host: Pid) -> Vec<Pid> {
    let all = processes();
    let children = |parent: i32| all.iter().filter(move |process| process.parent == parent).map(|process| process.id);
    let host = host.as_raw_nonzero().get();
    // Only a zygote has children: a compiler may not start anything.
    children(host).flat_map(children).filter_map(Pid::from_raw).collect()
}

/// What a process has open, as the kernel names it. Nothing, if it has ended.
#[must_use]
pub fn open_files(id: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{id}/fd")) else { return Vec::new() };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

struct Process {
    id: i32,
    parent: i32,
    /// In clock ticks since the machine started; with the id it names a process for good.
    started: u64,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(process).collect()
}

fn process(id: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name is in parentheses and may hold anything; the state follows it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    Some(Process { id, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
}

/// Looks again and again until nothing is missing. Looking should take a while, as a command does.
///
/// # Panics
/// If something stays missing.
pub fn wait_until(what: &str, mut missing: impl FnMut() -> Option<String>) {
    let begin = now();
    while let Some(missing) = missing() {
        assert!(begin.elapsed() < DEADLINE, "no {what} in time: {missing}");
    }
}

#[expect(clippy::disallowed_methods, reason = "deadlines of tests")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
