//! The list of steps, and applying those that are missing.

use std::collections::HashSet;

use sea_orm_migration::{prelude::*, sea_orm::DatabaseTransaction};

use crate::{
    m20261121_000001_accounts, m20261121_000002_api_keys, m20261121_000003_agents, m20261121_000004_messages,
    m20261121_000005_ledger, m20261121_000006_gateways, m20261122_000001_callbacks, m20261122_000002_idempotency,
    m20261122_000003_webhook_endpoints, m20261122_000004_webhook_deliveries, m20261122_000005_lists,
    m20261122_000006_older_secrets, m20261122_000007_webhook_classes, m20261123_000001_batches,
    m20261123_000002_batch_results, m20261123_000003_custom_ids,
};

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261121_000001_accounts::Migration),
            Box::new(m20261121_000002_api_keys::Migration),
            Box::new(m20261121_000003_agents::Migration),
            Box::new(m20261121_000004_messages::Migration),
            Box::new(m20261121_000005_ledger::Migration),
            Box::new(m20261121_000006_gateways::Migration),
            Box::new(m20261122_000001_callbacks::Migration),
            Box::new(m20261122_000002_idempotency::Migration),
            Box::new(m20261122_000003_webhook_endpoints::Migration),
            Box::new(m20261122_000004_webhook_deliveries::Migration),
            Box::new(m20261122_000005_lists::Migration),
            Box::new(m20261122_000006_older_secrets::Migration),
            Box::new(m20261122_000007_webhook_classes::Migration),
            Box::new(m20261123_000001_batches::Migration),
            Box::new(m20261123_000002_batch_results::Migration),
            Box::new(m20261123_000003_custom_ids::Migration),
        ]
    }
}

/// Applies what is missing, inside `transaction`: all of it, or nothing. The caller holds a lock, so that no
/// other process does the same.
///
/// A database that knows every step of ours and some more belongs to a newer release that runs beside this
/// one; it is left as it is.
pub async fn apply(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    let applied = Migrator::get_migration_models(transaction).await?;
    let applied: HashSet<String> = applied.into_iter().map(|model| model.version).collect();
    if Migrator::migrations().iter().all(|migration| applied.contains(migration.name())) {
        return Ok(());
    }
    Migrator::up(transaction, None).await
}
