//! An answer as it comes together from events, or from one plain completion.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use common::domain::message::Usage;
use eventsource_stream::Event;
use futures_util::{Stream, StreamExt as _, stream};

use super::{
    body::{Body, MAX_ANSWER},
    events, refusal,
    wire::Chunk,
};
use crate::providers::provider::{ErrorKind, ProviderError, TextSink};

/// How long a finished answer is kept open for its usage.
const AFTER_FINISH: Duration = Duration::from_secs(2);

/// What is known of an answer so far; its text has already left.
pub(super) struct Answer<'a, 'b> {
    text: &'a mut TextSink<'b>,
    bytes: usize,
    finished: bool,
    end: End,
}

/// What is known at the end.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The model, where the provider named it.
    pub(super) model: Option<String>,
    /// The usage, where the provider gave it.
    pub(super) usage: Option<Usage>,
}

impl<'a, 'b> Answer<'a, 'b> {
    /// Nothing yet; text will go to `text`.
    pub(super) fn new(text: &'a mut TextSink<'b>) -> Self {
        Self { text, bytes: 0, finished: false, end: End::default() }
    }

    /// Reads a stream of events. Whatever goes wrong after the finish mark costs at most the usage.
    pub(super) async fn read_events(mut self, body: Body) -> Result<End, ProviderError> {
        let mut events = pin!(events::read(pieces(body), MAX_ANSWER));
        while let Some(event) = self.next_event(&mut events).await {
            let taken = match event {
                Ok(event) if event.data.trim() == "[DONE]" => {
                    self.finished = true;
                    break;
                }
                Ok(event) => self.take_event(&event),
                Err(error) => Err(error),
            };
            match taken {
                Err(_) if self.finished => break,
                taken => taken?,
            }
        }
        if self.finished { Ok(self.end) } else { Err(ProviderError::new(ErrorKind::Truncated)) }
    }

    /// Reads a whole completion: complete when its JSON is.
    pub(super) fn read_json(mut self, body: &[u8]) -> Result<End, ProviderError> {
        let chunk: Chunk = match serde_json::from_slice(body) {
            Ok(chunk) => chunk,
            Err(error) if error.is_eof() => return Err(ProviderError::new(ErrorKind::Truncated)),
            Err(_) => return Err(refusal::of_event(&String::from_utf8_lossy(body))),
        };
        if chunk.error.is_some() {
            return Err(refusal::of_event(&String::from_utf8_lossy(body)));
        }
        if chunk.choice().is_none() {
            return Err(ProviderError::new(ErrorKind::Protocol).because("a completion without choices"));
        }
        self.take_chunk(&chunk)?;
        Ok(self.end)
    }

    async fn next_event<S>(&mut self, events: &mut S) -> Option<Result<Event, ProviderError>>
    where
        S: Stream<Item = Result<Event, ProviderError>> + Unpin,
    {
        if !self.finished {
            return events.next().await;
        }
        tokio::time::timeout(AFTER_FINISH, events.next()).await.ok().flatten()
    }

    fn take_event(&mut self, event: &Event) -> Result<(), ProviderError> {
        if event.data.trim().is_empty() {
            return Ok(());
        }
        if event.event == "error" {
            return Err(refusal::of_event(&event.data));
        }
        // What serde says about the mistake may quote the answer.
        let chunk: Chunk = serde_json::from_str(&event.data)
            .map_err(|error| ProviderError::new(ErrorKind::Protocol).because(format!("{:?}", error.classify())))?;
        if chunk.error.is_some() {
            return Err(refusal::of_event(&event.data));
        }
        self.take_chunk(&chunk)
    }

    fn take_chunk(&mut self, chunk: &Chunk) -> Result<(), ProviderError> {
        self.end.usage = chunk.usage().or(self.end.usage);
        if let Some(model) = chunk.model.as_ref().filter(|model| !model.is_empty()) {
            self.end.model.get_or_insert_with(|| model.clone());
        }
        let Some(choice) = chunk.choice() else { return Ok(()) };
        for text in choice.texts() {
            self.bytes += text.len();
            if self.bytes > MAX_ANSWER {
                return Err(ProviderError::new(ErrorKind::Protocol).because("an answer larger than we take"));
            }
            (self.text)(text);
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => Ok(()),
            Some("error") => Err(ProviderError::new(ErrorKind::Unavailable)),
            Some(_) => {
                self.finished = true;
                Ok(())
            }
        }
    }
}

/// The pieces of `body`.
fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, ProviderError>> {
    stream::try_unfold(body, |mut body| async { Ok(body.next().await?.map(|piece| (piece, body))) })
}
