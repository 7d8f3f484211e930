//! The daemon's end of the zygote: a process with a warm engine, from which executors are forked in a millisecond.
//!
//! A thread of its own starts the process and stays until it has ended, for two reasons: the kernel ends a process whose
//! starting *thread* ends (that is how executors cannot outlive the daemon), and somebody must listen for deaths.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitCode};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use partita_types::{ByteSize, CpuTime, Isolation};

use crate::process::zygote::{from_zygote, to_zygote};
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::page::Page;
use crate::wire::socket::{Message, Packet, Socket};
use crate::{Artefact, Executor, Program};

/// How to start a zygote.
#[derive(Debug, Clone, Copy)]
pub struct ZygoteConfig {
    /// How long it may take until it is ready.
    pub start_timeout: Duration,
    /// How long a fork may take until the executor is ready, the loading of the artefact included.
    pub fork_timeout: Duration,
    /// How much lower than the daemon's the priority of executors is.
    pub nice: u8,
}

impl Default for ZygoteConfig {
    /// Ten seconds each, priority 5 lower.
    fn default() -> Self {
        Self { start_timeout: Duration::from_secs(10), fork_timeout: Duration::from_secs(10), nice: 5 }
    }
}

/// Why there is no zygote.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be started.
    #[error("cannot start zygote {program:?}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said what is wrong, or nothing.
    #[error("zygote is not usable: {0}")]
    Unusable(String),
}

/// Why an executor could not be forked.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The zygote is gone. A new one must be started.
    #[error("zygote has died")]
    ZygoteLost,
    /// The executor did not get ready.
    #[error("executor did not start: {0}")]
    Failed(String),
    /// The daemon has no descriptors or memory left.
    #[error("cannot prepare an executor")]
    Resources(#[source] io::Error),
}

/// How an executor ended, as the kernel told the zygote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    /// Wait status.
    pub(crate) status: i32,
    /// All CPU time that it used.
    pub(crate) cpu: CpuTime,
}

/// Where the death of one executor will be told.
#[derive(Debug, Default)]
pub(crate) struct Grave {
    death: Mutex<Option<Death>>,
    told: Condvar,
}

impl Grave {
    /// The death, if it has been told.
    pub(crate) fn death(&self) -> Option<Death> {
        *lock(&self.death)
    }

    /// Waits for the death to be told.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Death> {
        let waiting = self.told.wait_timeout_while(lock(&self.death), limit, |death| death.is_none());
        *waiting.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn tell(&self, death: Death) {
        *lock(&self.death) = Some(death);
        self.told.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is valid at every moment, so a panic elsewhere does not matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the zygote made of a request to fork.
type Forked = Result<Process, String>;

/// A process that the zygote forked.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) grave: Arc<Grave>,
}

/// What the thread and the callers share.
#[derive(Debug)]
struct Shared {
    socket: Socket,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lost: bool,
    next: u64,
    /// Who waits for which request.
    waiting: BTreeMap<u64, SyncSender<Forked>>,
    alive: BTreeMap<u32, Arc<Grave>>,
}

/// A running zygote. Dropping it ends it and every executor that it forked.
#[derive(Debug)]
pub struct Zygote {
    shared: Arc<Shared>,
    isolation: Isolation,
    config: ZygoteConfig,
}

impl Zygote {
    /// Starts a zygote and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or is not ready in time.
    pub fn start(program: &Program, config: ZygoteConfig) -> Result<Self, StartError> {
        let spawn = |source| StartError::Spawn { program: program.path.display().to_string(), source };
        let (socket, theirs) = Socket::pair().map_err(spawn)?;
        let shared = Arc::new(Shared { socket, state: Mutex::default() });
        let (ready, readiness) = sync_channel(1);
        let keeper = Keeper { shared: shared.clone(), program: program.clone(), nice: config.nice };
        thread::Builder::new().name("zygote".to_owned()).spawn(move || keeper.run(theirs, &ready)).map_err(spawn)?;
        // Made before waiting, so that it is ended on every way out.
        let mut zygote = Self { shared, isolation: Isolation::Process, config };
        zygote.isolation = wait_ready(&readiness, config.start_timeout, program)?;
        Ok(zygote)
    }

    /// How strongly its executors are confined, as a throw-away executor measured.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether it can still fork.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !lock(&self.shared.state).lost
    }

    /// Forks an executor for `artefact` whose guests may use up to `memory`. Blocks until it is ready.
    ///
    /// # Errors
    /// If the executor does not get ready in time.
    pub fn fork(&self, artefact: &Artefact, memory: ByteSize) -> Result<Executor, ForkError> {
        let (socket, theirs) = Socket::pair().map_err(ForkError::Resources)?;
        let (page, page_file) = Page::create().map_err(ForkError::Resources)?;
        let code = artefact.as_fd().try_clone_to_owned().map_err(ForkError::Resources)?;
        let process = self.request(memory, vec![theirs.into_descriptor(), page_file, code])?;
        Executor::connect(process, socket, page, memory, self.config.fork_timeout).map_err(ForkError::Failed)
    }

