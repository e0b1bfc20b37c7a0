//! Rows about who may come in.

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use reqwest::Method;

use super::{Met, fault};
use crate::{checks::Check, site::Site};

/// Something that a key may do, and that costs nothing.
const LIST: &str = "/api/v1/messages?limit=1";
/// How often a revoked key is tried at each gateway.
const TRIES: usize = 3;
/// How often one address tries wrong keys at each gateway.
const WRONG: usize = 30;
/// So many failures a minute one address may have at one gateway; until gateways have heard from each other, at each.
const FAILURES: usize = 10;

/// A key is made, used at both gateways, and revoked: once the command has said so, nobody gets in with it.
pub(super) async fn keys_revoked(site: &Site, times: usize) -> Result<Met> {
    let mut met = Met::times("keys revoked", times);
    for time in 0..times {
        let made = site.stack.admin(&["key", "create", &site.stack.account, &format!("short-lived {time}")]);
        let (id, secret) = (text(&made["id"])?, text(&made["secret"])?);
        let before = asked(site, secret, 1).await?;
        if before.iter().any(|status| *status != 200) {
            met.faults.push(fault(Check::Valid, format!("a new key was answered {before:?}")));
        }
        site.stack.admin(&["key", "revoke", id]);
        let after = asked(site, secret, TRIES).await?;
        // Who fails often is not even looked at.
        if !after.iter().all(|status| matches!(status, 401 | 429)) {
            met.faults.push(fault(Check::Code, format!("a revoked key was answered {after:?}")));
        }
    }
    Ok(met)
}

fn text(value: &serde_json::Value) -> Result<&str> {
    value.as_str().context("a text in what the command says")
}

/// What each gateway says to `key`, so often.
async fn asked(site: &Site, key: &str, times: usize) -> Result<Vec<u16>> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        for gateway in 0..site.stack.gateways.len() {
            let answer = site.stack.request_at(gateway, Method::GET, LIST, key).send().await?;
            statuses.push(answer.status().as_u16());
        }
    }
    Ok(statuses)
}

/// Somebody behind a trusted proxy tries wrong keys, and says each time to come from elsewhere.
pub(super) async fn addresses_forged(site: &Site) -> Result<Met> {
    let gateways = site.stack.gateways.len();
    let (mut refused, mut let_try) = (0, 0);
    for _ in 0..WRONG {
        for gateway in 0..gateways {
            match forged(site, gateway, "fd_wrong").await? {
                429 => refused += 1,
                _ => let_try += 1,
            }
        }
    }
    let mut met = Met::at_least("wrong keys refused unseen", refused, 1);
    if !(FAILURES..=FAILURES * gateways).contains(&let_try) {
        met.faults.push(fault(Check::Code, format!("one address could try {let_try} wrong keys")));
    }
    let good = forged(site, 0, &site.stack.key).await?;
    if good != 200 {
        met.faults.push(fault(Check::Code, format!("a good key from there was answered {good}")));
    }
    Ok(met)
}

/// What `gateway` says to `key`, from one address that claims to be another one each time.
async fn forged(site: &Site, gateway: usize, key: &str) -> Result<u16> {
    let claimed: [u8; 3] = rand::rng().random();
    let hops = format!("198.{}.{}.{}, 203.0.113.7", claimed[0], claimed[1], claimed[2]);
    let request = site.stack.request_at(gateway, Method::GET, LIST, key).header("x-forwarded-for", hops);
    Ok(request.send().await?.status().as_u16())
}
