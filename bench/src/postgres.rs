//! A PostgreSQL server that is there already: `make bench` starts one of its own.

use anyhow::{Context as _, Result};
use common::{domain::ids::MessageId, env};
use sea_orm::{ConnectionTrait as _, Database};

/// A server in which databases may be made.
pub struct Postgres {
    url: String,
}

impl Postgres {
    /// The one that `BENCH_POSTGRES` names; says so when there is none.
    pub fn from_environment() -> Option<Self> {
        let url = env::text("BENCH_POSTGRES");
        if url.is_none() {
            eprintln!("  BENCH_POSTGRES names no server: nothing is measured on PostgreSQL");
        }
        url.map(|url| Self { url })
    }

    /// Makes a database and returns its URL.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn new_database(&self) -> Result<String> {
        let (base, _) = self.url.rsplit_once('/').context("BENCH_POSTGRES has no database in it")?;
        let name = format!("bench_{}", MessageId::new().0.simple());
        let server = Database::connect(&self.url).await.context("BENCH_POSTGRES")?;
        server.execute_unprepared(&format!("CREATE DATABASE {name}")).await?;
        server.close().await?;
        Ok(format!("{base}/{name}"))
    }
}
