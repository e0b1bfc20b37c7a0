//! The body of an answer as it arrives: with its limits of time and size, and a look at what it is.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::time::Instant;

use crate::providers::provider::{ErrorKind, ProviderError};

/// The most bytes of an answer, and of one event of it.
pub(super) const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// As much of an error page as is looked at.
const MAX_PAGE: usize = 64 * 1024;

/// What a body is, by its first character. The content type is not asked: servers get it wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events.
    Events,
    /// One JSON document.
    Json,
    /// Markup.
    Other,
}

/// The body of one answer.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    /// What was read to learn its form.
    head: BytesMut,
    next_byte_by: Instant,
    idle: Duration,
}

impl Body {
    /// The body of `response`, whose first byte has to be there by `first_byte_by` and each further one within `idle`.
    pub(super) fn new(response: Response, first_byte_by: Instant, idle: Duration) -> Self {
        Self { response, head: BytesMut::new(), next_byte_by: first_byte_by, idle }
    }

    /// Reads on until its form is clear.
    pub(super) async fn form(&mut self) -> Result<Form, ProviderError> {
        loop {
            if let Some(form) = form_of(&self.head) {
                return Ok(form);
            }
            match self.receive().await? {
                Some(piece) => self.keep(&piece)?,
                None => return Ok(Form::Events),
            }
        }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ProviderError> {
        if self.head.is_empty() { self.receive().await } else { Ok(Some(self.head.split().freeze())) }
    }

    /// All that is left.
    pub(super) async fn rest(mut self) -> Result<Bytes, ProviderError> {
        while let Some(piece) = self.receive().await? {
            self.keep(&piece)?;
        }
        Ok(self.head.freeze())
    }

    /// As much of it as an error needs: what arrives in time, and never a failure of its own.
    pub(super) async fn beginning(&mut self) -> Bytes {
        while self.head.len() < MAX_PAGE {
            match self.receive().await {
                Ok(Some(piece)) => self.head.extend_from_slice(&piece),
                Ok(None) | Err(_) => break,
            }
        }
        self.head.split().freeze()
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), ProviderError> {
        if self.head.len() + piece.len() > MAX_ANSWER {
            return Err(ProviderError::new(ErrorKind::Protocol).because("an answer larger than we take"));
        }
        self.head.extend_from_slice(piece);
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, ProviderError> {
        let received = tokio::time::timeout_at(self.next_byte_by, self.response.chunk())
            .await
            .map_err(|_| ProviderError::new(ErrorKind::Timeout))?;
        self.next_byte_by = Instant::now() + self.idle;
        received.map_err(|error| ProviderError::new(ErrorKind::Truncated).because(error.without_url()))
    }
}

fn form_of(head: &[u8]) -> Option<Form> {
    // The first byte of a byte order mark tells as little as white space does.
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(byte))?;
    Some(match first {
        b'{' | b'[' => Form::Json,
        b'<' => Form::Other,
        _ => Form::Events,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_character_tells_the_form() {
        for (head, form) in [
            (&b"data: {}"[..], Some(Form::Events)),
            (b": keep-alive", Some(Form::Events)),
            (b"\xef\xbb\xbfdata: {}", Some(Form::Events)),
            (b"\n\n {\"choices\"", Some(Form::Json)),
            (b"<!doctype html>", Some(Form::Other)),
            (b" \r\n", None),
            (b"", None),
        ] {
            assert_eq!(form_of(head), form, "{head:?}");
        }
    }
}
