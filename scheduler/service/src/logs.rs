//! What tasks logged, asked of the hosts that ran them.
//!
//! The core knows nothing of logs: they are kept by hosts for a while, and all hosts are asked when somebody wants to see
//! them. Who has none, says so; who says nothing, is named in the answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use partita_protocol::client::HostLog;
use partita_protocol::host::scheduler_message::Message;
use partita_protocol::host::{LogRead, ReadLog, SchedulerMessage};
use partita_types::{HostId, HostName, JobId};
use tokio::sync::oneshot;
use tonic::Status;
use tracing::warn;

use crate::driver::Handle;

/// How long a host may take to look up its logs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The questions that hosts have not answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogDesk(Arc<Mutex<HashMap<u64, Open>>>);

#[derive(Debug)]
struct Open {
    host: HostName,
    answer: oneshot::Sender<LogRead>,
}

/// Keeps a question open; dropping it closes it.
#[derive(Debug)]
struct Question {
    desk: LogDesk,
    number: u64,
    answer: oneshot::Receiver<LogRead>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.desk.open().remove(&self.number);
    }
}

/// Which logs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) job: JobId,
    pub(crate) array: Option<u32>,
    pub(crate) index: Option<u32>,
}

impl LogDesk {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, host: HostName) -> Question {
        let (sender, answer) = oneshot::channel();
        let number = u64::from_be_bytes(partita_identity::random());
        self.open().insert(number, Open { host, answer: sender });
        Question { desk: self.clone(), number, answer }
    }

    /// Passes on what `host` said. Answers that nobody waits for, or to another host's question, are nothing.
    pub(crate) fn answered(&self, host: &HostName, read: LogRead) {
        let mut open = self.open();
        if open.get(&read.request).is_some_and(|open| open.host == *host)
            && let Some(open) = open.remove(&read.request)
        {
            // Whoever asked may be gone.
            let _ = open.answer.send(read);
        }
    }

    /// Asks every attached host.
    pub(crate) async fn read(&self, handle: &Handle, wanted: Wanted) -> Result<Vec<HostLog>, Status> {
        let attached = |core: &partita_core::Core| -> Vec<(HostId, HostName)> {
            let hosts = core.hosts().into_iter().filter(|host| host.state == "attached");
            hosts.map(|host| (host.id, host.name)).collect()
        };
        let hosts = handle.query(attached).await?;
        let asked = hosts.into_iter().map(|(id, name)| self.read_one(handle, id, name, wanted));
        join_all(asked).await.into_iter().collect()
    }

    async fn read_one(
        &self,
        handle: &Handle,
        id: HostId,
        name: HostName,
        Wanted { job, array, index }: Wanted,
    ) -> Result<HostLog, Status> {
        let mut question = self.ask(name.clone());
        let order = ReadLog { request: question.number, tenant: job.tenant.0, job: job.number, array, index };
        let message = SchedulerMessage { message: Some(Message::ReadLog(order)) };
        let silent = HostLog { host: name.as_str().to_owned(), silent: true, ..HostLog::default() };
        if !handle.tell(id, message).await? {
            return Ok(silent);
        }
        let Ok(Ok(LogRead { request: _, logs, cut })) = tokio::time::timeout(ANSWER_WITHIN, &mut question.answer).await
        else {
            return Ok(silent);
        };
        // Nothing is believed of a host: what means nothing is not shown.
        let checked: Result<Vec<_>, _> = logs.into_iter().map(|log| Ok(log.of(job)?.into())).collect();
        Ok(checked.map_or_else(
            |error: partita_protocol::DecodeError| {
                warn!(host = %name, error = %error, "a host sent logs that mean nothing");
                silent.clone()
            },
            |logs| HostLog { host: name.as_str().to_owned(), logs, cut, silent: false },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    #[tokio::test]
    async fn only_the_host_that_was_asked_answers_and_only_once() {
        let desk = LogDesk::default();
        let mut question = desk.ask(host("host-1"));
        let read = |cut| LogRead { request: question.number, logs: Vec::new(), cut };
        desk.answered(&host("host-2"), read(true));
        desk.answered(&host("host-1"), read(false));
        desk.answered(&host("host-1"), read(true));
        assert!(!(&mut question.answer).await.unwrap().cut);
    }

    #[test]
    fn a_question_that_nobody_waits_for_is_forgotten() {
        let desk = LogDesk::default();
        drop(desk.ask(host("host-1")));
        assert!(desk.open().is_empty());
    }
}
