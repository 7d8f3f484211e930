//! Ends calls, also those that answer with a stream, when the credential of their caller is revoked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response};
use hyper::body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Resolves when a call must end, with what its caller is told.
pub(crate) type Ended = BoxFuture<'static, Status>;

/// Waits for the answer to a call, or for its end.
pub(crate) async fn answered<E>(
    call: impl Future<Output = Result<Response<Body>, E>>,
    ended: &mut Ended,
) -> Result<Response<Body>, E> {
    tokio::select! {
        biased;
        response = call => response,
        status = ended => Ok(status.into_http()),
    }
}

/// The body of an answer, which ends with a status when the call must end.
struct Guarded {
    /// Empty once it was cut off.
    body: Body,
    ended: Option<Ended>,
}

/// Guards what is still to come of an answer.
pub(crate) fn guarded(response: Response<Body>, ended: Ended) -> Response<Body> {
    // Most answers of one message are here already; whoever has them has them.
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| Body::new(Guarded { body, ended: Some(ended) }))
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // Before the next piece, so that a stream which never pauses ends, too.
        if let Some(Poll::Ready(status)) = this.ended.as_mut().map(|ended| ended.poll_unpin(context)) {
            (this.body, this.ended) = (Body::empty(), None);
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_none() {
            this.ended = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
