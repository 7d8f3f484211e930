//! A process of a local cluster: started, waited for until it is ready, and ended, politely first.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child as Process, ChildStdout, Command};

/// How long a process may take to be ready. Replaying a long journal takes the longest.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to end after SIGTERM, before it is killed.
const STOP: Duration = Duration::from_secs(15);
/// Longest line that a process says when it is ready.
const READY_LINE_MAX: u64 = 64 << 10;
/// The end of a log that an error shows.
const TAIL: u64 = 2_000;

/// A running process.
pub(crate) struct Child {
    name: String,
    process: Process,
    log: PathBuf,
    /// Kept open, so that the process can write to it.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with `arguments`, in a process group of its own, so that Ctrl-C reaches only its parent, who
    /// ends the processes in order. What it logs goes to `log`.
    pub(crate) fn start(name: &str, arguments: &[OsString], log: PathBuf) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        let file = begin_log(&log).with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut process = Command::new(program)
            .arg("--json")
            .args(arguments)
            .arg("--die-with")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(file))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = process.stdout.take().map(BufReader::new);
        Ok(Self { name: name.to_owned(), process, log, stdout })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its number, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until the process says that it is ready, and how.
    pub(crate) async fn ready<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let Some(stdout) = &mut self.stdout else { bail!("{} has no output", self.name) };
        let mut line = String::new();
        let mut bounded = stdout.take(READY_LINE_MAX);
        let read = tokio::time::timeout(READY, bounded.read_line(&mut line)).await;
        match read {
            Err(_) => bail!("{} is not ready after {} s{}", self.name, READY.as_secs(), self.last_words()),
            Ok(Err(error)) => Err(error).with_context(|| format!("cannot read what {} says", self.name)),
            Ok(Ok(0)) => {
                let status = self.process.wait().await.with_context(|| format!("cannot wait for {}", self.name))?;
                Err(self.ended(status))
            }
            Ok(Ok(_)) => serde_json::from_str(&line)
                .with_context(|| format!("{} says {line:?} instead of being ready", self.name)),
        }
    }

    /// Waits until the process ends, which it should not.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.process.wait().await {
            Ok(status) => self.ended(status),
            Err(error) => anyhow::Error::from(error).context(format!("cannot wait for {}", self.name)),
        }
    }

    /// Asks the process to end, and ends it if it does not.
    pub(crate) async fn stop(&mut self) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // Without a number it has ended and was waited for. A signal that cannot be sent is followed by one that can.
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        anyhow::anyhow!("{} ended: {status}{}", self.name, self.last_words())
    }

    /// The end of its log, for an error.
    fn last_words(&self) -> String {
        match tail(&self.log) {
            Some(text) if !text.trim().is_empty() => {
                let indented: String =
                    text.lines().map(|line| format!("\n  | {}", crate::output::clean(line))).collect();
                format!("; the end of {}:{indented}", self.log.display())
            }
            _ => format!("; nothing in {}", self.log.display()),
        }
    }
}

/// Begins a log; the one before is kept, those before that are not.
fn begin_log(path: &Path) -> std::io::Result<File> {
    if path.exists() {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The last whole lines of a file.
fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let start = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let whole = if start == 0 { text.as_str() } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Some(whole.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_whole_lines_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(tail(&path).unwrap(), "one\ntwo\n");
        let long: String = (0..1_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&path, long).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.starts_with("line ") && tail.ends_with("line 999\n") && tail.len() < 2_000, "{tail}");
    }
}
