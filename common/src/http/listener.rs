//! Accepts connections, serves each with a tower service, and lets them finish when the process stops.

use std::{convert::Infallible, error::Error, io, net::SocketAddr, time::Duration};

use ::http::{
    HeaderValue, Request, Response,
    header::{CONNECTION, TRANSFER_ENCODING},
};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower::{Service, ServiceExt as _};
use tracing::{debug, warn};

use super::{
    body::RequestBody,
    wire::{Head, Wire},
};
use crate::lifecycle::Lifecycle;

/// How many connections the kernel holds for us while we are busy. The usual 128 made 3,000 callers who came
/// at once wait a second longer.
const BACKLOG: u32 = 4096;
/// The most bytes that a request's head may have, and the most that hyper buffers of a body.
const BUFFER_LIMIT: usize = 16 * 1024;
/// How many bytes the system holds for a peer that does not take them; without it, up to 4 MiB for a slow reader.
#[cfg(target_os = "linux")]
const UNSENT_LIMIT: u32 = 64 * 1024;
/// How long to wait when the system has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may still write its last answer after everything was told to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Who is at the other end of a request's connection; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address that the connection came from.
    pub address: SocketAddr,
    /// Whether the head carried `Content-Length` beside `Transfer-Encoding`. hyper drops the former before
    /// anybody else can see it.
    pub ambiguous_length: bool,
}

/// A bound address on which requests are taken.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    header_timeout: Duration,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one. A connection that has not sent a whole head within
    /// `header_timeout`, counted from its opening or from its last answer, is closed.
    pub fn bind(address: SocketAddr, header_timeout: Duration) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, header_timeout })
    }

    /// The address that it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `service` until the stop begins. Open connections then finish the request that they are at; those
    /// that have not by the time of the abort are cut.
    pub async fn serve<S, B>(self, service: S, lifecycle: Lifecycle)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let mut protocol = http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(self.header_timeout).max_buf_size(BUFFER_LIMIT);
        loop {
            let accepted = tokio::select! {
                () = lifecycle.stopping() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection { stream, peer, service: service.clone(), protocol: protocol.clone() };
                    lifecycle.spawn(connection.run(lifecycle.clone()));
                }
                Err(error) if is_the_peers_affair(&error) => debug!(%error, "a connection was gone before it began"),
                Err(error) => {
                    warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn is_the_peers_affair(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

struct Connection<S> {
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    protocol: http1::Builder,
}

impl<S> Connection<S> {
    async fn run<B>(self, lifecycle: Lifecycle)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let Self { stream, peer: address, service, protocol } = self;
        // Without it a streamed answer's small pieces wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        #[cfg(target_os = "linux")]
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_LIMIT) {
            debug!(%error, "cannot set TCP_NOTSENT_LOWAT");
        }
        let head = Head::default();
        let wire = Wire::new(stream, head.clone());
        let with_peer = service_fn(move |mut request: Request<Incoming>| {
            let has_length = head.finish();
            let ambiguous_length = has_length && request.headers().contains_key(TRANSFER_ENCODING);
            request.extensions_mut().insert(Peer { address, ambiguous_length });
            answer(service.clone(), request)
        });
        let connection = protocol.serve_connection(TokioIo::new(wire), with_peer);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = lifecycle.stopping() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = last_words(&lifecycle) => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, peer.address = %address, "a connection broke off");
        }
    }
}

/// hyper closes a connection when nobody has read the request's body to its end. A client that is not told so sends
/// its next request into the void.
async fn answer<S, B>(service: S, request: Request<Incoming>) -> Result<Response<B>, Infallible>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
{
    let request = request.map(RequestBody::new);
    let is_read = request.body().is_read();
    let mut response = service.oneshot(request).await?;
    if !is_read.get() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn last_words(lifecycle: &Lifecycle) {
    lifecycle.aborting().await;
    tokio::time::sleep(LAST_WORDS).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn start(header_timeout: Duration, lifecycle: &Lifecycle) -> SocketAddr {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(any, header_timeout).expect("a free port");
        let address = listener.address();
        let told = tower::service_fn(|request: Request<RequestBody>| async move {
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let peer = request.extensions().get::<Peer>().copied();
            if request.uri().path() == "/read" {
                request.into_body().collect().await.expect("a whole body");
            }
            let ambiguous = peer.is_some_and(|peer| peer.ambiguous_length);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("ambiguous={ambiguous}")))))
        });
        lifecycle.spawn(listener.serve(told, lifecycle.clone()));
        address
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer, then the end");
        answer
    }

    #[tokio::test]
    async fn both_lengths_in_one_head_are_seen_in_either_order() {
        let lifecycle = Lifecycle::new();
        let address = start(Duration::from_secs(5), &lifecycle).await;
        let body = "\r\nconnection: close\r\n\r\n0\r\n\r\n";
        for lengths in
            ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\ncontent-length: 5"]
        {
            let answer = exchange(address, &format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}{body}")).await;
            assert!(answer.ends_with("ambiguous=true"), "{answer}");
        }
        let plain = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked{body}");
        assert!(exchange(address, &plain).await.ends_with("ambiguous=false"));
    }

    #[tokio::test]
    async fn an_answer_before_the_bodys_end_says_that_the_connection_closes() {
        let lifecycle = Lifecycle::new();
        let address = start(Duration::from_millis(100), &lifecycle).await;
        for (path, body, closes) in [("/", "five!", true), ("/read", "five!", false), ("/", "", false)] {
            let length = body.len();
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
            let answer = exchange(address, &request).await;
            assert_eq!(answer.contains("connection: close"), closes, "{path} {length}: {answer}");
        }
        let chunked = "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        assert!(!exchange(address, chunked).await.contains("connection: close"));
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_closes_the_connection() {
        let lifecycle = Lifecycle::new();
        let address = start(Duration::from_millis(100), &lifecycle).await;
        let answer = tokio::time::timeout(Duration::from_secs(3), exchange(address, "GET / HTTP/1.1\r\nHo")).await;
        assert_eq!(answer.expect("closed in time"), "");
    }

    #[tokio::test]
    async fn stopping_lets_a_request_finish_and_closes_idle_connections() {
        let lifecycle = Lifecycle::new();
        let address = start(Duration::from_secs(60), &lifecycle).await;
        let _idle = TcpStream::connect(address).await.expect("listening");
        let request = exchange(address, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        let stop = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lifecycle.stop();
        };
        let (answer, ()) = tokio::join!(request, stop);
        assert!(answer.ends_with("ambiguous=false"), "{answer}");
        assert!(lifecycle.wait(Duration::from_secs(10), Duration::ZERO).await, "connections were left over");
        assert!(TcpStream::connect(address).await.is_err(), "still listening");
    }
}
