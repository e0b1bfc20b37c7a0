//! Callers that ask again as soon as they are answered, each on a connection of its own.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::Builder,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use crate::{
    http::Connection,
    request::Request,
    sample::Sample,
    window::{Processes, Tally, Window},
};

/// A caller that had no answer tries again after this long, on a new connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a measurement lasts.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Calls that do not count.
    pub warm_up: Duration,
    /// Calls that do.
    pub measure: Duration,
}

/// Has `callers` ask `address` for the given time.
///
/// # Errors
/// When nobody listens there, or a process is gone.
pub async fn run(
    address: SocketAddr,
    request: &Request,
    callers: u32,
    lengths: Lengths,
    processes: Processes<'_>,
) -> Result<Sample> {
    let window = Window::after(lengths.warm_up, lengths.measure);
    let request = request.clone();
    // One thread is enough to ask, and costs the servers less than two that steal from each other.
    let all = spawn_blocking(move || on_one_thread(all(address, request, callers, window)));
    window.watch(processes, async { all.await? }).await
}

/// Runs `task` and all that it spawns on this thread.
pub fn on_one_thread<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_current_thread().enable_all().build().context("no runtime")?.block_on(task)
}

async fn all(address: SocketAddr, request: Request, callers: u32, window: Window) -> Result<Tally> {
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let connection = Connection::open(address).await?;
        tasks.spawn(one(address, connection, request.clone(), caller, window));
    }
    let mut sum = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        sum.extend(tally?);
    }
    Ok(sum)
}

async fn one(
    address: SocketAddr,
    mut connection: Connection,
    mut request: Request,
    caller: u32,
    window: Window,
) -> Tally {
    let mut tally = Tally::default();
    for number in 0.. {
        if !window.is_open() {
            break;
        }
        request.renew(caller, number);
        let asked = Instant::now();
        let answer = request.ask(&mut connection).await;
        let broken = answer.is_err();
        tally.count(window, asked, answer);
        if broken {
            sleep(PAUSE).await;
            connection = match Connection::open(address).await {
                Ok(again) => again,
                Err(_) => continue,
            };
        }
    }
    tally
}
