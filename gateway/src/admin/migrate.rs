//! `gateway migrate`: the tables, the streams and the consumers that this version needs.

use common::{
    queue::{config::StreamLimits, control::Control},
    store::connection::{Store, StoreConfig},
};
use serde::Serialize;

use super::{
    context,
    error::AdminError,
    output::{Output, View},
};

#[derive(Debug, Serialize)]
struct MigratedView {
    database: &'static str,
    streams: &'static str,
}

impl View for MigratedView {
    const COLUMNS: &'static [&'static str] = &["database", "streams"];

    fn cells(&self) -> Vec<String> {
        vec![self.database.to_owned(), self.streams.to_owned()]
    }
}

/// Brings both up to date. Running it again, or several times at once, does no harm.
pub async fn run(output: &Output) -> Result<(), AdminError> {
    let limits = StreamLimits::from_environment()?;
    let queue = context::queue_config()?;
    let store = Store::connect(&StoreConfig::from_environment()?).await?;
    store.migrate().await?;
    let control = Control::connect(&queue).await?;
    let made = control.migrate(&limits).await;
    control.close().await;
    made?;
    Ok(output.one(&MigratedView { database: "up to date", streams: "up to date" })?)
}
