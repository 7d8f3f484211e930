//! Fetching partitions from other hosts.
//!
//! Frames that need the same partition at the same time share one fetch, and what was fetched is kept for a while:
//! broadcast inputs are read by every frame of an array. Copies are not told to the scheduler; they may vanish at any
//! time. Everything is checked on arrival against the size and hash that the scheduler gave.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partita_identity::dial::{self, Expect};
use partita_protocol::host::PartitionList;
use partita_protocol::peer::FetchRequest;
use partita_protocol::peer::partitions_client::PartitionsClient;
use partita_sandbox::Payload;
use partita_types::{ByteSize, HostName, PartitionId, Source, StoredPartition};
use rustls::ClientConfig;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::copies::Copies;
use crate::error;
use crate::metrics::Counters;
use crate::pieces::{Assembler, Piece};
use crate::sync::lock;

/// Connections kept to other hosts.
const MAX_CHANNELS: usize = 256;
/// Partitions of one request; bounds its size.
const MAX_PER_REQUEST: usize = 16_384;
/// Longest wait for an answer or for its next chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a fetch is tried before a source is given up.
const TRIES: u32 = 2;

/// What a fetch brought.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) payloads: HashMap<PartitionId, Payload>,
    /// How many of them came over the network for this fetch, and their bytes.
    pub(crate) moved: u64,
    pub(crate) moved_bytes: ByteSize,
    /// Why the others did not come.
    pub(crate) problem: Option<String>,
}

/// Fetches that run: who waits for one is woken when its sender is dropped.
type Flights = HashMap<PartitionId, watch::Receiver<()>>;

/// The fetching side of partition transfers.
#[derive(Debug)]
pub(crate) struct Fetcher {
    tls: Arc<ClientConfig>,
    channels: Mutex<VecDeque<(HostName, String, Channel)>>,
    copies: Mutex<Copies>,
    flights: Mutex<Flights>,
    counters: Arc<Counters>,
}

/// Partitions that one fetch takes on. Dropping it tells those who wait, however it ended.
struct Claim<'a> {
    fetcher: &'a Fetcher,
    wanted: Vec<StoredPartition>,
    _sender: watch::Sender<()>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.fetcher.flights);
        for partition in &self.wanted {
            flights.remove(&partition.id);
        }
    }
}

impl Fetcher {
    /// Fetches with this host's certificate and keeps copies of up to `budget`.
    pub(crate) fn new(tls: Arc<ClientConfig>, budget: ByteSize, counters: Arc<Counters>) -> Self {
        let copies = Mutex::new(Copies::new(budget));
        Self { tls, channels: Mutex::default(), copies, flights: Mutex::default(), counters }
    }

    /// Copies that are here already.
    pub(crate) fn copies(&self, ids: impl Iterator<Item = PartitionId>) -> Vec<Option<Payload>> {
        let (mut copies, now) = (lock(&self.copies), partita_identity::now());
        ids.map(|id| copies.get(id, now)).collect()
    }

    /// Forgets copies.
    pub(crate) fn forget(&self, ids: &[PartitionId]) {
        let mut copies = lock(&self.copies);
        ids.iter().for_each(|id| copies.forget(*id));
    }

    /// Forgets copies that nobody has asked for lately.
    pub(crate) fn expire(&self) {
        lock(&self.copies).expire(partita_identity::now());
    }

    /// Fetches partitions from `source`, each once even if others want them at the same time.
    pub(crate) async fn fetch(&self, source: &Source, wanted: &[StoredPartition]) -> Fetched {
        let mut fetched = Fetched::default();
        let (claim, others) = self.claim(wanted);
        self.fetch_claimed(source, &claim.wanted, &mut fetched).await;
        drop(claim);
        for mut other in others {
            // An error is what is waited for: the sender is gone.
            while other.changed().await.is_ok() {}
        }
        let left: Vec<StoredPartition> =
            wanted.iter().filter(|partition| !fetched.payloads.contains_key(&partition.id)).copied().collect();
        let copies = self.copies(left.iter().map(|partition| partition.id));
        let mut again = Vec::new();
        for (partition, copy) in left.into_iter().zip(copies) {
            match copy {
                Some(payload) => drop(fetched.payloads.insert(partition.id, payload)),
                None => again.push(partition),
            }
        }
        // What the others did not get, or what did not fit among the copies, is fetched without waiting once more.
        if !again.is_empty() && fetched.problem.is_none() {
            self.fetch_claimed(source, &again, &mut fetched).await;
        }
        fetched
    }

