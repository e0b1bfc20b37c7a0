//! The requests that callers send: made once; a chat has a nonce that is written over for each call.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::{http::Connection, payload::PROMPT};

/// Hexadecimal digits of a nonce.
const NONCE: usize = 16;

/// A request that is ready to be sent.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    nonce_at: usize,
    wants: Wants,
}

/// What is an answer to it.
#[derive(Clone, Copy)]
enum Wants {
    /// 200 with the prompt in it.
    Echo,
    /// 202.
    Acceptance,
}

impl Request {
    /// `POST /api/v1/chat` with a short question.
    pub fn chat(address: SocketAddr, key: &str, agent: &str) -> Self {
        Self::sleeping(address, key, agent, "")
    }

    /// The same with the directive `script` for the demo agent before the question.
    pub fn sleeping(address: SocketAddr, key: &str, agent: &str, script: &str) -> Self {
        let script = if script.is_empty() { String::new() } else { format!("{script}\\n") };
        let nonce = "0".repeat(NONCE);
        let body = format!(r#"{{"employee_id":"{agent}","prompt":"{script}{nonce} {PROMPT}"}}"#);
        Self::of(address, "/api/v1/chat", key, &body, &nonce, Wants::Echo)
    }

    /// `POST /api/v1/messages` with the same question.
    pub fn message(address: SocketAddr, key: &str, agent: &str) -> Self {
        Self::submission(address, "/api/v1/messages", key, agent)
    }

    /// `POST /api/v1/webhook` with the same question.
    pub fn webhook(address: SocketAddr, key: &str, agent: &str) -> Self {
        Self::submission(address, "/api/v1/webhook", key, agent)
    }

    fn submission(address: SocketAddr, path: &str, key: &str, agent: &str) -> Self {
        let nonce = "0".repeat(NONCE);
        let body = format!(r#"{{"employee_id":"{agent}","prompt":"{nonce} {PROMPT}"}}"#);
        Self::of(address, path, key, &body, &nonce, Wants::Acceptance)
    }

    fn of(address: SocketAddr, path: &str, key: &str, body: &str, nonce: &str, wants: Wants) -> Self {
        let bytes = post(address, path, key, body);
        let nonce_at = bytes.len() - body.len() + body.find(nonce).unwrap_or_default();
        Self { bytes, nonce_at, wants }
    }

    /// Writes the nonce of call `number` of `caller` into it.
    pub fn renew(&mut self, caller: u32, number: u32) {
        let digits = format!("{caller:08x}{number:08x}");
        self.bytes[self.nonce_at..self.nonce_at + NONCE].copy_from_slice(digits.as_bytes());
    }

    /// Asks on `connection`.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is not the one to this very call.
    pub async fn ask(&self, connection: &mut Connection) -> Result<()> {
        let answer = connection.ask(&self.bytes).await?;
        let body = connection.body();
        let (status, is_own) = match self.wants {
            Wants::Echo => (200, self.is_answered_by(body)),
            Wants::Acceptance => (202, true),
        };
        ensure!(answer.status == status, "{}: {}", answer.status, String::from_utf8_lossy(body));
        ensure!(is_own, "the answer to another call: {}", String::from_utf8_lossy(body));
        Ok(())
    }

    fn is_answered_by(&self, body: &[u8]) -> bool {
        let nonce = &self.bytes[self.nonce_at..self.nonce_at + NONCE];
        body.windows(NONCE).any(|window| window == nonce)
    }
}

/// `POST /api/agents/chat` that streams the answer to `message`.
pub fn stream(address: SocketAddr, key: &str, agent: &str, message: &str) -> Vec<u8> {
    let body = format!(r#"{{"agentId":"{agent}","stream":true,"message":"{message}"}}"#);
    post(address, "/api/agents/chat", key, &body)
}

/// `POST /api/v1/messages` with `prompt`.
pub fn submit(address: SocketAddr, key: &str, agent: &str, prompt: &str) -> Vec<u8> {
    post(address, "/api/v1/messages", key, &format!(r#"{{"employee_id":"{agent}","prompt":"{prompt}"}}"#))
}

/// The same with a short prompt whose end is told to `callback`.
pub fn submit_told(address: SocketAddr, key: &str, agent: &str, callback: &str) -> Vec<u8> {
    let body = format!(r#"{{"employee_id":"{agent}","prompt":"{PROMPT}","callback_url":"{callback}"}}"#);
    post(address, "/api/v1/messages", key, &body)
}

/// `GET /api/v1/messages/{id}/stream`.
pub fn follow(address: SocketAddr, key: &str, id: &str) -> Vec<u8> {
    get_with_key(address, &format!("/api/v1/messages/{id}/stream"), key)
}

/// `POST /api/v1/batches` with the lines in `body`.
pub fn batch(address: SocketAddr, key: &str, body: &str) -> Vec<u8> {
    post_as("application/x-ndjson", address, "/api/v1/batches", key, body)
}

/// `GET` of `path` with a key.
pub fn get_with_key(address: SocketAddr, path: &str, key: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\r\n").into_bytes()
}

/// `GET` of `path` without a key.
pub fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}

fn post(address: SocketAddr, path: &str, key: &str, body: &str) -> Vec<u8> {
    post_as("application/json", address, path, key, body)
}

fn post_as(media_type: &str, address: SocketAddr, path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_answer_fits_a_call() {
        let mut request = Request::chat(SocketAddr::from(([127, 0, 0, 1], 1)), "sk-x", "a");
        request.renew(3, 0xbeef);
        let text = String::from_utf8(request.bytes.clone()).expect("text");
        let body = text.split("\r\n\r\n").nth(1).expect("a body");
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(request.is_answered_by(br#"{"content":"000000030000beef what"}"#));
        assert!(!request.is_answered_by(br#"{"content":"000000030000bee0 what"}"#));
    }
}
