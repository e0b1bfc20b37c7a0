//! What callers did and saw: the log that the checks hold against the store.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How a caller comes and waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// `POST /api/v1/chat`.
    Sync,
    /// `POST /api/agents/chat` with `stream: true`.
    Stream,
    /// `POST /api/v1/messages`, then asks for the end.
    Submit,
    /// The same once, without an `Idempotency-Key`: whatever comes of it, it is not sent again.
    Unkeyed,
    /// `POST /api/v1/webhook`, and is called back.
    Webhook,
    /// `POST /api/v1/batches`, then reads the results.
    Batch,
}

/// All manners.
pub const MANNERS: [Manner; 6] =
    [Manner::Sync, Manner::Stream, Manner::Submit, Manner::Unkeyed, Manner::Webhook, Manner::Batch];

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Stream => "stream",
            Self::Submit => "submit",
            Self::Unkeyed => "unkeyed",
            Self::Webhook => "webhook",
            Self::Batch => "batch",
        })
    }
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What it was, as in `POST /api/v1/chat`.
    pub route: &'static str,
    /// The status; `None` when the connection broke, or the answer broke off.
    pub status: Option<u16>,
    /// The `code` of an error.
    pub code: Option<String>,
    /// When it began, from the beginning of the row.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
}

/// What a caller wanted: a prompt, or a batch of them.
#[derive(Clone, Debug)]
pub struct Call {
    /// How it came.
    pub manner: Manner,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// The ids that answers to this key named: of a message, or of a batch.
    pub ids: Vec<String>,
    /// Whether an answer said that it is kept.
    pub accepted: bool,
    /// Whether an answer said that it is not, and there was no other.
    pub refused: bool,
    /// The nonce of each prompt with its answer, once there is one.
    pub answers: BTreeMap<String, Option<String>>,
    /// All its requests.
    pub asks: Vec<Ask>,
    /// Whether the receiver of its webhook is there; of no use for others.
    pub is_told: bool,
    /// Whether the caller got what it wanted.
    pub done: bool,
}

impl Call {
    /// A call with these nonces that has asked nothing yet.
    pub fn new(manner: Manner, key: String, nonces: impl IntoIterator<Item = String>) -> Self {
        let answers = nonces.into_iter().map(|nonce| (nonce, None)).collect();
        Self {
            manner,
            key,
            ids: Vec::new(),
            accepted: false,
            refused: false,
            answers,
            asks: Vec::new(),
            is_told: true,
            done: false,
        }
    }

    /// Notes an id that an answer named.
    pub fn named(&mut self, id: &str) {
        if !self.ids.iter().any(|known| known == id) {
            self.ids.push(id.to_owned());
        }
    }
}

/// The calls of a row. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    began: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Calls {
    /// No calls; the row begins now.
    pub fn begin() -> Self {
        Self { began: Instant::now(), calls: Arc::default() }
    }

    /// How long ago the row began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes a call that has ended.
    pub fn push(&self, call: Call) {
        self.lock().push(call);
    }

    /// All of them so far.
    pub fn all(&self) -> Vec<Call> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
