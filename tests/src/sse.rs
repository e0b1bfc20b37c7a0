//! A reader of Server-Sent Events, as a client has one.

use std::{pin::Pin, time::Duration};

use eventsource_stream::{EventStreamError, Eventsource as _};
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::time::timeout;

/// Longer than anything takes on a busy machine, and shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// The id of the last event that had one.
    pub id: String,
    /// Its data.
    pub data: Value,
}

type Source = dyn Stream<Item = Result<eventsource_stream::Event, EventStreamError<reqwest::Error>>> + Send;

/// An open stream of events.
pub struct Events(Pin<Box<Source>>);

impl Events {
    /// Sends `request` and takes its answer for a stream.
    pub async fn open(request: RequestBuilder) -> Self {
        Self::of(timeout(PATIENCE, request.send()).await.expect("a head in time").expect("an answer"))
    }

    /// The stream in `answer`.
    pub fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self(Box::pin(answer.bytes_stream().eventsource()))
    }

    /// The next event; `None` at a clean end.
    pub async fn next(&mut self) -> Option<Event> {
        let event = timeout(PATIENCE, self.0.next()).await.expect("an event in time")?.expect("no break");
        let data = serde_json::from_str(&event.data).unwrap_or_else(|error| panic!("no JSON: {error}: {event:?}"));
        Some(Event { name: event.event, id: event.id, data })
    }

    /// The next event, which has to have this name.
    pub async fn expect(&mut self, name: &str) -> Event {
        let event = self.next().await.unwrap_or_else(|| panic!("an end instead of {name}"));
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// All that come until a clean end.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// The text that a reader of `events` has in the end.
pub fn text(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        match event.name.as_str() {
            "message.delta" => text.push_str(event.data["text"].as_str().expect("a text")),
            "message.restarted" => text.clear(),
            _ => {}
        }
    }
    text
}

/// The names of `events`, each run of deltas as one.
pub fn names(events: &[Event]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    names.dedup();
    names
}

/// The events in the bytes of a stream.
pub async fn read(bytes: Vec<u8>) -> Vec<Event> {
    Events(Box::pin(stream::iter([Ok(bytes)]).eventsource())).rest().await
}
