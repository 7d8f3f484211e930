//! Handles: a job in the cluster, its arrays and tasks, and the futures of their results.

use std::future::{Future, IntoFuture};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use partita_protocol::client as wire;
use partita_types::ArrayIndex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tonic::Code;

use crate::builder::{ArrayRef, BuildError, BuilderId, JobBuilder};
use crate::client::{CHUNK, chunks, convert, idempotency_key};
use crate::error::{Error, TaskError};
use crate::follow::{Follower, Known, Target, find, judge, wait_for};
use crate::outputs::{OutputSelection, Outputs, Piece, in_order};
use crate::transport::{QUESTION, SUBMISSION, TRANSFER, Transport, jobs};
use crate::view::{JobState, JobStatus, TaskEnd};

/// A future of this crate.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A job in the cluster. Cheap to clone. Dropping it changes nothing in the cluster.
#[derive(Debug, Clone)]
pub struct JobHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    number: u32,
    tenant: String,
    follower: Follower,
    built: Mutex<Built>,
}

/// What builders that continue the job must know.
#[derive(Debug)]
struct Built {
    builder: BuilderId,
    /// Outputs per task of each array; `None` if the job was submitted by somebody else.
    outputs: Option<Vec<u32>>,
}

impl JobHandle {
    pub(crate) fn submitted(transport: Transport, number: u32, builder: BuilderId, outputs: Vec<u32>) -> Self {
        Self::new(transport, number, String::new(), Built { builder, outputs: Some(outputs) })
    }

    pub(crate) fn found(transport: Transport, number: u32, tenant: String) -> Self {
        Self::new(transport, number, tenant, Built { builder: BuilderId::fresh(), outputs: None })
    }

    fn new(transport: Transport, number: u32, tenant: String, built: Built) -> Self {
        let follower = Follower::new(number, tenant.clone());
        Self { inner: Arc::new(Inner { transport, number, tenant, follower, built: Mutex::new(built) }) }
    }

