//! The gateway's settings, read once; each part's stand beside the part.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use common::{
    env::{self, EnvError},
    outbound::guard::Guard,
    queue::config::{QueueConfig, QueueRole, StreamLimits},
    store::connection::StoreConfig,
};

use crate::{
    auth::client::TrustedProxies, dispatcher::DispatcherConfig, extract::BodyRules, follow::seats::StreamRules,
    placement::PlacementConfig, prices::Prices, rate_limit::Quotas,
};

/// Everything that can be set.
#[derive(Clone)]
pub struct Config {
    /// The public port.
    pub listen: SocketAddr,
    /// The operator's port.
    pub metrics_listen: SocketAddr,
    /// How long a request's head may take, and how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How large and slow a body may be.
    pub body: BodyRules,
    /// Where bodies of batches wait until they were read to their end; nothing stays there.
    pub spool: PathBuf,
    /// The most unfinished jobs of one account.
    pub account_queue_limit: u64,
    /// How often callers may call.
    pub quotas: Quotas,
    /// How many streams callers may follow, and for how long.
    pub follow: StreamRules,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: TrustedProxies,
    /// For how long keys and agents are remembered.
    pub cache_time_to_live: Duration,
    /// What models cost.
    pub prices: Prices,
    /// How long answers may take.
    pub dispatcher: DispatcherConfig,
    /// Where jobs are put.
    pub placement: PlacementConfig,
    /// Where webhooks may be sent.
    pub guard: Guard,
    /// How long a message is offered to the queue.
    pub publish_budget: Duration,
    /// How long open requests may go on when the process is told to stop.
    pub grace: Duration,
    /// Where NATS is.
    pub queue: QueueConfig,
    /// How large `EVENTS` may be, for when it has to be made again.
    pub streams: StreamLimits,
    /// Where the database is.
    pub store: StoreConfig,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the name of the first variable that makes no sense.
    pub fn from_environment() -> Result<Self, EnvError> {
        let streams = StreamLimits::from_environment()?;
        Ok(Self {
            listen: env::parse("FRONTDESK_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8080)))?,
            metrics_listen: env::parse("FRONTDESK_METRICS_LISTEN", SocketAddr::from(([127, 0, 0, 1], 9090)))?,
            header_timeout: env::duration("FRONTDESK_HEADER_TIMEOUT", Duration::from_secs(5))?,
            body: BodyRules::from_environment()?,
            spool: env::text("FRONTDESK_SPOOL_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
            account_queue_limit: env::within("FRONTDESK_ACCOUNT_QUEUE_LIMIT", 200_000, 1..=u64::MAX)?,
            quotas: Quotas::from_environment()?,
            follow: StreamRules::from_environment()?,
            proxies: env::parse("FRONTDESK_TRUSTED_PROXIES", TrustedProxies::default())?,
            cache_time_to_live: env::duration("FRONTDESK_CACHE_TTL", Duration::from_secs(5))?,
            prices: env::parse("FRONTDESK_PRICES", Prices::default())?,
            dispatcher: DispatcherConfig {
                deadline: env::duration("FRONTDESK_DEADLINE", Duration::from_secs(300))?,
                start_by_grace: env::duration("FRONTDESK_START_BY_GRACE", Duration::from_secs(600))?,
                start_within: env::duration("FRONTDESK_START_WITHIN", Duration::from_secs(72 * 3600))?,
            },
            placement: PlacementConfig::from_environment(streams.slots, streams.account_running)?,
            guard: Guard::from_environment()?,
            publish_budget: env::duration("FRONTDESK_PUBLISH_BUDGET", Duration::from_secs(2))?,
            grace: env::duration("FRONTDESK_GRACE", Duration::from_secs(305))?,
            queue: QueueConfig::from_environment(QueueRole::Gateway)?,
            streams,
            store: StoreConfig::from_environment()?,
        })
    }
}
