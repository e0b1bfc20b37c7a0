//! Requests written byte by byte: what no HTTP client would send.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::answer::Answer;

/// Longer than any answer takes on a busy machine, and shorter than the deadlines of the product.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection to a gateway.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to `http://host:port`.
    pub async fn to(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("a gateway that listens");
        Self { stream, received: Vec::new() }
    }

    /// Sends `bytes`. A gateway that has already answered and closed may not take them all.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        self
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self) -> &mut Self {
        let _ = self.stream.shutdown().await;
        self
    }

    /// The next answer, whose length has to be declared.
    pub async fn answer(&mut self) -> Answer {
        let (status, headers, body_at) = loop {
            if let Some(head) = head_in(&self.received) {
                break head;
            }
            self.read_more().await;
        };
        let length = headers.get("content-length").and_then(|value| value.to_str().ok());
        let length: usize = length.expect("a declared length").parse().expect("a number");
        while self.received.len() < body_at + length {
            self.read_more().await;
        }
        let rest = self.received.split_off(body_at + length);
        let body = self.received.split_off(body_at);
        self.received = rest;
        Answer { status, headers, body }
    }

    /// Whatever still comes until the gateway closes the connection.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.received);
        // A reset is an end as well.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the connection is closed");
        rest
    }

    async fn read_more(&mut self) {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("an answer in time");
        let shown = String::from_utf8_lossy(&self.received);
        assert!(read.is_ok_and(|length| length > 0), "the connection was closed after {shown:?}");
    }
}

/// Sends one request and reads its answer.
pub async fn exchange(url: &str, request: impl AsRef<[u8]>) -> Answer {
    Connection::to(url).await.send(request).await.answer().await
}

/// The head of a request with one `Host`, and these lines.
pub fn head(request_line: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{request_line} HTTP/1.1\r\nHost: frontdesk\r\n{lines}\r\n")
}

/// `body` in chunks of at most `size` bytes, and the last chunk.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// The status and headers at the beginning of `bytes`, and where the body begins; `None` while the head is not whole.
fn head_in(bytes: &[u8]) -> Option<(u16, HeaderMap, usize)> {
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut space);
    let httparse::Status::Complete(length) = response.parse(bytes).expect("an HTTP answer") else { return None };
    let headers = response.headers.iter().map(|header| {
        let name = HeaderName::try_from(header.name).expect("a name");
        (name, HeaderValue::from_bytes(header.value).expect("a value"))
    });
    let mut all = HeaderMap::new();
    headers.for_each(|(name, value)| {
        all.append(name, value);
    });
    Some((response.code.expect("a status"), all, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_add_up() {
        assert_eq!(chunked(b"hello", 3), b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
        assert_eq!(chunked(b"", 3), b"0\r\n\r\n");
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let bytes = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";
        assert!(head_in(&bytes[..30]).is_none());
        let (status, headers, body_at) = head_in(bytes).expect("a head");
        assert_eq!((status, headers["content-length"].as_bytes(), &bytes[body_at..]), (400, &b"2"[..], &b"{}"[..]));
    }
}
