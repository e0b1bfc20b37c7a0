//! NATS spoken line by line, so that a test sees what the server refuses, and no client comes in between.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::nats::Nats;

/// Longer than the server takes for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub struct NatsWire {
    stream: BufReader<TcpStream>,
    subscriptions: usize,
    heard: Vec<(String, Vec<u8>)>,
}

impl NatsWire {
    /// Connects as `user`.
    ///
    /// # Errors
    /// With the server's words, when it lets nobody in like that.
    pub async fn open(nats: &Nats, user: &str, password: &str) -> Result<Self, String> {
        let options = serde_json::json!({ "user": user, "pass": password });
        Self::open_with(nats, &options.to_string()).await
    }

    /// Connects with these options of `CONNECT`, some JSON.
    ///
    /// # Errors
    /// As for [`NatsWire::open`].
    pub async fn open_with(nats: &Nats, options: &str) -> Result<Self, String> {
        let options = options.strip_prefix('{').unwrap_or(options);
        let more = if options == "}" { "" } else { "," };
        let head = r#"CONNECT {"verbose":false,"pedantic":true,"headers":true,"no_responders":true"#;
        let mut wire = Self::silent(nats).await;
        match wire.refusal(&format!("{head}{more}{options}\r\n")).await {
            None => Ok(wire),
            Some(words) => Err(words),
        }
    }

    /// Connects, and says nothing.
    pub async fn silent(nats: &Nats) -> Self {
        let address = nats.url().trim_start_matches("nats://").to_owned();
        let stream = TcpStream::connect(address).await.expect("a server that listens");
        Self { stream: BufReader::new(stream), subscriptions: 0, heard: Vec::new() }
    }

    /// Publishes; what the server has against it.
    pub async fn publish(&mut self, subject: &str, payload: &str) -> Option<String> {
        self.refusal(&format!("PUB {subject} {}\r\n{payload}\r\n", payload.len())).await
    }

    /// Publishes with an inbox for the answer; what the server has against it.
    pub async fn request(&mut self, subject: &str, inbox: &str, payload: &str) -> Option<String> {
        self.refusal(&format!("PUB {subject} {inbox} {}\r\n{payload}\r\n", payload.len())).await
    }

    /// Subscribes, in a queue group if one is named; what the server has against it.
    pub async fn subscribe(&mut self, subject: &str, group: &str) -> Option<String> {
        self.subscriptions += 1;
        self.refusal(&format!("SUB {subject} {group} {}\r\n", self.subscriptions)).await
    }

    /// What has come on any subscription since the last look: subjects and payloads.
    pub async fn heard(&mut self) -> Vec<(String, Vec<u8>)> {
        assert_eq!(self.refusal("").await, None);
        std::mem::take(&mut self.heard)
    }

    /// Sends `lines` as they are; what the server says against them until it answers a ping, or closes.
    pub async fn refusal(&mut self, lines: &str) -> Option<String> {
        // It may have closed already, and is read all the same.
        let _ = self.stream.write_all(format!("{lines}PING\r\n").as_bytes()).await;
        timeout(PATIENCE, self.words_before_pong()).await.expect("the server answers a ping")
    }

    async fn words_before_pong(&mut self) -> Option<String> {
        let mut against = None;
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line).await;
            if !read.is_ok_and(|length| length > 0) {
                return against.or_else(|| Some("the connection was closed".to_owned()));
            }
            let mut words = line.split_whitespace();
            match words.next() {
                Some("PONG") => return against,
                Some("PING") => drop(self.stream.write_all(b"PONG\r\n").await),
                Some("-ERR") => against = Some(line.trim().to_owned()),
                Some("MSG" | "HMSG") => self.take(words.collect::<Vec<_>>().as_slice()).await,
                _ => {}
            }
        }
    }

    async fn take(&mut self, words: &[&str]) {
        let subject = words.first().copied().unwrap_or_default().to_owned();
        let length: usize = words.last().and_then(|length| length.parse().ok()).expect("a length");
        let mut payload = vec![0; length + 2];
        self.stream.read_exact(&mut payload).await.expect("a whole message");
        payload.truncate(length);
        self.heard.push((subject, payload));
    }
}
