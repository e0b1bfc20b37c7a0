//! What there may be much of: jobs that wait on the queue, finished messages, and callers that wait.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use common::{
    domain::{
        ids::AgentId,
        job::{Job, Lane},
    },
    lifecycle::Lifecycle,
    queue::{
        backlog::BacklogGauge, config::QueueRole, connection::Connection as Queue, place::Place, publisher::Publisher,
        wakes::Wakes,
    },
};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement};
use tokio::{
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use crate::{
    http::Connection,
    load::on_one_thread,
    nats::Nats,
    payload::{self, Asker},
    request::Request,
    sites::Site,
};

/// Whatever takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(300);
/// Publishes under way at a time.
const UNDER_WAY: usize = 512;
/// Rows in one transaction.
const PORTION: u64 = 50_000;

/// Finished messages of the site's one account, a millisecond after one another, long ago.
const FINISHED: &str = "INSERT INTO messages (id, account_id, key_id, agent_id, agent_version, channel, lane, status, \
     prompt, content, model, input_tokens, output_tokens, attempts, new_chat, created_at, started_at, completed_at) \
     WITH RECURSIVE n(at) AS (SELECT $1 UNION ALL SELECT at + 1 FROM n WHERE at < $2) \
     SELECT unhex(printf('%012x', at) || '7' || substr(hex(randomblob(2)), 1, 3) || '8' || \
     substr(hex(randomblob(8)), 1, 15)), (SELECT id FROM accounts), (SELECT id FROM api_keys), \
     (SELECT id FROM agents), 1, 'api', 'interactive', 'completed', '[{\"role\":\"user\",\"content\":\"' || $3 || \
     '\"}]', $3, 'demo', 20, 20, 1, false, at, at, at FROM n";
/// When the first of them ended: 2023.
const LONG_AGO: u64 = 1_700_000_000_000;

/// Connects to the queue as the gateway does.
///
/// # Errors
/// When the server does not let it in.
pub async fn queue(nats: &Nats) -> Result<Queue> {
    let queue = Queue::open(&nats.config(QueueRole::Gateway)).await?;
    ensure!(queue.wait_until_up(LIMIT).await, "no connection to nats-server");
    Ok(queue)
}

/// Puts `count` jobs for the site's agent onto the lane of batches.
///
/// # Errors
/// When one of them is not taken.
pub async fn jobs(queue: &Queue, site: &Site, count: u32, prompt: &str) -> Result<()> {
    let publisher = publisher(queue);
    let (asker, agent): (_, AgentId) = (Asker::new(), site.agent.parse().context("an agent's id")?);
    let mut published = JoinSet::new();
    for _ in 0..count {
        let (publisher, job) = (publisher.clone(), line(&asker, agent, prompt));
        published.spawn(async move { publisher.publish(job, Place::Slot(0), None).await });
        while published.len() >= UNDER_WAY {
            published.join_next().await.context("no publish is under way")???;
        }
    }
    while let Some(published) = published.join_next().await {
        published??;
    }
    Ok(())
}

/// A publisher on `queue`.
pub fn publisher(queue: &Queue) -> Publisher {
    Publisher::new(queue.clone(), Wakes::start(queue.clone(), &Lifecycle::new()), LIMIT)
}

/// A job that nobody waits for, in the lane of batches.
pub fn line(asker: &Asker, agent: AgentId, prompt: &str) -> Job {
    let job = asker.job(agent, prompt.to_owned());
    Job { lane: Lane::Batch, reply_to: None, wait_until: None, publish_by: job.start_by, ..job }
}

/// Waits until at least `count` jobs of `lane` run.
///
/// # Errors
/// When they do not.
pub async fn until_running(queue: &Queue, lane: Lane, count: u64) -> Result<()> {
    let (gauge, until) = (BacklogGauge::new(queue.clone()), Instant::now() + LIMIT);
    loop {
        let running = gauge.read().await.map(|backlog| backlog.lanes[lane.index()].running);
        if running.is_some_and(|running| running >= count) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "not {count} jobs of {lane} run, but {running:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Opens the site's database.
///
/// # Errors
/// When it is not there.
pub async fn database(site: &Site) -> Result<DatabaseConnection> {
    Ok(Database::connect(site.database()).await?)
}

/// Stores `count` messages that have ended, in a database on SQLite.
///
/// # Errors
/// When it refuses them.
pub async fn finished(database: &DatabaseConnection, count: u64) -> Result<()> {
    for first in (0..count).step_by(usize::try_from(PORTION)?) {
        let last = count.min(first + PORTION) - 1;
        let values = [(LONG_AGO + first).into(), (LONG_AGO + last).into(), payload::PROMPT.into()];
        database.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, FINISHED, values)).await?;
    }
    Ok(())
}

/// How many messages there are that ended long ago: before June 2024.
///
/// # Errors
/// When the database does not answer.
pub async fn count_finished(database: &DatabaseConnection) -> Result<u64> {
    let count = "SELECT count(*) FROM messages WHERE id < unhex('019000000000')";
    let row = database.query_one_raw(Statement::from_string(DbBackend::Sqlite, count)).await?.context("no row")?;
    Ok(u64::try_from(row.try_get_by_index::<i64>(0)?)?)
}

/// Has `count` callers wait for an answer to `request`; they go away with the site.
pub fn callers(address: SocketAddr, request: Request, count: u32) -> JoinHandle<Result<()>> {
    spawn_blocking(move || {
        on_one_thread(async move {
            let (request, mut calls) = (Arc::new(request), JoinSet::new());
            for _ in 0..count {
                let request = request.clone();
                calls.spawn(async move { request.ask(&mut Connection::open(address).await?).await });
            }
            while calls.join_next().await.is_some() {}
            Ok(())
        })
    })
}