    /// The number by which the job can be found again.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.inner.number
    }

    /// How the job stands.
    ///
    /// # Errors
    /// If there is no such job, or the cluster refuses or cannot be reached.
    pub async fn status(&self) -> Result<JobStatus, Error> {
        const OPERATION: &str = "show the job";
        let send = |channel, request| async move { jobs(channel).show(request).await };
        let job = self.inner.transport.call(OPERATION, QUESTION, self.inner.request(), send).await?;
        convert(OPERATION, job)
    }

    /// Waits until the job has ended, and says how.
    ///
    /// # Errors
    /// If its events cannot be followed. A job that failed is not an error here.
    pub async fn ended(&self) -> Result<JobState, Error> {
        let mut known = self.inner.follow();
        let what = || "the end of the job".to_owned();
        wait_for(self.number(), &mut known, what, |progress| Ok(progress.ended())).await
    }

    /// An array by the reference that the job's builder gave out.
    #[must_use]
    pub fn array(&self, array: &ArrayRef) -> ArrayHandle {
        let built = self.inner.built.lock().unwrap_or_else(PoisonError::into_inner);
        let target = if array.builder == built.builder {
            Target::Index(array.index)
        } else {
            Target::Foreign(array.name.clone())
        };
        ArrayHandle { inner: Arc::clone(&self.inner), target }
    }

    /// An array by its name.
    #[must_use]
    pub fn array_named(&self, name: &str) -> ArrayHandle {
        ArrayHandle { inner: Arc::clone(&self.inner), target: Target::Name(name.to_owned()) }
    }

    /// An array by its position.
    #[must_use]
    pub fn array_at(&self, index: ArrayIndex) -> ArrayHandle {
        ArrayHandle { inner: Arc::clone(&self.inner), target: Target::Index(index) }
    }

    /// Starts more arrays for an open job. They may read from the arrays that the job has.
    ///
    /// ```no_run
    /// # use partita_client::{ArrayRef, Error, JobHandle, Module};
    /// # async fn example(handle: JobHandle, map: ArrayRef, module: Module) -> Result<(), Error> {
    /// let mut more = handle.more().await?;
    /// let next = more.array("next", module.function("next")).each(&map).add();
    /// handle.extend(more).await?;
    /// handle.array(&next).await?;
    /// handle.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the job was submitted by another process and cannot be looked up.
    pub async fn more(&self) -> Result<JobBuilder, Error> {
        let outputs = self.inner.lock_built().outputs.clone();
        let outputs = match outputs {
            Some(outputs) => outputs,
            None => self.status().await?.arrays.iter().map(|array| array.outputs).collect(),
        };
        let mut built = self.inner.lock_built();
        let outputs = built.outputs.get_or_insert(outputs).clone();
        Ok(JobBuilder::continuing(built.builder, outputs))
    }

    /// Adds arrays to an open job.
    ///
    /// # Errors
    /// If they are not valid, the job is not open, or it got other arrays since [`JobHandle::more`].
    pub async fn extend(&self, more: JobBuilder) -> Result<(), Error> {
        let parts = more.into_parts().map_err(Error::Job)?;
        {
            let built = self.inner.lock_built();
            let now = built.outputs.as_ref().map_or(0, Vec::len);
            if parts.id != built.builder || now != parts.before.len() {
                return Err(self.outdated(parts.before.len(), now));
            }
        }
        let outputs: Vec<u32> = parts.arrays.iter().map(|array| array.outputs).collect();
        let arrays = parts.arrays.into_iter().map(Into::into).collect();
        let request = wire::ExtendRequest { job: self.number(), arrays, idempotency_key: idempotency_key() };
        let send = |channel, request| async move { jobs(channel).extend(request).await };
        let answer = self.inner.transport.call("extend the job", SUBMISSION, request, send).await?;
        let first = usize::try_from(answer.first_array).unwrap_or(usize::MAX);
        let mut built = self.inner.lock_built();
        if first != parts.before.len() {
            built.outputs = None;
            return Err(self.outdated(parts.before.len(), first));
        }
        if let Some(known) = &mut built.outputs {
            known.extend(outputs);
        }
        Ok(())
    }

    fn outdated(&self, then: usize, now: usize) -> Error {
        Error::Job(BuildError::Outdated { job: self.number(), then, now })
    }

    /// Says that no more arrays will be added; the job ends when its tasks have.
    ///
    /// # Errors
    /// If there is no such job, or the cluster refuses or cannot be reached.
    pub async fn close(&self) -> Result<(), Error> {
        let send = |channel, request| async move { jobs(channel).close(request).await };
        self.inner.transport.call("close the job", QUESTION, self.inner.request(), send).await.map(drop)
    }

    /// Stops everything of the job. A job that has ended stays as it is.
    ///
    /// # Errors
    /// If there is no such job, or the cluster refuses or cannot be reached.
    pub async fn cancel(&self) -> Result<(), Error> {
        let send = |channel, request| async move { jobs(channel).cancel(request).await };
        self.inner.transport.call("cancel the job", QUESTION, self.inner.request(), send).await.map(drop)
    }

    /// Gives up the results of a job that has ended; the job disappears.
    ///
    /// # Errors
    /// If there is no such job, it has not ended, or the cluster refuses or cannot be reached.
    pub async fn release(&self) -> Result<(), Error> {
        let attempts = AtomicU32::new(0);
        let send = |channel, request| {
            attempts.fetch_add(1, Ordering::Relaxed);
            async move { jobs(channel).release(request).await }
        };
        let released = self.inner.transport.call("release the job", QUESTION, self.inner.request(), send).await;
        match released {
            // An attempt whose answer was lost had done it.
            Err(error) if attempts.into_inner() > 1 && error.code() == Some(Code::NotFound) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Uploads the data of one task of an upload array.
    ///
    /// # Errors
    /// If the task is not one that waits for data, or the cluster refuses or cannot be reached.
    pub async fn put(&self, array: &ArrayRef, index: u32, data: impl Into<Bytes>) -> Result<(), Error> {
        let data: Bytes = data.into();
        let (array, _) = find(self.number(), &mut self.inner.follow(), &self.array(array).target).await?;
        let header = self.inner.put_header(array, index, data.len() as u64);
        let parts: Vec<_> = std::iter::once(put_part(wire::put_request::Part::Header(header)))
            .chain(chunks(&data).map(|chunk| put_part(wire::put_request::Part::Chunk(chunk))))
            .collect();
        self.inner
            .transport
            .repeat(|| {
                let request = self.inner.transport.request(stream::iter(parts.clone()));
                self.inner.send_put(request)
            })
            .await
    }

    /// Uploads `size` bytes from a reader, with no more than a few pieces in memory. It is not repeated when the
    /// connection breaks, because the reader cannot be.
    ///
    /// # Errors
    /// As [`JobHandle::put`], and if the reader fails or ends early.
    pub async fn put_reader(
        &self,
        array: &ArrayRef,
        index: u32,
        size: u64,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let (array, _) = find(self.number(), &mut self.inner.follow(), &self.array(array).target).await?;
        let header = put_part(wire::put_request::Part::Header(self.inner.put_header(array, index, size)));
        let fault = Arc::new(Mutex::new(None));
        let pieces = read_pieces(reader, size, Arc::clone(&fault));
        let request = self.inner.transport.request(stream::iter([header]).chain(pieces));
        let sent = self.inner.send_put(request).await;
        match fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(source) => Err(Error::LocalData { operation: PUT, source }),
            None => sent,
        }
    }
}

