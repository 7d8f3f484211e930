//! Serving partitions to other hosts.
//!
//! Who asks must be a host of the cluster by its certificate, and must have a ticket that the scheduler made for it, for
//! this host and for these partitions. Every refusal has the same words, whether the ticket is wrong or the partition
//! another tenant's; why is in the log of this host.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use partita_identity::serve::Peer;
use partita_identity::ticket::{self, Claims, TicketError, TicketKey};
use partita_protocol::peer::partitions_server::{Partitions, PartitionsServer};
use partita_protocol::peer::{FetchChunk, FetchPiece, FetchRequest};
use partita_types::PartitionId;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::error;
use crate::host::Host;
use crate::pieces::{Piece, Pieces};

/// Largest request: a ticket of 2 MiB and as many partitions as it can name.
const MAX_REQUEST: usize = 16 << 20;
/// How long a ticket made with no known key waits for the next welcome, which may bring that key: a scheduler that was
/// restarted may have given work to the caller before this host has heard from it.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// The partition service of this host.
pub(crate) struct PeerService {
    host: Arc<Host>,
}

impl PeerService {
    /// Makes it ready for a server.
    pub(crate) fn server(host: Arc<Host>) -> PartitionsServer<Self> {
        PartitionsServer::new(Self { host }).max_decoding_message_size(MAX_REQUEST)
    }

    /// The partitions asked for, if the caller may have them.
    async fn authorize(&self, peer: Option<&Peer>, request: &FetchRequest) -> Result<Vec<PartitionId>, String> {
        let caller = peer.and_then(|peer| peer.host.as_ref()).ok_or("the caller has no host certificate")?;
        let wanted = request.partitions.as_ref().map(|list| list.ids()).transpose();
        let wanted = wanted.map_err(|fault| fault.to_string())?.unwrap_or_default();
        let mut keys = self.host.ticket_keys();
        let known = |keys: &VecDeque<TicketKey>| !matches!(open(keys, &request.ticket), Err(TicketError::NotGenuine));
        // In time or not: what follows says what is wrong with the ticket.
        let _ = tokio::time::timeout(KEY_WAIT, keys.wait_for(known)).await;
        let claims = open(&keys.borrow(), &request.ticket).map_err(|fault| error::chain(&fault))?;
        claims.check(caller, &wanted).map_err(|fault| error::chain(&fault))?;
        Ok(wanted)
    }
}

/// Opens a ticket with whichever key it was made with.
fn open(keys: &VecDeque<TicketKey>, ticket: &[u8]) -> Result<Claims, TicketError> {
    let mut opened = keys.iter().map(|key| ticket::open(key, ticket, partita_identity::now()));
    let genuine = |opened: &Result<Claims, TicketError>| !matches!(opened, Err(TicketError::NotGenuine));
    opened.find(genuine).unwrap_or(Err(TicketError::NotGenuine))
}

#[tonic::async_trait]
impl Partitions for PeerService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchChunk, Status>> + Send>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let wanted = match self.authorize(peer.as_ref(), request.get_ref()).await {
            Ok(wanted) => wanted,
            Err(reason) => {
                self.host.counters.fetches_refused.one();
                let caller = peer.as_ref().and_then(|peer| peer.host.as_ref()).map_or("-", |host| host.as_str());
                tracing::warn!(host = caller, error = %reason, "refused to send partitions");
                return Err(Status::permission_denied("the ticket does not allow this"));
            }
        };
        let payloads = self.host.store.get_many(wanted);
        let counters = Arc::clone(&self.host.counters);
        let chunks = Pieces::new(payloads).map(move |pieces| {
            let sent = pieces.iter().filter(|piece| piece.end && !piece.missing).count();
            counters.served_partitions.add(sent as u64);
            counters.served_bytes.add(pieces.iter().map(|piece| piece.data.len() as u64).sum());
            Ok(FetchChunk { pieces: pieces.into_iter().map(wire).collect() })
        });
        // Chunks are made when the connection has room for them: flow control bounds what is in memory.
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

fn wire(piece: Piece) -> FetchPiece {
    FetchPiece { position: piece.position, data: piece.data, end: piece.end, missing: piece.missing }
}
