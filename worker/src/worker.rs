//! A worker: built from its settings, run until it is told to stop, drained before it ends.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use common::{
    http::listener::Listener,
    lifecycle::Lifecycle,
    metrics::Metrics,
    ops::{self, Pages},
    queue::{
        cancel::CancelReceiver,
        config::{QueueConfig, StreamLimits},
        connection::Connection,
        consumer::Puller,
        replies::ReplySender,
        streams,
        wakes::Wakes,
    },
    readiness::{Readiness, check},
    store::connection::{Store, StoreConfig},
};
use tracing::{info, warn};

use crate::{
    agent::runtime::{Runtime, RuntimeConfig},
    agents::Agents,
    cancels,
    conclusion::Conclusion,
    config::WorkerConfig,
    deliveries::{config::DeliveriesConfig, courier::Courier, post::Post, sender::Sender, settler::Settler},
    finisher::{Endings, Finisher},
    housekeeping,
    looks::Looks,
    pipeline::Pipeline,
    pool,
    providers::registry::{ProvidersConfig, Registry},
    retention,
    run::Runner,
    started::StartedRows,
    sweep,
};

/// How long the last acknowledgements may take on their way out.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long tasks may take to hand back what they have once the grace time is over.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker takes from as many slot queues as there are.
const ANY_SLOTS: u8 = 0;

/// All that a worker is configured with.
pub struct Settings {
    /// How it runs jobs.
    pub worker: WorkerConfig,
    /// Where the queue is.
    pub queue: QueueConfig,
    /// The limits of the streams.
    pub streams: StreamLimits,
    /// Where the database is.
    pub store: StoreConfig,
    /// Where the models are.
    pub providers: ProvidersConfig,
    /// How often a model is asked.
    pub runtime: RuntimeConfig,
    /// Where webhooks go.
    pub deliveries: DeliveriesConfig,
}

/// A worker that can begin.
pub struct Worker {
    pipeline: Pipeline,
    endings: Endings,
    webhooks: Sender,
    streams: StreamLimits,
    operators: Listener,
}

impl Worker {
    /// Opens the operator's port and the database, brings its tables up to date, and begins to connect to NATS.
    ///
    /// # Errors
    /// When the port or the database cannot be used. A queue that is away is waited for later.
    pub async fn build(settings: Settings, lifecycle: Lifecycle) -> Result<Self> {
        let config = settings.worker;
        let operators = Listener::bind(config.metrics_listen, HEADER_TIMEOUT)
            .with_context(|| format!("FRONTDESK_WORKER_METRICS_LISTEN: cannot listen on {}", config.metrics_listen))?;
        info!(address = %operators.address(), "serving metrics");
        let store = Store::connect(&settings.store).await.context("could not open the database")?;
        store.migrate().await.context("could not bring the database up to date")?;
        let connection = Connection::open(&settings.queue).await?;
        let statements = store.clone();
        let metrics = Arc::new(Metrics::new(move || statements.queries()));
        metrics.has_slots(config.concurrency);
        let calls = metrics.clone();
        let observer = Box::new(move |provider, outcome| calls.model_called(provider, outcome));
        let runtime = Runtime::new(Registry::new(settings.providers)?, settings.runtime, observer);
        let replies = ReplySender::new(connection.clone());
        let runner = Runner {
            runtime,
            replies: replies.clone(),
            started: StartedRows::start(store.clone(), &lifecycle),
            metrics: metrics.clone(),
            limit: config.run_limit,
            heartbeat: settings.streams.ack_wait / 3,
        };
        let courier = Courier {
            store: store.clone(),
            healthy: Post::new(settings.deliveries.guard.apart())?,
            others: Post::new(settings.deliveries.guard)?,
            settler: Settler::start(store.clone(), &lifecycle),
            metrics: metrics.clone(),
            lifecycle: lifecycle.clone(),
        };
        let webhooks = Sender::new(courier, connection.clone(), settings.deliveries.receivers);
        let (finisher, endings) = Finisher::new();
        let looks = Looks::start(store.clone(), &lifecycle);
        let agents = Agents::new(store.clone());
        let conclusion = Arc::new(Conclusion { store, connection, replies, metrics, lifecycle });
        let pipeline = Pipeline { finisher, conclusion, looks, agents, runner, cancels: Arc::default(), config };
        Ok(Self { pipeline, endings, webhooks, streams: settings.streams, operators })
    }

