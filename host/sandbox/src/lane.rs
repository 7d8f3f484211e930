//! One run of a batch on one executor: hands out attempts, collects their ends, and watches limits meanwhile.
//!
//! Attempts go out in chunks, two at a time, so that the executor never waits for the daemon. What it says is checked:
//! whoever blocks, lies or sends garbage is killed, and exactly one attempt is blamed for it: the first whose end is not
//! there. In an honest executor that is the one that was running; a dishonest one harms only its own tenant's batch.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partita_types::{ByteSize, Cause, ContentHash, CpuTime, Failure, MAX_OUTPUTS_PER_TASK, OutputInfo, Usage};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::clock;
use crate::control::Running;
use crate::executor::{WATCH_PERIOD, cpu_failure, describe_death, wall_failure};
use crate::payload::PartitionFile;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::end::{self, ClaimedEnd, ClaimedOutput, Expected, RECORD_HERE, RECORD_IN_MESSAGE};
use crate::wire::frame::{Setup, encode_attempt, from_executor, to_executor};
use crate::wire::page::WINDOW;
use crate::wire::socket::{DESCRIPTORS_MAX, Message, PACKET_BODY, Packet};
use crate::zygote::Death;
use crate::{AttemptEnd, Batch, Executor, Output, Payload, RunControl, RunEnd};

/// Most attempts of one chunk.
const CHUNK_ATTEMPTS: usize = WINDOW / 2;
/// Chunks that the executor has at once: one to run and one to go on with.
const CHUNKS_OUT: usize = 2;
/// Most files of one chunk, unless its first attempt alone has more.
const CHUNK_FILES: usize = 256;
/// How often a paused executor is looked at: only its wall time passes.
const PAUSED_PERIOD: Duration = Duration::from_millis(20);
/// How long an executor may take from the end of its last attempt to the message that says so. Pauses do not count.
const CHUNK_END_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5_000 });
/// By how much the kernel's CPU clock may lag behind what an executor measured of itself.
const CPU_GRAIN: CpuTime = CpuTime::from_micros(20_000);

/// Why the executor must be ended, or has ended.
enum Stop {
    /// The attempt at `position` reached a limit or was cancelled.
    Attempt { position: usize, failure: Failure },
    /// Everything is to end.
    CancelAll,
    /// It sent something that no honest executor sends.
    Garbage(String),
    /// Its connection closed.
    Died,
}

impl From<Malformed> for Stop {
    fn from(error: Malformed) -> Self {
        Self::Garbage(error.to_string())
    }
}

/// The attempt that is being watched.
struct Watched {
    position: usize,
    since: Instant,
    cpu_start: CpuTime,
}

pub(crate) struct Lane<'a> {
    executor: &'a mut Executor,
    batch: &'a Batch,
    control: &'a RunControl,
    on_end: &'a mut dyn FnMut(AttemptEnd),
    expected: Expected,
    /// Positions below were handed out.
    sent: usize,
    /// Positions below were reported.
    collected: usize,
    chunks_out: usize,
    /// Messages for which the socket had no room yet.
    outbox: VecDeque<Packet>,
    /// Output files of the next end that comes over the socket.
    files: VecDeque<PartitionFile>,
    /// Ends that came over the socket, before the page pointed to them.
    ends: VecDeque<(u64, Vec<u8>, VecDeque<PartitionFile>)>,
    cancelled: BTreeSet<usize>,
    watched: Option<Watched>,
    /// Since when the executor has ended all attempts but not said so.
    owes_since: Option<Instant>,
    /// The executor's CPU clock when the batch began, and what of it was charged since.
    cpu_before: CpuTime,
    charged: CpuTime,
    record: Vec<u8>,
}

