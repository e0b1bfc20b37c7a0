//! A scripted server of batches: takes them as Frontdesk does, has no queue behind it, and fails as a test tells it.
//!
//! A prompt that begins with `fail` or `expire` ends so, every other is answered with itself. The results become
//! readable in the order of the lines, as many as the test lets through (at first: all). Everything ends when the
//! server is dropped.

mod connection;
mod held;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::domain::ids::BatchId;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};

use self::held::Held;
use crate::model::Gate;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The key that opens the door.
pub const KEY: &str = "sk-scripted";

/// A server on a free port of the loopback address.
#[derive(Debug)]
pub struct BatchServer {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Whether the key works.
    Health,
    /// `POST` of a body.
    Submit,
    /// One batch, or the list.
    Look,
    /// Its results.
    Results,
    /// To cancel it, or to run again what failed.
    Change,
}

/// What happens to one request instead of a good answer.
#[derive(Clone, Debug)]
pub enum Mishap {
    /// This status, these headers and this body; nothing is done.
    Answer(u16, Vec<(&'static str, String)>, Value),
    /// The connection is closed, and nothing is done.
    Cut,
    /// The connection is closed once it is done, after so many bytes of the answer's body.
    CutAfter(usize),
    /// It is done, and answered once the gate is open.
    Held(Gate),
}

impl Mishap {
    /// A status with Frontdesk's own kind of body.
    pub fn status(status: u16, code: &str) -> Self {
        Self::Answer(status, Vec::new(), json!({ "error": "as scripted", "code": code, "request_id": "r-1" }))
    }

    /// The same with a pause that it asks for, in seconds.
    pub fn busy(status: u16, retry_after: u64) -> Self {
        let body = json!({ "error": "as scripted", "code": "busy", "request_id": "r-1" });
        Self::Answer(status, vec![("retry-after", retry_after.to_string())], body)
    }
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What for.
    pub route: Route,
    /// Its path and query.
    pub path: String,
    /// Its headers; names in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

#[derive(Debug)]
struct State {
    script: Mutex<Script>,
    /// Moves with every request and every result that is let through.
    moved: watch::Sender<u64>,
}

#[derive(Debug)]
struct Script {
    mishaps: HashMap<Route, VecDeque<Mishap>>,
    standing: HashMap<Route, Mishap>,
    asked: Vec<Asked>,
    batches: Vec<Held>,
    let_through: usize,
    page: usize,
}

impl Script {
    /// Notes the request and says what happens to it.
    fn take_note(&mut self, asked: Asked) -> Option<Mishap> {
        let queued = self.mishaps.get_mut(&asked.route).and_then(VecDeque::pop_front);
        let mishap = queued.or_else(|| self.standing.get(&asked.route).cloned());
        self.asked.push(asked);
        mishap
    }
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let changed = change(&mut self.script());
        self.moved.send_modify(|moves| *moves += 1);
        changed
    }

    /// Waits until `is_so`, for at most `within`.
    async fn until(&self, within: Duration, is_so: impl Fn(&Script) -> bool) -> bool {
        let mut moved = self.moved.subscribe();
        // The sender lives in `self`.
        timeout(within, moved.wait_for(|_| is_so(&self.script()))).await.is_ok()
    }
}

impl BatchServer {
    /// Starts it.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// Starts it at an address, as one that was there before.
    pub async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let script = Script {
            mishaps: HashMap::new(),
            standing: HashMap::new(),
            asked: Vec::new(),
            batches: Vec::new(),
            let_through: usize::MAX,
            page: usize::MAX,
        };
        let state = Arc::new(State { script: Mutex::new(script), moved: watch::Sender::new(0) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next request to `route` that nothing is scripted for yet.
    pub fn script(&self, route: Route, mishap: Mishap) {
        self.state.script().mishaps.entry(route).or_default().push_back(mishap);
    }

    /// What happens to all requests to `route` that nothing is scripted for; `None`: good answers again.
    pub fn always(&self, route: Route, mishap: impl Into<Option<Mishap>>) {
        let mut script = self.state.script();
        script.standing.remove(&route);
        script.standing.extend(mishap.into().map(|mishap| (route, mishap)));
    }

    /// Lets so many results of each batch through, and no more for now.
    pub fn let_through(&self, results: usize) {
        self.state.change(|script| script.let_through = results);
    }

    /// At most so many results in one answer.
    pub fn page(&self, results: usize) {
        self.state.change(|script| script.page = results);
    }

    /// Cancels the newest batch, as somebody else might; the results of what is not let through are never there.
    pub fn cancel(&self) {
        self.state.change(|script| script.batches.last_mut().expect("a batch").cancelled = true);
    }

    /// The batches that were accepted, the oldest first.
    pub fn batches(&self) -> Vec<BatchId> {
        self.state.script().batches.iter().map(|batch| batch.id).collect()
    }

    /// All requests to `route` so far.
    pub fn asked(&self, route: Route) -> Vec<Asked> {
        self.state.script().asked.iter().filter(|asked| asked.route == route).cloned().collect()
    }

    /// How many requests there were.
    pub fn all_asked(&self) -> usize {
        self.state.script().asked.len()
    }

    /// The requests to `route` once there are at least `count`.
    ///
    /// # Panics
    /// When there still are not after a minute.
    pub async fn until_asked(&self, route: Route, count: usize) -> Vec<Asked> {
        let of_route = |script: &Script| script.asked.iter().filter(|asked| asked.route == route).count();
        let came = self.state.until(PATIENCE, |script| of_route(script) >= count).await;
        let asked = self.asked(route);
        assert!(came, "{} requests came for {route:?}, not {count}", asked.len());
        asked
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
