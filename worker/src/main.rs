//! The worker process: pulls jobs, runs agents, stores and returns what they say.

mod allocator;

use anyhow::{Context as _, Result};
use common::{
    lifecycle::Lifecycle,
    queue::config::{QueueConfig, QueueRole, StreamLimits},
    store::connection::StoreConfig,
    telemetry,
};
use tracing::warn;
use worker::{
    agent::runtime::RuntimeConfig,
    config::WorkerConfig,
    deliveries::config::DeliveriesConfig,
    providers::registry::ProvidersConfig,
    worker::{Settings, Worker},
};

#[tokio::main]
async fn main() -> Result<()> {
    let _last_lines = telemetry::init_from_environment()?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings {
        worker: WorkerConfig::from_environment()?,
        queue: QueueConfig::from_environment(QueueRole::Worker)?,
        streams: StreamLimits::from_environment()?,
        store: StoreConfig::from_environment()?,
        providers: ProvidersConfig::from_environment()?,
        runtime: RuntimeConfig::from_environment()?,
        deliveries: DeliveriesConfig::from_environment()?,
    };
    if settings.streams.events_max_age < settings.worker.run_limit {
        warn!(
            "FRONTDESK_EVENTS_MAX_AGE is below FRONTDESK_RUN_LIMIT: who comes late to a long answer sees no text until its end"
        );
    }
    let lifecycle = Lifecycle::new();
    lifecycle.listen_for_signals().context("could not listen for signals")?;
    Worker::build(settings, lifecycle).await?.run_until_stopped().await
}
