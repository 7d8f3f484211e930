//! One client that watches the job, with everything that it saw.

use rustix::process::Signal;

use super::ledger::Ledger;
use crate::Running;

/// A running `partita --json job watch`.
pub(super) struct Watch {
    process: Option<Running>,
    ledger: Ledger,
}

impl Watch {
    pub(super) fn start(process: Running) -> Self {
        Self { process: Some(process), ledger: Ledger::default() }
    }

    /// Takes in events until something is known.
    ///
    /// # Panics
    /// If an event cannot be true, or there are none for too long.
    pub(super) fn until(&mut self, what: &str, known: impl Fn(&Ledger) -> bool) {
        while !known(&self.ledger) {
            let process = self.process.as_mut().expect("the watch was not ended");
            let line = process.line(what, is_event);
            self.take(&line);
        }
    }

    /// Takes in what is there already.
    ///
    /// # Panics
    /// If an event cannot be true.
    pub(super) fn look(&mut self) {
        let lines = self.process.as_mut().map(Running::lines).unwrap_or_default();
        lines.iter().filter(|line| is_event(line)).for_each(|line| self.take(line));
    }

    fn take(&mut self, line: &str) {
        self.ledger.take(line).unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// What is known.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Ends the client, if the end of the job did not.
    pub(super) fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::KILL);
            let _ = process.end();
        }
    }
}

/// Whether a line is an event; others are about lost connections.
fn is_event(line: &str) -> bool {
    line.starts_with('{') && line.contains("\"sequence\":")
}
