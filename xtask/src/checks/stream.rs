//! Runs a command while its output passes through to the terminal, and reads along.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::count::Count;
use crate::workspace::describe;

/// Runs a command that must succeed.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("{}", describe(command));
    crate::workspace::run(command)
}

/// Runs a test runner and adds up what `read` finds in its lines. If it fails although no test did, that is an error.
pub(super) fn count(command: &mut Command, read: fn(&str) -> Count) -> anyhow::Result<Count> {
    let text = describe(command);
    println!("{text}");
    if io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{text}`"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let total = std::thread::scope(|scope| {
        let out = scope.spawn(|| out.map(|from| pass(from, io::stdout(), read)));
        let err = scope.spawn(|| err.map(|from| pass(from, io::stderr(), read)));
        let mut total = Count::default();
        for reader in [out, err] {
            match reader.join() {
                Ok(Some(result)) => total += result?,
                Ok(None) => {}
                Err(_) => bail!("lost the output of `{text}`"),
            }
        }
        Ok(total)
    })?;
    let status = child.wait().with_context(|| format!("cannot wait for `{text}`"))?;
    if total.failed == 0 && !status.success() {
        bail!("`{text}` ended with {status}");
    }
    Ok(total)
}

/// Copies line by line.
fn pass(from: impl Read, mut to: impl Write, read: fn(&str) -> Count) -> anyhow::Result<Count> {
    let mut from = BufReader::new(from);
    let mut total = Count::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line).context("cannot read the output of the tests")? == 0 {
            return Ok(total);
        }
        // A terminal that went away does not stop the tests.
        let _ = to.write_all(&line);
        total += read(&plain(&String::from_utf8_lossy(&line)));
    }
}

/// The text without the escape sequences that colour it.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\x1b[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(part.get(end..).unwrap_or_default());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_hide_the_summary() {
        assert_eq!(plain("\x1b[32;1m     Summary\x1b[0m [ 1s]\n"), "     Summary [ 1s]\n");
    }
}
