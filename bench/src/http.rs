//! One HTTP/1.1 connection of a caller: sends prepared bytes, reads answers of a given length or in chunks.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use httparse::{EMPTY_HEADER, Response, Status, parse_chunk_size};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The head of an answer is refused above this many headers.
const HEADERS: usize = 32;

/// A connection that is kept open from one request to the next.
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    body: Vec<u8>,
}

/// What came back; its body is in [`Connection::body`].
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// In how many chunks the body came; 0 for a body of a given length.
    pub chunks: u64,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("could not connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(1024), body: Vec::new() })
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks or what comes is not HTTP.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.body.clear();
        let (status, framing) = self.head().await?;
        let chunks = match framing {
            Framing::Length(length) => self.exactly(length).await.map(|()| 0)?,
            Framing::Chunked => self.chunks().await?,
        };
        Ok(Answer { status, chunks })
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    async fn head(&mut self) -> Result<(u16, Framing)> {
        loop {
            if let Some((length, status, framing)) = parse_head(&self.input)? {
                self.input.drain(..length);
                return Ok((status, framing));
            }
            self.more().await?;
        }
    }

    /// Moves the next `length` bytes of the input into the body.
    async fn exactly(&mut self, length: usize) -> Result<()> {
        while self.input.len() < length {
            self.more().await?;
        }
        self.body.extend(self.input.drain(..length));
        Ok(())
    }

    async fn chunks(&mut self) -> Result<u64> {
        for count in 0.. {
            let length = self.chunk_length().await?;
            self.exactly(length).await?;
            while self.input.len() < 2 {
                self.more().await?;
            }
            ensure!(self.input.starts_with(b"\r\n"), "a chunk does not end where it should");
            self.input.drain(..2);
            if length == 0 {
                return Ok(count);
            }
        }
        bail!("endless chunks")
    }

    async fn chunk_length(&mut self) -> Result<usize> {
        loop {
            match parse_chunk_size(&self.input) {
                Ok(Status::Complete((line, length))) => {
                    self.input.drain(..line);
                    return Ok(usize::try_from(length)?);
                }
                Ok(Status::Partial) => self.more().await?,
                Err(_) => bail!("a chunk without a length"),
            }
        }
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the connection was closed");
        Ok(())
    }
}

fn parse_head(input: &[u8]) -> Result<Option<(usize, u16, Framing)>> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut head = Response::new(&mut headers);
    let Status::Complete(length) = head.parse(input)? else { return Ok(None) };
    let status = head.code.context("no status")?;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Some((length, status, Framing::Chunked)));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value)?.trim().parse()?;
            return Ok(Some((length, status, Framing::Length(value))));
        }
    }
    bail!("neither a length nor chunks (status {status})")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers with `parts`, one write each.
    async fn ask(parts: &'static [&'static str]) -> Result<(Answer, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serve = async {
            let (mut peer, _) = listener.accept().await?;
            peer.read_u8().await?;
            for part in parts {
                peer.write_all(part.as_bytes()).await?;
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            anyhow::Ok(())
        };
        let call = async {
            let mut connection = Connection::open(address).await?;
            let answer = connection.ask(b"?").await?;
            Ok((answer, connection.body().to_vec()))
        };
        let (served, called) = tokio::join!(serve, call);
        served?;
        called
    }

    #[tokio::test]
    async fn chunks_are_counted_wherever_the_bytes_are_split() {
        let parts =
            &["HTTP/1.1 200 OK\r\ntransfer-enc", "oding: chunked\r\n\r\n5\r\nhel", "lo\r\n1", "\r\n!\r\n0\r\n\r\n"];
        let (answer, body) = ask(parts).await.expect("an answer");
        assert_eq!((answer.status, answer.chunks, body.as_slice()), (200, 2, &b"hello!"[..]));
    }

    #[tokio::test]
    async fn a_body_has_its_length() {
        let (answer, body) = ask(&["HTTP/1.1 429 x\r\nContent-Length: 2\r\n\r\nn", "o"]).await.expect("an answer");
        assert_eq!((answer.status, answer.chunks, body.as_slice()), (429, 0, &b"no"[..]));
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_is_an_error() {
        assert!(ask(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]).await.is_err());
    }
}