    /// Has the zygote fork, and waits for the process.
    fn request(&self, memory: ByteSize, descriptors: Vec<OwnedFd>) -> Result<Process, ForkError> {
        let (sender, answer) = sync_channel(1);
        let id = {
            let mut state = lock(&self.shared.state);
            if state.lost {
                return Err(ForkError::ZygoteLost);
            }
            state.next += 1;
            let id = state.next;
            state.waiting.insert(id, sender);
            id
        };
        let mut body = Writer::default();
        body.u64(id);
        body.u64(memory.0);
        let sent = Packet::new(to_zygote::FORK, body.as_slice(), descriptors)
            .and_then(|packet| self.shared.socket.send(&packet));
        let answer = match sent {
            Ok(()) => answer.recv_timeout(self.config.fork_timeout),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(forked) => forked.map_err(ForkError::Failed),
            Err(reason) => {
                lock(&self.shared.state).waiting.remove(&id);
                Err(match reason {
                    RecvTimeoutError::Timeout => ForkError::Failed("the zygote did not answer in time".to_owned()),
                    RecvTimeoutError::Disconnected => ForkError::ZygoteLost,
                })
            }
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // The zygote ends when its connection does, and the kernel ends its children then.
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Both);
    }
}

fn wait_ready(
    readiness: &Receiver<Result<Isolation, StartError>>,
    limit: Duration,
    program: &Program,
) -> Result<Isolation, StartError> {
    readiness.recv_timeout(limit).unwrap_or_else(|reason| {
        Err(StartError::Unusable(match reason {
            RecvTimeoutError::Timeout => format!("not ready after {}", partita_types::format_duration(limit)),
            RecvTimeoutError::Disconnected => format!("{:?} ended without a word", program.path),
        }))
    })
}

/// The thread that starts the zygote and listens to it.
struct Keeper {
    shared: Arc<Shared>,
    program: Program,
    nice: u8,
}

impl Keeper {
    fn run(self, theirs: Socket, ready: &SyncSender<Result<Isolation, StartError>>) {
        let child = self.program.start("zygote", theirs.into_descriptor());
        match child {
            Ok(mut child) => {
                // Whatever goes wrong with the messages: the process is ended, and everybody is told.
                let _ = self.listen(ready);
                self.bury(&mut child);
            }
            Err(source) => {
                let program = self.program.path.display().to_string();
                let _ = ready.try_send(Err(StartError::Spawn { program, source }));
                self.mark_lost();
            }
        }
    }

    fn listen(&self, ready: &SyncSender<Result<Isolation, StartError>>) -> io::Result<()> {
        self.shared.socket.send(&Packet::new(to_zygote::START, &[self.nice], Vec::new())?)?;
        let mut buffer = Vec::new();
        while let Some(message) = self.shared.socket.receive(&mut buffer)? {
            match message.kind {
                from_zygote::READY => {
                    let isolation = isolation(&message.body).map_err(malformed)?;
                    let _ = ready.try_send(Ok(isolation));
                }
                from_zygote::REFUSED => {
                    let text = crate::text::shown(&String::from_utf8_lossy(&message.body), 1024);
                    let _ = ready.try_send(Err(StartError::Unusable(text)));
                }
                from_zygote::FORKED => self.on_forked(message).map_err(malformed)?,
                from_zygote::NOT_FORKED => {
                    let mut reader = Reader::new(&message.body);
                    let id = reader.u64().map_err(malformed)?;
                    let text = String::from_utf8_lossy(&message.body[reader.position()..]).into_owned();
                    self.answer(id, Err(text));
                }
                from_zygote::ENDED => self.on_ended(&message.body).map_err(malformed)?,
                _ => return Err(malformed(Malformed("unknown message"))),
            }
        }
        Ok(())
    }

    fn on_forked(&self, message: Message) -> Result<(), Malformed> {
        let mut reader = Reader::new(&message.body);
        let (id, pid) = (reader.u64()?, reader.u32()?);
        let pidfd = message.descriptors.into_iter().next().ok_or(Malformed("process without its descriptor"))?;
        let grave = Arc::<Grave>::default();
        lock(&self.shared.state).alive.insert(pid, grave.clone());
        self.answer(id, Ok(Process { pid, pidfd, grave }));
        Ok(())
    }

    /// Answers a request. If nobody waits any more, the socket of the new executor is closed already, and it ends.
    fn answer(&self, id: u64, forked: Forked) {
        let waiting = lock(&self.shared.state).waiting.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.try_send(forked);
        }
    }

    fn on_ended(&self, body: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        let (pid, status, cpu) = (reader.u32()?, reader.u32()?, reader.u64()?);
        let grave = lock(&self.shared.state).alive.remove(&pid);
        if let Some(grave) = grave {
            grave.tell(Death { status: status.cast_signed(), cpu: CpuTime::from_micros(cpu) });
        }
        Ok(())
    }

    /// Ends the process and tells everybody who waits for it.
    fn bury(&self, child: &mut Child) {
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Both);
        let _ = child.kill();
        let _ = child.wait();
        self.mark_lost();
    }

    fn mark_lost(&self) {
        let mut state = lock(&self.shared.state);
        state.lost = true;
        state.waiting.clear();
        // Their parent is dead, so the kernel kills them; nobody is left to tell their CPU time.
        for grave in std::mem::take(&mut state.alive).into_values() {
            grave.tell(Death { status: libc::SIGKILL, cpu: CpuTime::default() });
        }
    }
}

/// The isolation that a helper process claims in a message of one byte.
pub(crate) fn isolation(body: &[u8]) -> Result<Isolation, Malformed> {
    [Isolation::Process, Isolation::Seccomp, Isolation::Full]
        .into_iter()
        .find(|isolation| body == [*isolation as u8])
        .ok_or(Malformed("unknown isolation"))
}

fn malformed(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Entry point of the zygote process. Call it before any thread is started.
#[must_use]
pub fn zygote_main() -> ExitCode {
    crate::process::zygote::main()
}