impl<'a> Lane<'a> {
    pub(crate) fn new(
        executor: &'a mut Executor,
        batch: &'a Batch,
        control: &'a RunControl,
        on_end: &'a mut dyn FnMut(AttemptEnd),
    ) -> Self {
        let expected = Expected { outputs: batch.outputs, output: batch.limits.output, log: batch.limits.log };
        // The executor is idle, so its clock is exact and nobody else writes the page.
        executor.page.reset();
        let cpu_before = executor.handle.cpu_time().unwrap_or_default();
        Self {
            executor,
            batch,
            control,
            on_end,
            expected,
            sent: 0,
            collected: 0,
            chunks_out: 0,
            outbox: VecDeque::new(),
            files: VecDeque::new(),
            ends: VecDeque::new(),
            cancelled: BTreeSet::new(),
            watched: None,
            owes_since: None,
            cpu_before,
            charged: CpuTime::default(),
            record: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) -> RunEnd {
        match self.drive() {
            Ok(()) => RunEnd::Complete,
            Err(stop) => self.stop(stop),
        }
    }

    /// Until every attempt is reported, or the executor has to be ended.
    fn drive(&mut self) -> Result<(), Stop> {
        loop {
            self.obey()?;
            self.hand_out()?;
            self.flush()?;
            if self.collected == self.batch.attempts.len() && self.chunks_out == 0 {
                return Ok(());
            }
            self.wait()?;
            self.receive()?;
            self.collect()?;
            self.watch()?;
        }
    }

    /// Does what was asked for through the control.
    fn obey(&mut self) -> Result<(), Stop> {
        let requests = self.control.take();
        if requests.all {
            if self.sent > 0 {
                return Err(Stop::CancelAll);
            }
            // Nothing has begun, so nothing has to be ended.
            self.cancel_rest(None);
            self.sent = self.collected;
        }
        for position in requests.positions {
            if position < self.collected || position >= self.batch.attempts.len() {
                continue;
            }
            self.cancelled.insert(position);
            if position < self.sent {
                // First ask to skip it, then look whether it runs: the executor does it in the other order.
                self.executor.page.skip(position as u64);
                if self.executor.page.claim().is_some_and(|claim| claim.position == position as u64) {
                    return Err(Stop::Attempt { position, failure: cancelled() });
                }
            }
        }
        Ok(())
    }

    /// Gives the executor more to do.
    fn hand_out(&mut self) -> Result<(), Stop> {
        while self.chunks_out < CHUNKS_OUT && self.sent < self.batch.attempts.len() && self.outbox.is_empty() {
            let room = WINDOW - (self.sent - self.collected);
            let packets = self.next_chunk(room.min(CHUNK_ATTEMPTS));
            match packets {
                Ok(packets) if packets.is_empty() => return Ok(()),
                Ok(packets) => self.outbox.extend(packets),
                Err(error) => {
                    let text = format!("no room to hand over its inputs: {error}");
                    let failure = Failure::new(Cause::Storage, text);
                    return Err(Stop::Attempt { position: self.collected, failure });
                }
            }
            self.chunks_out += 1;
        }
        Ok(())
    }

    /// Encodes the next attempts, at most `most`, as one message and those of its files.
    fn next_chunk(&mut self, most: usize) -> std::io::Result<Vec<Packet>> {
        let first = self.sent;
        let mut attempts = Writer::default();
        let mut files: Vec<Arc<PartitionFile>> = Vec::new();
        while self.sent < self.batch.attempts.len() && self.sent - first < most {
            let attempt = &self.batch.attempts[self.sent];
            let skipped = self.cancelled.contains(&self.sent);
            let inputs = if skipped { &[][..] } else { &attempt.inputs[..] };
            let (more, length) = weigh(inputs, attempt.arguments.as_ref().map_or(0, bytes::Bytes::len));
            let is_full = files.len() + more > CHUNK_FILES || attempts.len() + length > PACKET_BODY;
            if is_full && self.sent > first {
                break;
            }
            if skipped {
                self.executor.page.skip(self.sent as u64);
            }
            files.extend(inputs.iter().flatten().filter_map(|input| match input {
                Payload::Inline(_) => None,
                Payload::File(file) => Some(file.clone()),
            }));
            encode_attempt(&mut attempts, &attempt.seed, attempt.arguments.as_ref(), inputs);
            self.sent += 1;
        }
        if self.sent == first {
            return Ok(Vec::new());
        }
        let mut packets = file_packets(&files)?;
        packets.push(Packet::new(to_executor::RUN, &self.chunk_body(first, attempts.as_slice()), Vec::new())?);
        Ok(packets)
    }

    /// The message of one chunk; the first one carries what all attempts have in common.
    fn chunk_body(&self, first: usize, attempts: &[u8]) -> Vec<u8> {
        let mut body = Writer::default();
        body.u8(u8::from(first == 0));
        if first == 0 {
            let setup = Setup {
                function: self.batch.function.clone(),
                limits: self.batch.limits,
                outputs: self.batch.outputs,
                submitted_at: self.batch.submitted_at,
                common_arguments: self.batch.common_arguments.clone(),
            };
            setup.encode(&mut body);
        }
        body.u64(first as u64);
        body.count(self.sent - first);
        body.raw(attempts);
        body.into_bytes()
    }

    /// Sends what fits into the socket, never waiting.
    fn flush(&mut self) -> Result<(), Stop> {
        while let Some(packet) = self.outbox.front() {
            match self.executor.socket.try_send(packet) {
                Ok(()) => {
                    self.outbox.pop_front();
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Stop::Died),
            }
        }
        Ok(())
    }

    /// Waits for a message, for a request through the control, or for the next look at the limits.
    fn wait(&self) -> Result<(), Stop> {
        let mut flags = PollFlags::IN;
        if !self.outbox.is_empty() {
            flags |= PollFlags::OUT;
        }
        let mut polled = [PollFd::new(&self.executor.socket, flags), PollFd::new(self.control, PollFlags::IN)];
        let period = if self.control.is_paused() { PAUSED_PERIOD } else { WATCH_PERIOD };
        let timeout = Timespec::try_from(period).ok();
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Stop::Garbage(format!("the executor's socket cannot be watched: {error}"))),
        }
    }

    /// Takes all messages that are there.
    fn receive(&mut self) -> Result<(), Stop> {
        loop {
            match self.executor.socket.try_receive(&mut self.executor.buffer) {
                Ok(Some(message)) => self.on_message(message)?,
                Ok(None) => return Err(Stop::Died),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Stop::Garbage(error.to_string())),
            }
        }
    }

    fn on_message(&mut self, message: Message) -> Result<(), Stop> {
        match message.kind {
            from_executor::CHUNK => {
                self.chunks_out = self.chunks_out.checked_sub(1).ok_or(Malformed("the end of no chunk"))?;
            }
            from_executor::FILES => {
                for descriptor in message.descriptors {
                    let file = PartitionFile::from_sealed(descriptor)
                        .map_err(|error| Stop::Garbage(format!("an output file is not acceptable: {error}")))?;
                    self.files.push_back(file);
                }
                if self.files.len() > MAX_OUTPUTS_PER_TASK as usize {
                    return Err(Malformed("more output files than outputs").into());
                }
            }
            from_executor::END => {
                let mut reader = Reader::new(&message.body);
                let position = reader.u64()?;
                let record = message.body[reader.position()..].to_vec();
                self.ends.push_back((position, record, std::mem::take(&mut self.files)));
                if self.ends.len() > WINDOW {
                    return Err(Malformed("more ends than attempts").into());
                }
            }
            _ => return Err(Malformed("unknown message").into()),
        }
        Ok(())
    }

    /// Reports every end that is there, in order.
    fn collect(&mut self) -> Result<(), Stop> {
        while self.collected < self.sent {
            let position = self.collected as u64;
            if !self.executor.page.collect(position, &mut self.record) {
                return Ok(());
            }
            let claimed = self.read_record(position)?;
            self.executor.page.release(position);
            self.report(claimed)?;
        }
        Ok(())
    }

    fn read_record(&mut self, position: u64) -> Result<ClaimedEnd, Stop> {
        match self.record.split_first() {
            Some((&RECORD_HERE, record)) => Ok(end::decode(record, &mut VecDeque::new(), &self.expected)?),
            Some((&RECORD_IN_MESSAGE, _)) => {
                // It was sent before the page was written, so it is here or in the socket.
                if self.ends.is_empty() {
                    self.receive()?;
                }
                match self.ends.pop_front() {
                    Some((at, record, mut files)) if at == position => {
                        Ok(end::decode(&record, &mut files, &self.expected)?)
                    }
                    _ => Err(Malformed("an end is missing").into()),
                }
            }
            _ => Err(Malformed("empty record").into()),
        }
    }

    fn report(&mut self, claimed: ClaimedEnd) -> Result<(), Stop> {
        let result = match claimed.result {
            Ok(outputs) => Ok(outputs
                .into_iter()
                .map(accept)
                .collect::<std::io::Result<_>>()
                .map_err(|error| Stop::Garbage(format!("an output cannot be read: {error}")))?),
            Err(failure) => Err(failure),
        };
        let position = self.collected;
        let cpu = self.charge(CpuTime::from_micros(claimed.cpu_ns / 1_000));
        let peak_memory = claimed.peak_memory.min(self.batch.limits.memory);
        self.collected += 1;
        (self.on_end)(AttemptEnd { position, result, usage: Usage { cpu, peak_memory }, log: claimed.log });
        Ok(())
    }

    /// What of the executor's CPU time an attempt is charged: what the executor says, within what the kernel says. An
    /// executor that says too little is charged the rest with the last attempt that it has.
    fn charge(&mut self, claimed: CpuTime) -> CpuTime {
        let Some(now) = self.executor.handle.cpu_time() else { return claimed.min(self.batch.limits.cpu_time) };
        let used = now.micros.saturating_sub(self.cpu_before.micros);
        let uncharged = used.saturating_sub(self.charged.micros);
        let most = uncharged.saturating_add(CPU_GRAIN.micros);
        let is_last = self.collected + 1 == self.sent;
        let least = if is_last { uncharged.saturating_sub(CPU_GRAIN.micros) } else { 0 };
        let cpu = CpuTime::from_micros(claimed.micros.clamp(least, most));
        self.charged = self.charged.saturating_add(cpu);
        cpu
    }

    /// Looks at the attempt that runs, and at its limits.
    fn watch(&mut self) -> Result<(), Stop> {
        let now = clock::now();
        if self.collected == self.sent {
            self.watched = None;
            self.control.publish(None);
            if self.control.is_paused() {
                self.owes_since = None;
                return Ok(());
            }
            let since = *self.owes_since.get_or_insert(now);
            let owes = now.duration_since(since) >= CHUNK_END_LIMIT;
            return if owes { Err(Malformed("no end of a chunk").into()) } else { Ok(()) };
        }
        self.owes_since = None;
        let claim = self.executor.page.claim();
        // An executor that claims to run nothing, or something impossible, is held to run what it owes first.
        let plausible = claim.filter(|claim| (self.collected as u64..self.sent as u64).contains(&claim.position));
        let position = plausible.and_then(|claim| usize::try_from(claim.position).ok()).unwrap_or(self.collected);
        let (done, total) = plausible.map_or((0, 0), |claim| (claim.done, claim.total));
        self.control.publish(Some(Running { position, done, total }));
        let watched = match &self.watched {
            Some(watched) if watched.position == position => watched,
            _ => {
                let kernel = self.executor.handle.cpu_time().unwrap_or_default();
                let claimed = plausible.map_or(kernel, |claim| CpuTime::from_micros(claim.cpu_start_ns / 1_000));
                let cpu_start = claimed.clamp(self.cpu_before.min(kernel), kernel);
                self.watched.insert(Watched { position, since: now, cpu_start })
            }
        };
        let ran = now.duration_since(watched.since);
        let limits = &self.batch.limits;
        if ran >= limits.wall_time {
            return Err(Stop::Attempt { position, failure: wall_failure(limits) });
        }
        // One thread cannot use more CPU time than time has passed; the clock is asked only when it may matter.
        if ran.saturating_add(WATCH_PERIOD * 4) >= Duration::from_micros(limits.cpu_time.micros) {
            let used = self.executor.handle.cpu_time().unwrap_or_default();
            if used.micros.saturating_sub(watched.cpu_start.micros) >= limits.cpu_time.micros {
                return Err(Stop::Attempt { position, failure: cpu_failure(limits) });
            }
        }
        Ok(())
    }

    /// Ends the executor, saves what it finished, and blames at most one attempt.
    fn stop(mut self, stop: Stop) -> RunEnd {
        // A process that only closed its connection is not dead yet.
        let natural = matches!(stop, Stop::Died).then(|| self.executor.handle.wait_for_death()).flatten();
        let death = natural.or_else(|| self.executor.handle.end());
        let running = self.executor.page.claim().map(|claim| claim.position);
        self.save(&stop);
        if matches!(stop, Stop::CancelAll) {
            self.cancel_rest(death);
        } else if self.collected < self.batch.attempts.len() {
            let is_running = running == Some(self.collected as u64);
            if let Some(failure) = self.verdict(stop, is_running, death) {
                self.blame(failure, death);
            }
        }
        RunEnd::ExecutorLost { next: self.collected }
    }

    /// Of what the first attempt that has not ended is to be blamed, if of anything. Blame needs evidence; but where a run
    /// brought nothing at all, its first attempt is blamed without any, or the batch would be handed on for ever.
    fn verdict(&self, stop: Stop, is_running: bool, death: Option<Death>) -> Option<Failure> {
        let next = self.collected;
        match stop {
            Stop::CancelAll => Some(cancelled()),
            Stop::Attempt { position, failure } if position == next => Some(failure),
            // The attempt ended while the signal was on its way. Whoever came next is handed on without blame.
            Stop::Attempt { position, .. } if position < next => None,
            Stop::Attempt { .. } => Some(Failure::new(Cause::Crash, "the executor lost the end of the attempt")),
            Stop::Garbage(text) if next < self.sent || next == 0 => {
                Some(Failure::new(Cause::Crash, format!("the executor sent garbage: {text}")))
            }
            Stop::Died if is_running || next == 0 => {
                Some(Failure::new(Cause::Crash, format!("the executor died, {}", describe_death(death))))
            }
            Stop::Garbage(_) | Stop::Died => None,
        }
    }

    /// Reports what the executor finished before it ended. What is wrong with it no longer matters.
    fn save(&mut self, stop: &Stop) {
        if matches!(stop, Stop::Garbage(_)) {
            return;
        }
        let _ = self.receive();
        let _ = self.collect();
    }

    fn cancel_rest(&mut self, death: Option<Death>) {
        while self.collected < self.batch.attempts.len() {
            self.blame(cancelled(), death);
        }
    }

    /// Reports a failure of the first attempt that has not ended, and charges it what nobody else was charged.
    fn blame(&mut self, failure: Failure, death: Option<Death>) {
        let position = self.collected;
        let total = death.map_or(CpuTime::default(), |death| death.cpu);
        let used = total.micros.saturating_sub(self.cpu_before.micros);
        let cpu = CpuTime::from_micros(used.saturating_sub(self.charged.micros));
        self.charged = self.charged.saturating_add(cpu);
        self.collected += 1;
        let usage = Usage { cpu, peak_memory: ByteSize::ZERO };
        (self.on_end)(AttemptEnd { position, result: Err(failure), usage, log: Vec::new() });
    }
}

