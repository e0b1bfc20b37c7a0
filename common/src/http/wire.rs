//! The bytes below hyper: notes what heads say about lengths, gives up on peers that read nothing, and closes
//! so that the last answer arrives.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// How long a peer may leave our bytes unread before we give it up.
const STALL: Duration = Duration::from_secs(30);
/// How long a peer that is still sending may take to see our last answer.
const LINGER: Duration = Duration::from_secs(1);
/// The part of a head that is looked at.
const HEAD_LIMIT: usize = 16 * 1024;

/// What has been read since the last answer, until hyper has made a request of it. hyper hides a
/// `Content-Length` that stands beside a `Transfer-Encoding`; such requests are only told from honest ones here.
#[derive(Clone, Debug, Default)]
pub struct Head(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Head {
    /// Ends the record. Whether it held a `Content-Length` line; of pipelined requests, any of theirs.
    pub fn finish(&self) -> bool {
        let mut record = self.record();
        record.is_over = true;
        names_content_length(&std::mem::take(&mut record.bytes))
    }

    fn read(&self, bytes: &[u8]) {
        let mut record = self.record();
        if !record.is_over {
            let room = HEAD_LIMIT.saturating_sub(record.bytes.len());
            record.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn answered(&self) {
        self.record().is_over = false;
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names_content_length(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    bytes
        .split(|byte| *byte == b'\n')
        .any(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}

/// A connection's stream.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    head: Head,
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// A stream whose heads are noted in `head`.
    pub fn new(stream: TcpStream, head: Head) -> Self {
        Self { stream, head, stalled: None, lingering: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.head.read(&buffer.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.head.answered();
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.head.answered();
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes our side, and then reads for a while what the peer is still sending. To close at once would make
    /// the system reset the connection, and the peer lose an answer such as 413 that came before its body's end.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.lingering = Some(Box::pin(sleep(LINGER)));
        }
        let Self { stream, lingering, .. } = &mut *self;
        if lingering.as_mut().is_some_and(|over| over.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        let mut space = [0u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_found_wherever_the_head_was_split() {
        let head = Head::default();
        head.read(b"POST / HTTP/1.1\r\nCONTENT-");
        head.read(b"Length: 5\r\n\r\n");
        assert!(head.finish());
        head.read(b"content-length: 5\n of the body");
        head.answered();
        head.read(b"GET / HTTP/1.1\r\nX-Note: content-length:\r\n\r\n");
        assert!(!head.finish());
    }
}
