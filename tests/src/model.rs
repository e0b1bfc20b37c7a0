//! A scripted model server: speaks the OpenAI protocol, well or badly, as a test tells it.
//!
//! Plain TCP, so that it can misbehave at any byte. One [`Behaviour`] is used up by each request; when none is left,
//! the standing one applies (at first: an echo). Everything ends when the server is dropped.

mod behaviour;
mod connection;
mod gate;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

pub use self::{
    behaviour::{Behaviour, Ending},
    gate::Gate,
};

/// A model server on a free port of the loopback address.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its path, such as `/v1/chat/completions`.
    pub path: String,
    /// Its headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its JSON.
    pub body: Value,
    /// When it was complete.
    pub at: Instant,
}

impl Call {
    /// The value of the header `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What the last turn says.
    pub fn prompt(&self) -> &str {
        let last = self.body["messages"].as_array().and_then(|messages| messages.last());
        last.and_then(|turn| turn["content"].as_str()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct State {
    script: Mutex<Script>,
    hang_ups: watch::Sender<usize>,
    called: watch::Sender<usize>,
}

#[derive(Debug)]
struct Script {
    queue: VecDeque<Behaviour>,
    standing: Behaviour,
    calls: Vec<Call>,
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the call and says what to do with it, and which it was, from 1.
    fn answer_to(&self, call: Call) -> (Behaviour, usize) {
        let mut script = self.script();
        script.calls.push(call);
        self.called.send_replace(script.calls.len());
        let behaviour = script.queue.pop_front().unwrap_or_else(|| script.standing.clone());
        (behaviour, script.calls.len())
    }
}

impl ModelServer {
    /// Starts it; it echoes the last turn until it is told otherwise.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("could not listen for model calls")?;
        let address = listener.local_addr()?;
        let script = Script { queue: VecDeque::new(), standing: Behaviour::echo(), calls: Vec::new() };
        let state = Arc::new(State {
            script: Mutex::new(script),
            hang_ups: watch::Sender::new(0),
            called: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, _tasks: tasks })
    }

    /// The base address for `FRONTDESK_OPENAI_URL`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What to do with the next request that nothing is scripted for yet.
    pub fn script(&self, behaviour: Behaviour) {
        self.state.script().queue.push_back(behaviour);
    }

    /// What to do with all requests that nothing is scripted for.
    pub fn always(&self, behaviour: Behaviour) {
        self.state.script().standing = behaviour;
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.script().calls.clone()
    }

    /// Waits until there were `count` requests, counted from the start.
    pub async fn called(&self, count: usize) {
        let mut seen = self.state.called.subscribe();
        // The sender lives in `self`.
        let _ = seen.wait_for(|called| *called >= count).await;
    }

    /// Waits until callers have closed `count` connections in the middle of an answer, counted from the start.
    pub async fn hung_up(&self, count: usize) {
        let mut seen = self.state.hang_ups.subscribe();
        // The sender lives in `self`.
        let _ = seen.wait_for(|hang_ups| *hang_ups >= count).await;
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
