//! The gateway as a whole: opens what it needs, serves, and stops in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::Router;
use common::{
    domain::ids::GatewayId,
    http::listener::Listener,
    lifecycle::Lifecycle,
    metrics::Metrics,
    ops::{self, Pages},
    queue::{
        backlog::BacklogGauge,
        config::StreamLimits,
        connection::Connection,
        durability::{self, Durability},
        publisher::Publisher,
        replies::ReplyReceiver,
        streams,
        wakes::Wakes,
    },
    readiness::{Readiness, check},
    retry::Pauses,
    sabotage::{self, Bug},
    store::{
        connection::{Store, StoreConfig},
        error::StoreError,
    },
};
use tracing::{info, warn};

use crate::{
    archive::Archive,
    auth::{authenticator::Authenticator, gate::Gate},
    batches::{archive::BatchArchive, desk::BatchDesk, enqueue::Enqueuer, uploads::Uploads},
    config::Config,
    desk::Desk,
    directory::Directory,
    dispatcher::{self, Dispatcher, upkeep},
    endpoints::Endpoints,
    follow::{self, hub::Hub, seats::Seats},
    idempotency::ticket::Idempotency,
    news::{self, Remembered},
    placement::Placement,
    presence,
    rate_limit::RateLimiter,
    room::Room,
    router,
    state::{AppState, Parts},
    stored_ends::StoredEnds,
};

/// How long a database that is not there yet is waited for.
const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// How long, after the grace time, the last answers may take on their way out.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long the connection to NATS may take to send what it still holds.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A gateway that listens.
pub struct Server {
    listener: Listener,
    operators: Listener,
    router: Router,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    store: Store,
    connection: Connection,
    grace: Duration,
    lifecycle: Lifecycle,
}

impl Server {
    /// Listens, opens the database, brings its tables up to date, and begins to connect to NATS.
    ///
    /// # Errors
    /// When an address is taken, or the database does not come up within a minute. NATS is waited for while serving.
    pub async fn build(config: Config, lifecycle: Lifecycle) -> Result<Self> {
        let listener = listen("FRONTDESK_LISTEN", config.listen, config.header_timeout)?;
        let operators = listen("FRONTDESK_METRICS_LISTEN", config.metrics_listen, config.header_timeout)?;
        let store = open(&config.store, &lifecycle).await?;
        let statements = store.clone();
        let metrics = Arc::new(Metrics::new(move || statements.queries()));
        let connection = Connection::open(&config.queue).await.context("NATS_URL")?;
        let gateway = GatewayId::new();
        let ends = StoredEnds::new(store.clone());
        let hub = Hub::new(connection.clone(), ends.clone(), lifecycle.clone());
        let room = Arc::new(Room::new(store.clone(), config.account_queue_limit));
        let wakes = Wakes::start(connection.clone(), &lifecycle);
        let placement = Placement::start(connection.clone(), gateway, config.placement, &lifecycle).await?;
        let dispatcher = Dispatcher::new(dispatcher::Parts {
            gateway,
            config: config.dispatcher,
            publisher: Publisher::new(connection.clone(), wakes.clone(), config.publish_budget),
            placement: placement.clone(),
            room: room.clone(),
            store: store.clone(),
            hub: hub.clone(),
            metrics: metrics.clone(),
            lifecycle: lifecycle.clone(),
        });
        let waiters = dispatcher.waiters();
        let counted = waiters.clone();
        metrics.count_waiters_with(move || counted.len() as u64);
        let replies = ReplyReceiver::subscribe(&connection, gateway).await?;
        lifecycle.spawn_background(upkeep::route_replies(replies, waiters.clone(), lifecycle.clone()));
        let look = upkeep::look_after_waiters(ends.clone(), waiters.clone(), connection.link(), lifecycle.clone());
        lifecycle.spawn_background(look);
        let look = follow::upkeep::look_after(hub.clone(), ends, connection.clone(), lifecycle.clone());
        lifecycle.spawn_background(look);
        let archive = Archive::new(store.clone(), connection.clone(), hub, waiters, metrics.clone(), lifecycle.clone());
        let archive = Arc::new(archive);

        let authenticator = Authenticator::new(store.clone(), config.cache_time_to_live);
        let directory = Directory::new(store.clone(), config.cache_time_to_live);
        let limiter = Arc::new(RateLimiter::new(config.quotas));
        let remembered = Remembered { authenticator: authenticator.clone(), directory: directory.clone() };
        news::start(&connection, gateway, remembered, limiter.clone(), &lifecycle).await?;
        lifecycle.spawn(keep_queue(connection.clone(), config.streams, config.queue.monitor_url, lifecycle.clone()));
        let readiness = readiness(store.clone(), connection.clone(), config.streams.slots, lifecycle.clone());
        let body_limit = config.body.limit;
        let idempotency = Idempotency::new(store.clone(), connection.clone());
        let batch_desk = BatchDesk {
            directory: directory.clone(),
            prices: Arc::new(config.prices.clone()),
            idempotency: idempotency.clone(),
            enqueuer: Enqueuer {
                gateway,
                store: store.clone(),
                connection: connection.clone(),
                wakes,
                start_within: config.dispatcher.start_within,
                metrics: metrics.clone(),
                lifecycle: lifecycle.clone(),
            },
            uploads: Uploads::default(),
            placement,
            room,
            spool: config.spool,
            pause: config.body.timeout,
        };
        let batches = BatchArchive::new(store.clone(), connection.clone(), lifecycle.clone());
        let router = router::build(AppState::new(Parts {
            gate: Gate::new(authenticator, limiter, config.proxies, metrics.clone()),
            desk: Arc::new(Desk {
                directory,
                prices: config.prices,
                idempotency,
                guard: config.guard.clone(),
                dispatcher,
                body_limit,
            }),
            archive,
            batch_desk: Arc::new(batch_desk),
            batches: Arc::new(batches),
            seats: Seats::new(config.follow),
            endpoints: Arc::new(Endpoints::new(store.clone(), config.guard, connection.clone())),
            body: config.body,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            lifecycle: lifecycle.clone(),
        }));
        let presence = presence::tell(store.clone(), gateway, listener.address(), lifecycle.clone());
        lifecycle.spawn_background(presence);
        let grace = config.grace;
        Ok(Self { listener, operators, router, metrics, readiness, store, connection, grace, lifecycle })
    }

