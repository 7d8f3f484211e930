//! The events of a job as they happen. A watch outlives connections and restarts of the scheduler: it resumes at the
//! first event that it has not handed on.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::Stream;
use partita_client_logic::{Backoff, Cursor, RetryPolicy, Verdict};
use partita_protocol::client as wire;
use tonic::{Code, Streaming};

use crate::error::Error;
use crate::transport::{QUESTION, Transport, jobs, random};
use crate::view::{Event, JobEvent};

const OPERATION: &str = "watch the job";

/// The events of a job, in order, each once, until the job has ended. From [`crate::Client::watch`].
///
/// ```no_run
/// # async fn example(client: partita_client::Client) -> Result<(), partita_client::Error> {
/// let mut watch = client.watch(17, 0);
/// while let Some(event) = watch.next().await? {
///     println!("{}: {:?}", event.sequence, event.what);
/// }
/// // `watch.position()` is where another watch would go on.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    transport: Transport,
    job: u32,
    tenant: String,
    cursor: Cursor,
    backoff: Backoff,
    /// Before the next attempt to connect.
    wait: Duration,
    stream: Option<Streaming<wire::WatchResponse>>,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Watch {
    pub(crate) fn new(transport: Transport, job: u32, tenant: String, from: u64) -> Self {
        Self {
            transport,
            job,
            tenant,
            cursor: Cursor::new(from),
            backoff: Backoff::new(RetryPolicy::STREAM),
            wait: Duration::ZERO,
            stream: None,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// Sets how long a broken connection is repaired without progress. Default [`RetryPolicy::STREAM`].
    #[must_use]
    pub fn with_retries(mut self, policy: RetryPolicy) -> Self {
        self.backoff = Backoff::new(policy);
        self
    }

    /// The number of the next event that [`Watch::next`] gives.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ready.front().map_or(self.cursor.next(), |event| event.sequence)
    }

    /// The next event, or `None` after the job has ended.
    ///
    /// # Errors
    /// If the cluster refuses, or cannot be reached for as long as the retry policy allows.
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        while self.ready.is_empty() && !self.ended {
            self.receive().await?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next events that are there already, at least one; empty after the job has ended.
    ///
    /// # Errors
    /// As [`Watch::next`].
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next_batch(&mut self) -> Result<Vec<Event>, Error> {
        while self.ready.is_empty() && !self.ended {
            self.receive().await?;
        }
        Ok(self.ready.drain(..).collect())
    }

    /// The same as a [`Stream`], which ends after the job or after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> + Send {
        futures_util::stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(watch))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Connects if necessary and takes in one message.
    async fn receive(&mut self) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        match stream.message().await {
            Ok(Some(batch)) => self.take(batch),
            Ok(None) => self.interrupted(Error::Refused {
                operation: OPERATION,
                code: Code::Unavailable,
                text: "the stream ended before the job did".to_owned(),
            }),
            Err(status) => {
                let error = self.transport.error(OPERATION, &status);
                self.interrupted(error)
            }
        }?;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
        }
        let request = wire::WatchRequest { job: self.job, from: self.cursor.next(), tenant: self.tenant.clone() };
        let request = self.transport.request(request);
        let mut client = jobs(self.transport.channel());
        match self.transport.once(OPERATION, QUESTION, client.watch(request)).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(())
            }
            Err(error) => self.interrupted(error),
        }
    }

    /// Prepares another attempt, if the fault may pass and there were not too many.
    fn interrupted(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        let passing = matches!(
            error.code(),
            Some(
                Code::Unavailable | Code::Aborted | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted
            )
        );
        match self.backoff.next(random()).filter(|_| passing) {
            Some(wait) => {
                self.wait = wait;
                Ok(())
            }
            None => Err(error),
        }
    }

    fn take(&mut self, batch: wire::WatchResponse) -> Result<(), Error> {
        for event in batch.events {
            match self.cursor.accept(event.sequence) {
                Verdict::Repeated => continue,
                Verdict::New => {}
                Verdict::Gap => {
                    let text = format!("event {} came before event {}", event.sequence, self.cursor.next());
                    return self.interrupted(Error::Refused { operation: OPERATION, code: Code::Aborted, text });
                }
            }
            let event = Event::try_from(event).map_err(|fault| Error::malformed(OPERATION, fault))?;
            self.ended |= matches!(event.what, JobEvent::JobEnded { .. });
            self.ready.push_back(event);
            self.backoff.reset();
            self.wait = Duration::ZERO;
        }
        Ok(())
    }
}
