//! What more workers add: jobs that wait, through two gateways.

use std::path::Path;

use anyhow::Result;

use crate::{
    load::{self, Lengths},
    nats::Durability,
    request::Request,
    sample::Sample,
    sites::Site,
};

/// So few slots a worker that the machine is never what is short.
const SETTINGS: [(&str, &str); 1] = [("FRONTDESK_CONCURRENCY", "16")];
const SCRIPT: &str = "/sleep 100ms";
/// Callers at each of the two gateways: together twice as many as four workers have slots.
pub const CALLERS_EACH: u32 = 64;

/// Has as many callers as ever ask two gateways whose jobs `workers` run.
///
/// # Errors
/// When a process does not come up or goes away.
pub async fn run(root: &Path, workers: usize, lengths: Lengths) -> Result<Sample> {
    let site = Site::product(root, Durability::Shipped, &SETTINGS).await?;
    let (_gateway, address) = site.another_gateway(&SETTINGS).await?;
    let _workers: Vec<_> = (1..workers).map(|n| site.another_worker(n + 1, &SETTINGS)).collect::<Result<_>>()?;
    let asked = async |address| {
        let request = Request::sleeping(address, &site.key, &site.agent, SCRIPT);
        load::run(address, &request, CALLERS_EACH, lengths, [None; 3]).await
    };
    let (one, other) = tokio::try_join!(asked(site.address), asked(address))?;
    Ok(Sample { rate: one.rate + other.rate, errors: one.errors + other.errors, cpu: [None; 4], ..one })
}