    /// Takes on what nobody fetches yet; answers whom to wait for.
    fn claim(&self, wanted: &[StoredPartition]) -> (Claim<'_>, Vec<watch::Receiver<()>>) {
        let (sender, receiver) = watch::channel(());
        let mut flights = lock(&self.flights);
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for partition in wanted.iter().filter(|partition| seen.insert(partition.id)) {
            if let Some(other) = flights.get(&partition.id) {
                if !others.iter().any(|known: &watch::Receiver<()>| known.same_channel(other)) {
                    others.push(other.clone());
                }
            } else {
                flights.insert(partition.id, receiver.clone());
                mine.push(*partition);
            }
        }
        (Claim { fetcher: self, wanted: mine, _sender: sender }, others)
    }

    async fn fetch_claimed(&self, source: &Source, wanted: &[StoredPartition], fetched: &mut Fetched) {
        for batch in wanted.chunks(MAX_PER_REQUEST) {
            let mut left = batch.to_vec();
            for _ in 0..TRIES {
                let (payloads, problem) = self.request(source, &left).await;
                left = self.keep(left, payloads, fetched);
                fetched.problem = problem;
                if fetched.problem.is_none() {
                    break;
                }
            }
        }
    }

    /// Keeps what came; answers what did not come at all.
    fn keep(
        &self,
        wanted: Vec<StoredPartition>,
        payloads: Vec<Option<Payload>>,
        fetched: &mut Fetched,
    ) -> Vec<StoredPartition> {
        let mut left = wanted;
        let rest = left.split_off(payloads.len().min(left.len()));
        let (mut copies, now) = (lock(&self.copies), partita_identity::now());
        for (partition, payload) in left.into_iter().zip(payloads) {
            let Some(payload) = payload else { continue };
            copies.insert(partition.id, payload.clone(), now);
            fetched.moved += 1;
            fetched.moved_bytes = fetched.moved_bytes.saturating_add(partition.info.size);
            self.counters.fetched_partitions.one();
            self.counters.fetched_bytes.add(partition.info.size.0);
            fetched.payloads.insert(partition.id, payload);
        }
        rest
    }

    /// One request. What came whole is answered even if the rest failed.
    async fn request(&self, source: &Source, wanted: &[StoredPartition]) -> (Vec<Option<Payload>>, Option<String>) {
        let mut assembler = Assembler::new(wanted);
        let result = self.stream(source, wanted, &mut assembler).await;
        let payloads = assembler.finish();
        let short = || format!("{} of {} partitions came", payloads.len(), wanted.len());
        let problem = result.err().or_else(|| (payloads.len() < wanted.len()).then(short));
        (payloads, problem.map(|problem| format!("host {} at {}: {problem}", source.name, source.address)))
    }

    async fn stream(
        &self,
        source: &Source,
        wanted: &[StoredPartition],
        assembler: &mut Assembler<'_>,
    ) -> Result<(), String> {
        let channel = self.channel(source)?;
        let partitions = Some(PartitionList::from_ids(wanted.iter().map(|partition| partition.id)));
        let request = FetchRequest { ticket: source.ticket.clone().into(), partitions };
        let timed_out = |_| format!("nothing came for {} s", CHUNK_TIMEOUT.as_secs());
        let answer = tokio::time::timeout(CHUNK_TIMEOUT, PartitionsClient::new(channel).fetch(request)).await;
        let answer = answer.map_err(timed_out)?.map_err(|status| error::status(&status))?;
        let mut chunks = answer.into_inner();
        loop {
            let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await.map_err(timed_out)?;
            let Some(chunk) = next.map_err(|status| error::status(&status))? else { return Ok(()) };
            for piece in chunk.pieces {
                let piece =
                    Piece { position: piece.position, data: piece.data, end: piece.end, missing: piece.missing };
                assembler.accept(&piece).map_err(|fault| error::chain(&fault))?;
            }
        }
    }

    fn channel(&self, source: &Source) -> Result<Channel, String> {
        let mut channels = lock(&self.channels);
        let known = channels.iter().find(|(name, address, _)| *name == source.name && *address == source.address);
        if let Some((_, _, channel)) = known {
            return Ok(channel.clone());
        }
        let expect = Expect::Host(source.name.clone());
        let channel = dial::channel(&source.address, Arc::clone(&self.tls), expect);
        let channel = channel.map_err(|fault| error::chain(&fault))?;
        if channels.len() >= MAX_CHANNELS {
            channels.pop_front();
        }
        channels.push_back((source.name.clone(), source.address.clone(), channel.clone()));
        Ok(channel)
    }
}