    /// The address of the public port.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// The address of the operator's port.
    pub fn metrics_address(&self) -> SocketAddr {
        self.operators.address()
    }

    /// Serves until the lifecycle says stop; then lets open requests end within the grace time.
    ///
    /// # Errors
    /// When the database cannot be closed.
    pub async fn run_until_stopped(self) -> Result<()> {
        let Self { lifecycle, connection, store, .. } = self;
        info!(address = %self.operators.address(), "serving metrics");
        info!(address = %self.listener.address(), "listening");
        let backlog = BacklogGauge::new(connection.clone());
        lifecycle.spawn(backlog.clone().keep_reading(lifecycle.clone()));
        let pages = Pages { metrics: self.metrics, readiness: self.readiness, backlog: Some(backlog) };
        lifecycle.spawn(ops::serve(self.operators, pages, lifecycle.clone()));
        lifecycle.spawn(self.listener.serve(self.router, lifecycle.clone()));
        lifecycle.stopping().await;
        let grace = if sabotage::has(Bug::WaitersDropped) { Duration::ZERO } else { self.grace };
        if !lifecycle.wait(grace, LAST_WORDS).await {
            warn!("some requests did not end");
        }
        connection.close(CLOSE_LIMIT).await;
        store.close().await?;
        info!("stopped");
        Ok(())
    }
}

fn listen(name: &str, address: SocketAddr, header_timeout: Duration) -> Result<Listener> {
    Listener::bind(address, header_timeout).with_context(|| format!("{name}: cannot listen on {address}"))
}

/// Opens the database and brings its tables up to date. In a compose file it may come up after us.
async fn open(config: &StoreConfig, lifecycle: &Lifecycle) -> Result<Store> {
    let mut pauses = Pauses::new(Duration::from_millis(250), Duration::from_secs(5), Some(STORE_PATIENCE));
    loop {
        let error = match connected(config).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let may_come = error.is_transient() && !lifecycle.is_stopping();
        match pauses.next_pause().filter(|_| may_come) {
            None => return Err(error).context("could not open the database"),
            Some(pause) => {
                warn!(%error, "waiting for the database");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn connected(config: &StoreConfig) -> Result<Store, StoreError> {
    let store = Store::connect(config).await?;
    store.migrate().await?;
    Ok(store)
}

fn readiness(store: Store, connection: Connection, slots: u8, lifecycle: Lifecycle) -> Readiness {
    let gateway = check(move || {
        let stopping = lifecycle.is_stopping();
        async move { if stopping { Err("stopping".to_owned()) } else { Ok(()) } }
    });
    let database = check(move || {
        let store = store.clone();
        async move { store.ping().await.map_err(|error| error.to_string()) }
    });
    let queue = check(move || {
        let connection = connection.clone();
        async move {
            streams::readiness(&connection, slots).await?;
            streams::room(&connection).await
        }
    });
    Readiness::new(vec![("gateway", gateway), ("database", database), ("queue", queue)])
}

/// Says what is missing until the queue is as it has to be, and makes `EVENTS` again when it is gone.
async fn keep_queue(connection: Connection, limits: StreamLimits, monitor_url: Option<String>, lifecycle: Lifecycle) {
    let keep = async {
        streams::wait_until_fit(&connection, limits.slots).await;
        warn_of_loss(monitor_url).await;
        info!("the queue is ready");
        streams::keep_events(&connection, &limits).await;
    };
    tokio::select! {
        () = keep => {}
        () = lifecycle.stopping() => {}
    }
}

/// Asks the server what it does, whatever its configuration file says: a default one loses minutes of accepted jobs
/// with the power.
async fn warn_of_loss(monitor_url: Option<String>) {
    match durability::effective(monitor_url.as_deref()).await {
        Durability::Always => info!("NATS writes to disk before it acknowledges"),
        Durability::Interval(interval) => {
            let interval_s = interval.as_secs();
            warn!(interval_s, "NATS acknowledges before it writes to disk: a power cut loses what it accepted since");
        }
        Durability::Unknown(reason) => {
            warn!(reason, "cannot tell whether NATS writes to disk before it acknowledges");
        }
    }
}
