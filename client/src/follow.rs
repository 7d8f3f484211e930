//! Follows the events of one job for all futures that wait for parts of it: one watch, however many wait.

use std::sync::{Arc, Mutex, PoisonError};

use partita_types::ArrayIndex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{Error, TaskError};
use crate::progress::Progress;
use crate::transport::Transport;
use crate::view::TaskEnd;
use crate::watch::Watch;

/// What followers of a job know.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) progress: Progress,
    /// Why there will be no more.
    error: Option<Arc<Error>>,
}

/// Starts with the first future that needs it and stops with the last handle of the job.
#[derive(Debug)]
pub(crate) struct Follower {
    job: u32,
    tenant: String,
    known: watch::Sender<Known>,
    tasks: Mutex<JoinSet<()>>,
}

impl Follower {
    pub(crate) fn new(job: u32, tenant: String) -> Self {
        Self { job, tenant, known: watch::Sender::default(), tasks: Mutex::default() }
    }

    /// What is known, now and later. Starts to follow if nobody did.
    pub(crate) fn follow(&self, transport: &Transport) -> watch::Receiver<Known> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            let watch = Watch::new(transport.clone(), self.job, self.tenant.clone(), 0);
            tasks.spawn(run(watch, self.known.clone()));
        }
        self.known.subscribe()
    }
}

async fn run(mut watch: Watch, known: watch::Sender<Known>) {
    loop {
        match watch.next_batch().await {
            Ok(events) if events.is_empty() => return,
            Ok(events) => known.send_modify(|known| {
                events.iter().for_each(|event| known.progress.apply(&event.what));
            }),
            Err(error) => {
                known.send_modify(|known| known.error = Some(Arc::new(error)));
                return;
            }
        }
    }
}

/// Which array is meant.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Index(ArrayIndex),
    Name(String),
    /// The reference comes from the builder of another job.
    Foreign(String),
}

impl Target {
    fn describe(&self) -> String {
        match self {
            Self::Index(index) => format!("array {index}"),
            Self::Name(name) | Self::Foreign(name) => format!("array {name:?}"),
        }
    }
}

/// Waits until `check` finds what it waits for. `check` is asked again whenever something happened; after the job
/// ended, `None` from it is final and becomes an error.
pub(crate) async fn wait_for<T>(
    job: u32,
    receiver: &mut watch::Receiver<Known>,
    what: impl Fn() -> String,
    mut check: impl FnMut(&Progress) -> Result<Option<T>, TaskError>,
) -> Result<T, Error> {
    loop {
        {
            let known = receiver.borrow_and_update();
            if let Some(found) = check(&known.progress)? {
                return Ok(found);
            }
            if let Some(state) = known.progress.ended() {
                return Err(TaskError::JobEnded { job, state, what: what() }.into());
            }
            if let Some(error) = &known.error {
                return Err(Error::Follow { job, source: Arc::clone(error) });
            }
        }
        // The sender lives as long as the handle that gave out the receiver, and the caller holds that handle.
        if receiver.changed().await.is_err() {
            return Err(Error::malformed("follow the job", "nobody follows it any more"));
        }
    }
}

/// Finds an array, once it is known.
pub(crate) async fn find(
    job: u32,
    receiver: &mut watch::Receiver<Known>,
    target: &Target,
) -> Result<(ArrayIndex, u32), Error> {
    if let Target::Foreign(array) = target {
        return Err(TaskError::Foreign { job, array: array.clone() }.into());
    }
    wait_for(
        job,
        receiver,
        || target.describe(),
        |progress| {
            let index = match target {
                Target::Index(index) => Some(*index),
                Target::Name(name) => progress.find(name),
                Target::Foreign(_) => None,
            };
            Ok(index.and_then(|index| progress.array(index).map(|array| (index, array.tasks))))
        },
    )
    .await
}

/// What the end of a task means for somebody who waits for its output.
pub(crate) fn judge(job: u32, progress: &Progress, array: ArrayIndex, index: u32) -> Result<Option<()>, TaskError> {
    let Some(known) = progress.array(array) else { return Ok(None) };
    if index >= known.tasks {
        return Err(TaskError::Missing { job, what: format!("task {index} in array {:?}", known.name) });
    }
    let not_run = |what| TaskError::NotRun { job, array: known.name.clone(), index, what };
    match known.end(index) {
        None => Ok(None),
        Some(TaskEnd::Succeeded) => Ok(Some(())),
        Some(TaskEnd::Cancelled) => Err(not_run("was cancelled")),
        Some(TaskEnd::Aborted) => Err(not_run("did not run, because a task that it reads from failed")),
        Some(TaskEnd::Failed) => Err(match progress.failure(array, index) {
            Some(failure) => TaskError::Failed { job, array: known.name.clone(), index, failure: failure.clone() },
            None => not_run("failed"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{ArrayStatus, JobEvent, JobState, TaskCounts};

    fn sender(tasks: u32) -> watch::Sender<Known> {
        let sender = watch::Sender::<Known>::default();
        let array = ArrayStatus {
            name: "map".into(),
            function: "map".into(),
            tasks,
            outputs: 1,
            counts: TaskCounts::default(),
        };
        apply(&sender, &JobEvent::ArraysAdded { arrays: vec![array] });
        sender
    }

    fn apply(sender: &watch::Sender<Known>, event: &JobEvent) {
        sender.send_modify(|known| known.progress.apply(event));
    }

    #[expect(clippy::single_range_in_vec_init, reason = "a list of one range is what is meant")]
    fn ended(index: u32, end: TaskEnd) -> JobEvent {
        JobEvent::TasksEnded { array: ArrayIndex(0), end, tasks: vec![index..index + 1] }
    }

    async fn wait(sender: &watch::Sender<Known>, index: u32) -> Result<(), Error> {
        let array = ArrayIndex(0);
        let what = || "task".to_owned();
        wait_for(3, &mut sender.subscribe(), what, |progress| judge(3, progress, array, index)).await
    }

    #[tokio::test]
    async fn waiting_ends_with_the_task_and_not_before() {
        let sender = sender(2);
        let mut waiting = Box::pin(wait(&sender, 1));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        apply(&sender, &ended(0, TaskEnd::Succeeded));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        apply(&sender, &ended(1, TaskEnd::Succeeded));
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn a_task_that_does_not_succeed_says_why() {
        let sender = sender(3);
        apply(&sender, &ended(1, TaskEnd::Aborted));
        let error = wait(&sender, 1).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "task 1 of array \"map\" of job 3 did not run, because a task that it reads from failed"
        );
        let error = wait(&sender, 9).await.unwrap_err();
        assert_eq!(error.to_string(), "job 3 has no task 9 in array \"map\"");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_after_the_job_ended() {
        let sender = sender(3);
        apply(&sender, &JobEvent::JobEnded { state: JobState::Cancelled });
        let error = wait(&sender, 0).await.unwrap_err();
        assert_eq!(error.to_string(), "job 3 ended (cancelled) without task");
        let missing = find(3, &mut sender.subscribe(), &Target::Name("reduce".into())).await.unwrap_err();
        assert_eq!(missing.to_string(), "job 3 ended (cancelled) without array \"reduce\"");
    }

    #[tokio::test]
    async fn a_reference_of_another_job_is_refused_at_once() {
        let error = find(3, &mut sender(1).subscribe(), &Target::Foreign("theirs".into())).await.unwrap_err();
        assert_eq!(error.to_string(), "array \"theirs\" belongs to another job than job 3");
    }
}
