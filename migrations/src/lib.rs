//! The database's tables, step by step. Each step is frozen once it has run anywhere: it imports nothing of ours.

mod columns;
mod m20261121_000001_accounts;
mod m20261121_000002_api_keys;
mod m20261121_000003_agents;
mod m20261121_000004_messages;
mod m20261121_000005_ledger;
mod m20261121_000006_gateways;
mod m20261122_000001_callbacks;
mod m20261122_000002_idempotency;
mod m20261122_000003_webhook_endpoints;
mod m20261122_000004_webhook_deliveries;
mod m20261122_000005_lists;
mod m20261122_000006_older_secrets;
mod m20261122_000007_webhook_classes;
mod m20261123_000001_batches;
mod m20261123_000002_batch_results;
mod m20261123_000003_custom_ids;
pub mod migrator;
