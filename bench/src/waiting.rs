//! Callers that all wait at the same time for a slow agent: are all answered, how late, and what does a wait cost?

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, sleep_until, timeout},
};

use crate::{
    http::Connection,
    load::on_one_thread,
    request::Request,
    sample::{Sample, Times},
    sites::Site,
    window::Errors,
};

/// How long the agent takes.
const JOB: Duration = Duration::from_secs(5);
const SCRIPT: &str = "/sleep 5s";
/// Who has no answer by then has none.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Found {
    added: Times,
    errors: Errors,
}

/// Has `callers` arrive evenly over `arrival`, each with a connection and a call of its own. With a bit less than the
/// agent takes, all of them wait at some moment.
///
/// # Errors
/// When the gateway is gone.
pub async fn run(site: &Site, callers: u32, arrival: Duration) -> Result<Sample> {
    let before = site.gateway.resident()?;
    let waiting = Arc::new(AtomicU32::new(0));
    let request = Request::sleeping(site.address, &site.key, &site.agent, SCRIPT);
    let (address, counter, began) = (site.address, waiting.clone(), Instant::now());
    let mut calls = spawn_blocking(move || on_one_thread(all(address, request, callers, arrival, counter)));
    let mut ticks = interval(Duration::from_millis(20));
    let mut largest = None;
    let found = loop {
        tokio::select! {
            found = &mut calls => break found??,
            _ = ticks.tick() => if waiting.load(Ordering::Relaxed) == callers {
                largest = largest.max(Some(site.gateway.resident()?));
            },
        }
    };
    let answered = found.added.count() as f64;
    let percentiles = found.added.p50_and_p99();
    Ok(Sample {
        rate: answered / began.elapsed().as_secs_f64(),
        p50: percentiles.map(|(p50, _)| p50),
        p99: percentiles.map(|(_, p99)| p99),
        errors: found.errors.told(),
        answered: Some(answered),
        memory: largest.map(|largest| largest.saturating_sub(before) as f64 / f64::from(callers)),
        ..Sample::default()
    })
}

async fn all(
    address: SocketAddr,
    request: Request,
    callers: u32,
    arrival: Duration,
    waiting: Arc<AtomicU32>,
) -> Result<Found> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let mut request = request.clone();
        request.renew(caller, 0);
        let waiting = waiting.clone();
        let turn = began + arrival * caller / callers;
        tasks.spawn(async move {
            sleep_until(turn).await;
            one(address, &request, &waiting).await
        });
    }
    let mut found = Found::default();
    while let Some(added) = tasks.join_next().await {
        match added? {
            Ok(added) => found.added.add(added),
            Err(error) => found.errors.add(&error),
        }
    }
    Ok(found)
}

/// What one caller waited longer than the agent took.
async fn one(address: SocketAddr, request: &Request, waiting: &AtomicU32) -> Result<Duration> {
    let asked = Instant::now();
    waiting.fetch_add(1, Ordering::Relaxed);
    let call = async { request.ask(&mut Connection::open(address).await?).await };
    let answer = timeout(LIMIT, call).await;
    waiting.fetch_sub(1, Ordering::Relaxed);
    answer.with_context(|| format!("no answer within {LIMIT:?}"))??;
    Ok(asked.elapsed().saturating_sub(JOB))
}
