//! The security suite: what `SECURITY.md` promises, a file a row, each telling how much it has tried.

mod auth_failures;
mod body_sizes;
mod canaries;
mod control_characters;
mod cross_account;
mod durability;
mod first_start;
mod hostile_json;
mod json_routes;
mod nats_permissions;
mod nats_subjects;
mod operators_only;
mod revocation;
mod same_path;
mod slow_sockets;
mod smuggling;
mod smuggling_forms;
mod smuggling_heads;
mod ssrf;
mod ssrf_addresses;
