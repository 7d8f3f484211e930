//! Child processes that must not be left behind, whatever happens: an error, a panic, Ctrl-C, SIGTERM.
//!
//! A signal does not end this program at once. It is passed on to the children, whose end makes whoever waits for them
//! return an error, and everything on the way out is dropped in order: processes, then temporary directories.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::workspace::describe;

/// How long a process that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(15);
/// Lines of a server that nobody has read yet.
const LINES: usize = 1_000;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Children to pass a signal on to. A child is taken out before its number can be given to another process.
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// From here on signals end the children first.
pub(crate) fn watch_signals() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            for pid in children().iter() {
                let _ = kill_process(*pid, Signal::TERM);
            }
        }
    });
    Ok(())
}

fn children() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that ends with this value.
pub(crate) struct Guarded {
    child: Child,
    text: String,
}

impl Guarded {
    /// Starts it, unless this program is about to end.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let text = describe(command);
        let mut all = children();
        if INTERRUPTED.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        let child = command.spawn().with_context(|| format!("cannot start `{text}`"))?;
        all.push(Pid::from_child(&child));
        Ok(Self { child, text })
    }

    /// Waits until it ends by itself.
    fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.child.wait().with_context(|| format!("cannot wait for `{}`", self.text))?;
        self.forget();
        if INTERRUPTED.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(status)
    }

    /// Asks it to end, and makes it end if it does not. Returns whether it ended by itself.
    fn end(&mut self) -> bool {
        let pid = Pid::from_child(&self.child);
        let gone = |time: Duration| {
            let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
            let time = Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
            poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&time)).is_ok_and(|ready| ready > 0)
        };
        let _ = kill_process(pid, Signal::TERM);
        let graceful = gone(GRACE);
        if !graceful {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        self.forget();
        graceful
    }

    fn forget(&self) {
        let pid = Pid::from_child(&self.child);
        children().retain(|other| *other != pid);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.end();
        }
        self.forget();
    }
}

/// Runs a command whose output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let mut child = Guarded::start(command)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` ended with {status}", child.text);
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output; its standard error goes to the terminal.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let child = Guarded::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    Collecting::of(child)?.finish()
}

/// A child that runs while something else goes on; its standard output is collected.
pub(crate) struct Collecting {
    child: Guarded,
    reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>,
}

impl Collecting {
    /// Starts a command.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        Self::of(Guarded::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?)
    }

    fn of(mut child: Guarded) -> anyhow::Result<Self> {
        let mut out = child.child.stdout.take().context("a child has no standard output")?;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            out.read_to_end(&mut bytes).map(|_| bytes)
        });
        Ok(Self { child, reader })
    }

    /// Waits for its end and returns what it wrote.
    pub(crate) fn finish(mut self) -> anyhow::Result<String> {
        let status = self.child.wait()?;
        let text = &self.child.text;
        let Ok(bytes) = self.reader.join() else { bail!("lost the output of `{text}`") };
        let stdout = bytes.with_context(|| format!("cannot read the output of `{text}`"))?;
        let out = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            bail!("`{text}` ended with {status}: {}", out.trim());
        }
        Ok(out)
    }
}

/// A child that serves until it is stopped.
pub(crate) struct Server {
    child: Guarded,
    lines: Receiver<String>,
}

impl Server {
    /// Starts a command; its standard error goes to the terminal.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = Guarded::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let out = child.child.stdout.take().context("a child has no standard output")?;
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Nobody listens any more: what it writes is thrown away, so that it never waits.
                let _ = sender.try_send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits for a line of its standard output from which `read` makes something.
    pub(crate) fn line<T>(&self, what: &str, time: Duration, read: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(time) {
                Ok(line) => match read(&line) {
                    Some(value) => return Ok(value),
                    None => seen.push(line),
                },
                Err(RecvTimeoutError::Timeout) => bail!("`{}` gave no {what} in {time:?}", self.child.text),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("`{}` ended without {what}: {}", self.child.text, seen.join("; "))
                }
            }
        }
    }

    /// Kills it, as a fault of the machine would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.child.kill().with_context(|| format!("cannot kill `{}`", self.child.text))?;
        self.child.wait().map(drop)
    }

    /// Stops it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        if !self.child.end() {
            bail!("`{}` did not end within {GRACE:?} and was killed", self.child.text);
        }
        Ok(())
    }
}