const PUT: &str = "upload the data";

fn put_part(part: wire::put_request::Part) -> wire::PutRequest {
    wire::PutRequest { part: Some(part) }
}

/// Reads pieces until `size` bytes were read. What goes wrong is left in `fault`, because a request stream has no
/// errors: it just ends, and the cluster refuses what is incomplete.
fn read_pieces(
    reader: impl AsyncRead + Send + Unpin + 'static,
    size: u64,
    fault: Arc<Mutex<Option<std::io::Error>>>,
) -> impl Stream<Item = wire::PutRequest> + Send + 'static {
    stream::unfold((reader, size), move |(mut reader, left)| {
        let fault = Arc::clone(&fault);
        async move {
            if left == 0 {
                return None;
            }
            let mut piece = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            let read = reader.read(&mut piece).await.and_then(|read| match read {
                0 => Err(std::io::Error::other(format!("it ended {left} bytes early"))),
                read => Ok(read),
            });
            match read {
                Ok(read) => {
                    piece.truncate(read);
                    let part = put_part(wire::put_request::Part::Chunk(piece.into()));
                    Some((part, (reader, left - read as u64)))
                }
                Err(error) => {
                    *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    None
                }
            }
        }
    })
}

impl Inner {
    fn request(&self) -> wire::JobRequest {
        wire::JobRequest { job: self.number, tenant: self.tenant.clone() }
    }

    fn follow(&self) -> watch::Receiver<Known> {
        self.follower.follow(&self.transport)
    }

    fn lock_built(&self) -> std::sync::MutexGuard<'_, Built> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_header(&self, array: ArrayIndex, index: u32, size: u64) -> wire::PutHeader {
        wire::PutHeader { job: self.number, array: array.0, index, size }
    }

    async fn send_put<S>(&self, request: tonic::Request<S>) -> Result<(), Error>
    where
        S: Stream<Item = wire::PutRequest> + Send + 'static,
    {
        let mut client = jobs(self.transport.channel());
        self.transport.once(PUT, TRANSFER, client.put(request)).await.map(drop)
    }
}

/// An array of a job. Awaiting it waits until all its tasks have succeeded.
#[derive(Debug, Clone)]
pub struct ArrayHandle {
    inner: Arc<Inner>,
    target: Target,
}

impl ArrayHandle {
    /// One of its tasks.
    #[must_use]
    pub fn task(&self, index: u32) -> TaskHandle {
        TaskHandle { array: self.clone(), index: Some(index), output: 0 }
    }

    /// Its last task, which for a fold is the one with the result.
    #[must_use]
    pub fn last(&self) -> TaskHandle {
        TaskHandle { array: self.clone(), index: None, output: 0 }
    }

    /// How many tasks it has.
    ///
    /// # Errors
    /// If the job ends without this array.
    pub async fn tasks(&self) -> Result<u32, Error> {
        Ok(self.find().await?.1)
    }

