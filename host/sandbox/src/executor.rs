//! The daemon's end of one executor process.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use partita_types::{ByteSize, Cause, CpuTime, Failure, FunctionInfo, Isolation, TaskLimits};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::clock;
use crate::lane::Lane;
use crate::wire::codec::Writer;
use crate::wire::end;
use crate::wire::frame::{encode_limits, from_executor, to_executor};
use crate::wire::page::Page;
use crate::wire::socket::{Message, Packet, Socket};
use crate::zygote::{Death, Grave, Process};
use crate::{AttemptEnd, Batch, RunControl, RunEnd};

/// How often the limits of a running attempt are looked at. The kernel's CPU clock is no finer.
pub(crate) const WATCH_PERIOD: Duration = Duration::from_millis(4);
/// How long after a kill the death of a process may take to be told; freeing memory takes 25 ms per GiB.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// How long a process may live on after its connection closed.
const CLOSING_LIMIT: Duration = Duration::from_secs(1);
/// What `describe` may use.
const DESCRIBE_LIMITS: TaskLimits = TaskLimits {
    memory: ByteSize::gib(1),
    cpu_time: CpuTime::from_micros(2_000_000),
    wall_time: Duration::from_secs(30),
    output: ByteSize::ZERO,
    log: ByteSize::kib(4),
};

/// A confined process that holds one module. Dropping it kills the process.
#[derive(Debug)]
pub struct Executor {
    pub(crate) handle: ExecutorHandle,
    pub(crate) socket: Socket,
    pub(crate) page: Page,
    /// Where messages are received.
    pub(crate) buffer: Vec<u8>,
    memory: ByteSize,
    isolation: Isolation,
}

/// Reaches an executor from other threads, without risk of hitting a later process of the same number.
#[derive(Debug, Clone)]
pub struct ExecutorHandle {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    grave: Arc<Grave>,
}

impl ExecutorHandle {
    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Stops the process (SIGSTOP). Its wall time goes on, its CPU time does not.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process (SIGKILL), stopped or not. A lane that is inside [`Executor::run`] sees it as a crash.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The only failure is that it has ended already.
        let _ = rustix::process::pidfd_send_signal(&*self.pidfd, signal);
    }

    /// CPU time of the process by the kernel's clock; `None` once it has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Option<CpuTime> {
        let time = clock::cpu_time(self.pid);
        // The number of a process that has ended may belong to another one by now.
        if self.is_alive() { time } else { None }
    }

    /// Whether its end has not been told yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.grave.death().is_none()
    }

    /// Kills the process and waits for its end.
    pub(crate) fn end(&self) -> Option<Death> {
        self.kill();
        self.grave.wait(DEATH_LIMIT)
    }

    /// Waits for the end of a process that has closed its connection, which an honest one does only by ending.
    pub(crate) fn wait_for_death(&self) -> Option<Death> {
        self.grave.wait(CLOSING_LIMIT)
    }
}

