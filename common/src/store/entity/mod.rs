//! The tables as sea-orm sees them, for the paths that need not be fast. They are read nowhere outside the store.

pub(super) mod account;
pub(super) mod agent;
pub(super) mod agent_version;
pub(super) mod api_key;
pub(super) mod batch;
pub(super) mod batch_result;
pub(super) mod callback_secret;
pub(super) mod gateway;
pub(super) mod idempotency_key;
pub(super) mod ledger;
pub(super) mod message;
pub(super) mod webhook_delivery;
pub(super) mod webhook_endpoint;
pub(super) mod webhook_target;
pub(super) mod webhook_try;