fn cancelled() -> Failure {
    Failure::new(Cause::Cancelled, "cancelled")
}

/// How many files and about how many bytes an attempt adds to a message.
fn weigh(inputs: &[Vec<Payload>], arguments: usize) -> (usize, usize) {
    let mut files = 0;
    let mut bytes = 64 + arguments + inputs.len() * 4;
    for input in inputs.iter().flatten() {
        match input {
            Payload::Inline(inline) => bytes += inline.len() + 5,
            Payload::File(_) => {
                files += 1;
                bytes += 1;
            }
        }
    }
    (files, bytes)
}

fn file_packets(files: &[Arc<PartitionFile>]) -> std::io::Result<Vec<Packet>> {
    let mut packets = Vec::new();
    for some in files.chunks(DESCRIPTORS_MAX - 1) {
        let descriptors =
            some.iter().map(|file| file.as_fd().try_clone_to_owned()).collect::<std::io::Result<Vec<_>>>()?;
        packets.push(Packet::new(to_executor::FILES, &[], descriptors)?);
    }
    Ok(packets)
}

/// Takes an output over. Its hash is computed here, from bytes that can no longer change.
fn accept(output: ClaimedOutput) -> std::io::Result<Output> {
    let payload = match output {
        ClaimedOutput::Inline(bytes) => Payload::new(bytes)?,
        ClaimedOutput::File(file) => Payload::File(Arc::new(file)),
    };
    let bytes = payload.bytes()?;
    let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
    let info = OutputInfo { size: ByteSize(bytes.len() as u64), hash };
    Ok(Output { payload, info })
}

#[cfg(test)]
mod tests;
