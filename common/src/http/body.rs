//! A request's body that remembers whether it was read to its end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    is_read: IsRead,
}

/// Whether a body was read to its end; outlives it.
#[derive(Clone, Debug)]
pub struct IsRead(Arc<AtomicBool>);

impl RequestBody {
    /// Watches `incoming`. One without a byte counts as read.
    pub fn new(incoming: Incoming) -> Self {
        let is_read = IsRead(Arc::new(AtomicBool::new(incoming.is_end_stream())));
        Self { incoming, is_read }
    }

    /// Whether it was read to its end, to be asked when it is gone.
    pub fn is_read(&self) -> IsRead {
        self.is_read.clone()
    }
}

impl IsRead {
    /// The answer as of now.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.is_read.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