impl Executor {
    /// Takes over a process that was just forked, and waits until it has confined itself.
    pub(crate) fn connect(
        process: Process,
        socket: Socket,
        page: Page,
        memory: ByteSize,
        limit: Duration,
    ) -> Result<Self, String> {
        let handle = ExecutorHandle { pid: process.pid, pidfd: Arc::new(process.pidfd), grave: process.grave };
        let mut executor = Self { handle, socket, page, buffer: Vec::new(), memory, isolation: Isolation::Process };
        let message = executor.wait_ready(limit)?;
        match message.kind {
            from_executor::READY => {
                executor.isolation = crate::zygote::isolation(&message.body).map_err(|error| error.to_string())?;
                Ok(executor)
            }
            from_executor::REFUSED => Err(crate::text::shown(&String::from_utf8_lossy(&message.body), 1024)),
            kind => Err(format!("it sent an unknown message {kind}")),
        }
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<Message, String> {
        let deadline = clock::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(format!("not ready after {}", partita_types::format_duration(limit)));
            }
            if self.wait_readable(left)? {
                let received = self.socket.receive(&mut self.buffer).map_err(|error| error.to_string())?;
                return received.ok_or_else(|| format!("it died, {}", describe_death(self.handle.wait_for_death())));
            }
        }
    }

    /// Waits for a message or the end of the connection; `false` if there is none within `limit`.
    fn wait_readable(&self, limit: Duration) -> Result<bool, String> {
        let timeout = Timespec::try_from(limit).map_err(|error| error.to_string())?;
        match rustix::event::poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.handle.pid
    }

    /// The memory that its guests may use.
    #[must_use]
    pub const fn memory(&self) -> ByteSize {
        self.memory
    }

    /// How strongly the process says that it is confined.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> ExecutorHandle {
        self.handle.clone()
    }

    /// Asks the module for its functions, in an instance of its own.
    ///
    /// # Errors
    /// If the module traps, takes too long or answers nonsense. After a time limit or a crash the executor is lost.
    pub fn describe(&mut self) -> Result<Vec<FunctionInfo>, Failure> {
        let limits = TaskLimits { memory: DESCRIBE_LIMITS.memory.min(self.memory), ..DESCRIBE_LIMITS };
        let message = self.ask(&limits).inspect_err(|_| {
            self.handle.end();
        })?;
        let answer = match message.kind {
            from_executor::FUNCTIONS => end::decode_functions(&message.body).map_err(|error| error.to_string()),
            kind => Err(format!("unknown message {kind}")),
        };
        answer.unwrap_or_else(|problem| {
            self.handle.end();
            Err(Failure::new(Cause::Crash, format!("the executor sent garbage: {problem}")))
        })
    }

    /// Sends the question and waits for the answer, within the limits.
    fn ask(&mut self, limits: &TaskLimits) -> Result<Message, Failure> {
        let crash = |text: String| Failure::new(Cause::Crash, text);
        let started = clock::now();
        let cpu_before = self.handle.cpu_time().unwrap_or_default();
        let mut body = Writer::default();
        encode_limits(limits, &mut body);
        let packet = Packet::new(to_executor::DESCRIBE, body.as_slice(), Vec::new());
        // The executor is idle, so there is room in its socket.
        let sent = packet.and_then(|packet| self.socket.try_send(&packet));
        sent.map_err(|_| crash("the executor is gone".to_owned()))?;
        loop {
            if self.wait_readable(WATCH_PERIOD).map_err(crash)? {
                let received = self.socket.receive(&mut self.buffer);
                let received = received.map_err(|error| crash(format!("the executor sent garbage: {error}")))?;
                return received.ok_or_else(|| {
                    crash(format!("the executor died, {}", describe_death(self.handle.wait_for_death())))
                });
            }
            if clock::now().duration_since(started) >= limits.wall_time {
                return Err(wall_failure(limits));
            }
            let cpu = self.handle.cpu_time().unwrap_or_default();
            if cpu.micros.saturating_sub(cpu_before.micros) >= limits.cpu_time.micros {
                return Err(cpu_failure(limits));
            }
        }
    }

    /// Runs the attempts of `batch` one after the other, each in a fresh instance, and reports every end to `on_end`, in
    /// the order of their positions.
    ///
    /// Blocks the calling thread. CPU and wall limits are watched meanwhile, also while the executor is stopped: then its
    /// wall time passes and its CPU time does not. Reaching one, or a cancellation of the attempt that runs, kills the
    /// executor, stopped or not, and the rest of the batch is left for another one. Attempts that are cancelled before they
    /// started are reported in their turn, and the executor lives on.
    pub fn run(&mut self, batch: &Batch, control: &RunControl, on_end: &mut dyn FnMut(AttemptEnd)) -> RunEnd {
        let end = Lane::new(self, batch, control, on_end).run();
        control.publish(None);
        end
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // The zygote reaps it; nobody has to wait.
        self.handle.kill();
    }
}

pub(crate) fn cpu_failure(limits: &TaskLimits) -> Failure {
    Failure::new(Cause::CpuTime, format!("the attempt used its {} of CPU time", limits.cpu_time))
}

pub(crate) fn wall_failure(limits: &TaskLimits) -> Failure {
    let limit = partita_types::format_duration(limits.wall_time);
    Failure::new(Cause::WallTime, format!("the attempt took its {limit} of wall time"))
}

/// How a process ended, for people.
pub(crate) fn describe_death(death: Option<Death>) -> String {
    match death {
        None => "but its end was not seen".to_owned(),
        Some(death) if libc::WIFSIGNALED(death.status) => {
            format!("killed by {}", clock::signal_name(libc::WTERMSIG(death.status)))
        }
        Some(death) => format!("with exit status {}", libc::WEXITSTATUS(death.status)),
    }
}