    /// Its position in the job.
    ///
    /// # Errors
    /// If the job ends without this array.
    pub async fn index(&self) -> Result<ArrayIndex, Error> {
        Ok(self.find().await?.0)
    }

    async fn find(&self) -> Result<(ArrayIndex, u32), Error> {
        find(self.inner.number, &mut self.inner.follow(), &self.target).await
    }

    /// Waits until all tasks have succeeded.
    ///
    /// # Errors
    /// [`TaskError`] for the first task that ended otherwise.
    pub async fn wait(&self) -> Result<(), Error> {
        let mut known = self.inner.follow();
        let (array, _) = find(self.inner.number, &mut known, &self.target).await?;
        let job = self.inner.number;
        let what = || format!("all tasks of array {array}");
        wait_for(job, &mut known, what, |progress| {
            let Some(status) = progress.array(array) else { return Ok(None) };
            match status.first_not_succeeded() {
                Some((index, _)) => judge(job, progress, array, index),
                None => Ok(status.is_complete().then_some(())),
            }
        })
        .await
    }

    /// Its tasks as they end, each once, in the order in which they end: the position and how it ended.
    ///
    /// ```no_run
    /// # use futures_util::TryStreamExt;
    /// # async fn example(array: partita_client::ArrayHandle) -> Result<(), partita_client::Error> {
    /// let mut ends = Box::pin(array.as_completed());
    /// while let Some((index, end)) = ends.try_next().await? {
    ///     println!("task {index} {end}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_completed(&self) -> impl Stream<Item = Result<(u32, TaskEnd), Error>> + Send + use<> {
        let start = Completed::Looking(self.clone());
        stream::try_unfold(start, |state| async move {
            let mut reader = match state {
                Completed::Looking(array) => EndReader::new(array).await?,
                Completed::Reading(reader) => reader,
            };
            let next = reader.next().await?;
            Ok(next.map(|end| (end, Completed::Reading(reader))))
        })
    }

    /// Waits for all tasks and streams their outputs whole, as they arrive: the position of the task and its bytes.
    ///
    /// Use [`ArrayHandle::pieces`] for outputs that do not fit in memory.
    ///
    /// # Errors
    /// If a task does not succeed, or the outputs cannot be read.
    pub async fn outputs(
        &self,
        output: u32,
    ) -> Result<impl Stream<Item = Result<(u32, Bytes), Error>> + Send + use<>, Error> {
        self.wait().await?;
        let (array, _) = self.find().await?;
        let selection = OutputSelection::all(array).output(output);
        let inner = &self.inner;
        let outputs = Outputs::open(&inner.transport, inner.number, &inner.tenant, &selection).await?;
        Ok(outputs.complete(output))
    }

    /// Waits for all tasks and collects their outputs in the order of the tasks.
    ///
    /// # Errors
    /// If a task does not succeed, or the outputs cannot be read.
    pub async fn collect(&self, output: u32) -> Result<Vec<Bytes>, Error> {
        let (_, tasks) = self.find().await?;
        let mut by_task = std::collections::BTreeMap::new();
        let mut arriving = Box::pin(self.outputs(output).await?);
        while let Some((index, bytes)) = arriving.try_next().await? {
            by_task.insert(index, bytes);
        }
        (0..tasks)
            .map(|index| {
                by_task.remove(&index).ok_or_else(|| {
                    Error::malformed("read the result", format!("output {output} of task {index} did not come"))
                })
            })
            .collect()
    }

    /// Waits for all tasks and streams one output of each in the order of the tasks, in pieces.
    ///
    /// # Errors
    /// If a task does not succeed.
    pub async fn pieces(&self, output: u32) -> Result<impl Stream<Item = Result<Piece, Error>> + Send + use<>, Error> {
        self.wait().await?;
        let (array, tasks) = self.find().await?;
        let inner = &self.inner;
        Ok(in_order(inner.transport.clone(), inner.number, inner.tenant.clone(), array, 0..tasks, output))
    }
}

impl IntoFuture for ArrayHandle {
    type Output = Result<(), Error>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.wait().await })
    }
}

