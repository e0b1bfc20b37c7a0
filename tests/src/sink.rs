//! A scripted receiver of webhooks: records every request, and answers as a test tells it.
//!
//! One [`Reply`] is used up by each request to its path; when none is left, the path's standing one applies, and
//! where there is none, 204. Everything ends when the sink is dropped.

mod connection;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::model::Gate;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A receiver on a free port of the loopback address.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte.
    pub body: Vec<u8>,
    /// When it was complete.
    pub at: Instant,
}

impl Received {
    /// The value of the header `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Its body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answer with this status and these headers, and an empty body.
    Status(u16, Vec<(&'static str, String)>),
    /// Answer 204 once the gate is open.
    Held(Gate),
    /// Close the connection without an answer.
    Cut,
    /// Never answer.
    Silence,
}

impl Reply {
    /// An answer without headers.
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new())
    }
}

#[derive(Debug)]
struct State {
    script: Mutex<Script>,
    seen: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Script {
    queued: HashMap<String, VecDeque<Reply>>,
    standing: HashMap<String, Reply>,
    received: Vec<Received>,
    open: HashMap<String, usize>,
    most_open: HashMap<String, usize>,
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the request and says what to do with it. It counts as open until [`State::closed`].
    fn reply_to(&self, request: Received) -> Reply {
        let mut script = self.script();
        let path = request.path.clone();
        let open = script.open.entry(path.clone()).or_default();
        *open += 1;
        let open = *open;
        let most = script.most_open.entry(path.clone()).or_default();
        *most = open.max(*most);
        script.received.push(request);
        let count = script.received.len();
        let queued = script.queued.get_mut(&path).and_then(VecDeque::pop_front);
        let reply = queued.or_else(|| script.standing.get(&path).cloned()).unwrap_or_else(|| Reply::status(204));
        // Whoever is told looks into the script.
        drop(script);
        self.seen.send_replace(count);
        reply
    }

    fn closed(&self, path: &str) {
        if let Some(open) = self.script().open.get_mut(path) {
            *open -= 1;
        }
    }
}

impl Sink {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { script: Mutex::default(), seen: watch::Sender::new(0) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    /// The address of `path` here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What to do with the next request to `path` that nothing is scripted for yet.
    pub fn script(&self, path: &str, reply: Reply) {
        self.state.script().queued.entry(path.to_owned()).or_default().push_back(reply);
    }

    /// What to do with all requests to `path` that nothing is scripted for.
    pub fn always(&self, path: &str, reply: Reply) {
        self.state.script().standing.insert(path.to_owned(), reply);
    }

    /// All requests to `path` so far.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.state.script().received.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// The most requests to `path` that were open at once so far.
    pub fn most_open(&self, path: &str) -> usize {
        self.state.script().most_open.get(path).copied().unwrap_or_default()
    }

    /// The requests to `path` once there are at least `count`.
    ///
    /// # Panics
    /// When there still are not after a minute.
    pub async fn until_received(&self, path: &str, count: usize) -> Vec<Received> {
        let mut seen = self.state.seen.subscribe();
        // The sender lives in `self`.
        let enough = seen.wait_for(|_| self.received(path).len() >= count);
        let waited = tokio::time::timeout(PATIENCE, enough).await.is_ok();
        let received = self.received(path);
        assert!(waited, "{} requests came to {path}, not {count}: {received:?}", received.len());
        received
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { return };
                connections.spawn(connection::serve(socket, Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