    /// Runs jobs until the lifecycle says stop; then finishes what has begun, within the grace time.
    pub async fn run_until_stopped(mut self) -> Result<()> {
        let (conclusion, config) = (self.pipeline.conclusion.clone(), self.pipeline.config);
        let Conclusion { store, connection, metrics, lifecycle, .. } = &*conclusion;
        let (store, connection, lifecycle) = (store.clone(), connection.clone(), lifecycle.clone());
        let readiness = readiness(store.clone(), connection.clone());
        let pages = Pages { metrics: metrics.clone(), readiness, backlog: None };
        lifecycle.spawn(ops::serve(self.operators, pages, lifecycle.clone()));
        lifecycle.spawn(self.webhooks.run());
        lifecycle.spawn(housekeeping::run(store.clone(), lifecycle.clone()));
        if let Some(life) = config.retention {
            lifecycle.spawn(retention::run(store.clone(), life, lifecycle.clone()));
        }
        let cancels = self.pipeline.cancels.clone();
        let sweep = sweep::run(store.clone(), connection.clone(), cancels, lifecycle.clone());
        lifecycle.spawn_background(sweep);
        lifecycle.spawn(keep_events(connection.clone(), self.streams, lifecycle.clone()));
        if let Some(ack_wait) = queue_is_fit(&connection, &lifecycle).await {
            let heartbeat = ack_wait / 3;
            self.pipeline.runner.heartbeat = heartbeat;
            lifecycle.spawn(self.endings.store(conclusion.clone(), heartbeat));
            // Before the first pull, on the same connection: what was stopped before its job comes is heard first.
            let receiver = CancelReceiver::subscribe(&connection).await?;
            let cancels = self.pipeline.cancels.clone();
            let (link, inner) = (connection.link(), lifecycle.clone());
            lifecycle.spawn_background(cancels::listen(cancels, receiver, link, store.clone(), inner));
            let wakes = Wakes::start(connection.clone(), &lifecycle);
            let puller = Puller::new(connection.clone(), config.concurrency, ack_wait, wakes);
            info!(concurrency = config.concurrency, "pulling jobs");
            lifecycle.spawn(pool::run(puller, Arc::new(self.pipeline), lifecycle.clone()));
        } else {
            drop(self.pipeline);
        }
        lifecycle.stopping().await;
        if !lifecycle.wait(config.grace, HAND_BACK_LIMIT).await {
            warn!("some tasks did not end");
        }
        connection.close(CLOSE_LIMIT).await;
        store.close().await?;
        info!("stopped");
        Ok(())
    }
}

/// Waits until the queue is there as this program needs it, and returns its `ack_wait`; `None` when told to stop.
async fn queue_is_fit(connection: &Connection, lifecycle: &Lifecycle) -> Option<Duration> {
    tokio::select! {
        ack_wait = streams::wait_until_fit(connection, ANY_SLOTS) => Some(ack_wait),
        () = lifecycle.stopping() => None,
    }
}

/// Frames of running jobs live in the server's memory: whoever finds the stream gone makes it again.
async fn keep_events(connection: Connection, limits: StreamLimits, lifecycle: Lifecycle) {
    tokio::select! {
        () = streams::keep_events(&connection, &limits) => {}
        () = lifecycle.stopping() => {}
    }
}

fn readiness(store: Store, connection: Connection) -> Readiness {
    let database = check(move || {
        let store = store.clone();
        async move { store.ping().await.map_err(|e| e.to_string()) }
    });
    let queue = check(move || {
        let connection = connection.clone();
        async move { streams::readiness(&connection, ANY_SLOTS).await }
    });
    Readiness::new(vec![("database", database), ("queue", queue)])
}