enum Completed {
    Looking(ArrayHandle),
    Reading(EndReader),
}

/// Reads the ends of an array's tasks, each task once even if it ran again.
struct EndReader {
    job: u32,
    /// Keeps the follower alive.
    _inner: Arc<Inner>,
    known: watch::Receiver<Known>,
    array: ArrayIndex,
    position: usize,
    range: Range<u32>,
    end: TaskEnd,
    seen: Vec<bool>,
    left: u32,
}

impl EndReader {
    async fn new(array: ArrayHandle) -> Result<Self, Error> {
        let mut known = array.inner.follow();
        let (index, tasks) = find(array.inner.number, &mut known, &array.target).await?;
        let seen = vec![false; usize::try_from(tasks).unwrap_or(usize::MAX)];
        let job = array.inner.number;
        let end = TaskEnd::Succeeded;
        Ok(Self { job, _inner: array.inner, known, array: index, position: 0, range: 0..0, end, seen, left: tasks })
    }

    async fn next(&mut self) -> Result<Option<(u32, TaskEnd)>, Error> {
        while self.left > 0 {
            if let Some(index) = self.range.next() {
                let slot = usize::try_from(index).ok().and_then(|index| self.seen.get_mut(index));
                if slot.is_some_and(|seen| !std::mem::replace(seen, true)) {
                    self.left -= 1;
                    return Ok(Some((index, self.end)));
                }
                continue;
            }
            let (array, position) = (self.array, self.position);
            let what = || format!("the tasks of array {array}");
            let (range, end) = wait_for(self.job, &mut self.known, what, |progress| {
                Ok(progress.array(array).and_then(|array| array.log_from(position).first().cloned()))
            })
            .await?;
            self.position += 1;
            (self.range, self.end) = (range, end);
        }
        Ok(None)
    }
}

/// A task of a job. Awaiting it waits until it has succeeded and gives its output.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    array: ArrayHandle,
    /// `None` for the last one.
    index: Option<u32>,
    output: u32,
}

impl TaskHandle {
    /// The same task, but another output of it.
    #[must_use]
    pub fn output(mut self, output: u32) -> Self {
        self.output = output;
        self
    }

    /// Waits until the task has succeeded.
    ///
    /// # Errors
    /// [`TaskError`] if it does not succeed.
    pub async fn wait(&self) -> Result<(), Error> {
        self.located().await.map(drop)
    }

    /// Waits until the task has succeeded; says where it is.
    async fn located(&self) -> Result<(ArrayIndex, u32), Error> {
        let job = self.array.inner.number;
        let mut known = self.array.inner.follow();
        let (array, tasks) = find(job, &mut known, &self.array.target).await?;
        let index = match self.index {
            Some(index) => index,
            None => tasks.checked_sub(1).ok_or_else(|| TaskError::Missing { job, what: format!("task in {array}") })?,
        };
        let what = || format!("task {index} of array {array}");
        wait_for(job, &mut known, what, |progress| judge(job, progress, array, index)).await?;
        Ok((array, index))
    }

    /// Waits until the task has succeeded and streams its output.
    ///
    /// # Errors
    /// [`TaskError`] if it does not succeed; otherwise as [`crate::Client::outputs`].
    pub async fn stream(&self) -> Result<Outputs, Error> {
        let (array, index) = self.located().await?;
        let inner = &self.array.inner;
        let selection = OutputSelection::task(array, index).output(self.output);
        Outputs::open(&inner.transport, inner.number, &inner.tenant, &selection).await
    }

    /// Waits until the task has succeeded and collects its output.
    async fn bytes(&self) -> Result<Bytes, Error> {
        let (array, index) = self.located().await?;
        let inner = &self.array.inner;
        let selection = OutputSelection::task(array, index).output(self.output);
        inner
            .transport
            .repeat(|| async {
                let outputs = Outputs::open(&inner.transport, inner.number, &inner.tenant, &selection).await?;
                outputs.collect_one(index, self.output).await
            })
            .await
    }
}

impl IntoFuture for TaskHandle {
    type Output = Result<Bytes, Error>;
    type IntoFuture = Pending<Bytes>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.bytes().await })
    }
}
