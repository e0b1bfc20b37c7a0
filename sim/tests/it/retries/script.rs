//! A provider that does in each call what its case says.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use sim::proptest::prelude::*;
use tokio::time::{Instant, sleep};
use worker::providers::provider::{Completion, ErrorKind, ModelRequest, Provider, ProviderError, TextSink};

/// How a call ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Whole,
    Fails { kind: ErrorKind, retry_after: Option<Duration> },
    Hangs,
}

/// One call: pieces of text, each after a while, and after another one the end.
#[derive(Clone, Debug)]
pub struct Call {
    pub pieces: Vec<(u64, &'static str)>,
    pub rest: u64,
    pub end: End,
}

const PASSING: [ErrorKind; 5] =
    [ErrorKind::RateLimited, ErrorKind::Unavailable, ErrorKind::Connect, ErrorKind::Timeout, ErrorKind::Truncated];
const LASTING: [ErrorKind; 5] =
    [ErrorKind::Auth, ErrorKind::Quota, ErrorKind::ContextLength, ErrorKind::BadRequest, ErrorKind::Protocol];

fn end() -> impl Strategy<Value = End> {
    let asked = prop_oneof![
        3 => Just(None),
        2 => (0_u64..5_200).prop_map(|millis| Some(Duration::from_millis(millis))),
        1 => Just(Some(Duration::from_secs(5))),
        1 => (6_u64..4_000).prop_map(|seconds| Some(Duration::from_secs(seconds))),
    ];
    let kind = prop_oneof![5 => prop::sample::select(&PASSING[..]), 1 => prop::sample::select(&LASTING[..])];
    prop_oneof![
        2 => Just(End::Whole),
        6 => (kind, asked).prop_map(|(kind, retry_after)| End::Fails { kind, retry_after }),
        1 => Just(End::Hangs),
    ]
}

/// Any call.
pub fn call() -> impl Strategy<Value = Call> {
    let pieces = prop::collection::vec((0_u64..3_000, prop::sample::select(vec!["", "a", "b ", "é"])), 0..4);
    (pieces, 0_u64..3_000, end()).prop_map(|(pieces, rest, end)| Call { pieces, rest, end })
}

impl Call {
    /// What it says.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|(_, piece)| *piece).collect()
    }

    /// How long it takes; for ever if it hangs.
    pub fn takes(&self) -> Option<Duration> {
        let millis = self.pieces.iter().map(|(pause, _)| pause).sum::<u64>() + self.rest;
        (!matches!(self.end, End::Hangs)).then(|| Duration::from_millis(millis))
    }
}

/// Makes the calls in turn, and notes when each began.
pub struct Scripted {
    pub calls: Vec<Call>,
    pub begun: Arc<Mutex<Vec<Instant>>>,
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn complete(&self, _: ModelRequest<'_>, text: &mut TextSink<'_>) -> Result<Completion, ProviderError> {
        let place = {
            let mut begun = self.begun.lock().expect("no panic");
            begun.push(Instant::now());
            begun.len() - 1
        };
        let call = &self.calls[place % self.calls.len()];
        for (pause, piece) in &call.pieces {
            sleep(Duration::from_millis(*pause)).await;
            text(piece);
        }
        sleep(Duration::from_millis(call.rest)).await;
        match call.end {
            End::Whole => Ok(Completion { model: "m".to_owned(), usage: None }),
            End::Fails { kind, retry_after } => Err(ProviderError { retry_after, ..ProviderError::new(kind) }),
            End::Hangs => std::future::pending().await,
        }
    }
}
