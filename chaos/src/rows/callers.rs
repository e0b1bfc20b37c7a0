//! Rows in which those outside misbehave: callers, receivers of webhooks, and models.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use tests::{
    model::{Behaviour, Ending},
    sink::Reply,
};
use tokio::time::sleep;

use super::{Met, fault};
use crate::{
    calls::Call,
    checks::{Check, Fault},
    site::{CALLBACK, Site},
    traffic::Traffic,
};

/// Where a receiver sends us instead, in vain.
const ELSEWHERE: &str = "/elsewhere";
/// How often a receiver fails in each way.
const EACH: usize = 3;
/// A delivery that failed is tried again within this time.
const TRIED_AGAIN: Duration = Duration::from_secs(12);

/// The fault was met when callers had no answer to what they asked first.
pub(super) fn some_hung_up(calls: &[Call]) -> Vec<Fault> {
    let hung_up = calls.iter().filter(|call| call.asks.first().is_some_and(|ask| ask.status.is_none())).count();
    // Those who come before the fault do not, and some are answered first.
    if hung_up >= 30 { Vec::new() } else { vec![fault(Check::Valid, format!("{hung_up} callers hung up"))] }
}

/// A receiver fails in each way, and then takes what comes.
pub(super) async fn receivers_fail(site: &Site, traffic: &Traffic) -> Result<Met> {
    let moved = Reply::Status(301, vec![("location", site.sink.url(ELSEWHERE))]);
    let ways = [Reply::status(500), moved, Reply::status(503), Reply::Cut];
    for reply in ways.iter().cycle().take(ways.len() * EACH) {
        site.sink.script(CALLBACK, reply.clone());
    }
    traffic.ended().await;
    sleep(TRIED_AGAIN).await;
    Ok(Met::times("failures of receivers", ways.len() * EACH))
}

/// What a receiver did not take was sent again, and only to it.
pub(super) fn told_again(site: &Site) -> Vec<Fault> {
    let received = site.sink.received(CALLBACK);
    let deliveries: BTreeSet<_> = received.iter().filter_map(|request| request.header("webhook-id")).collect();
    let again = received.len() - deliveries.len();
    let mut faults = Vec::new();
    if again < 4 * EACH {
        faults.push(fault(Check::Valid, format!("{again} deliveries were tried again")));
    }
    if !site.sink.received(ELSEWHERE).is_empty() {
        faults.push(fault(Check::Right, "a redirect was followed".to_owned()));
    }
    faults
}

/// The model does one thing after the other wrong, each so many times, and well twice after each.
pub(super) async fn model_misbehaves(site: &Site, traffic: &Traffic, times: usize) -> Result<Met> {
    let wrongs = wrongs();
    let before = site.model.calls().len();
    for wrong in wrongs.iter().cycle().take(wrongs.len() * times) {
        site.model.script(wrong.clone());
        site.model.script(Behaviour::echo());
        site.model.script(Behaviour::echo());
    }
    traffic.ended().await;
    let asked = site.model.calls().len() - before;
    let met = (asked / 3).min(wrongs.len() * times);
    let counts = vec![("wrong answers of the model".to_owned(), met as u64, (wrongs.len() * times) as u64)];
    Ok(Met { counts, faults: Vec::new() })
}

/// What a model can do wrong. What makes no sense to try again ends its job, the rest is tried again.
fn wrongs() -> Vec<Behaviour> {
    vec![
        Behaviour::rate_limited(None),
        Behaviour::rate_limited(Some("1")),
        Behaviour::quota(),
        Behaviour::wrong_key(),
        Behaviour::context_length(),
        Behaviour::bad_request(),
        Behaviour::unavailable(),
        Behaviour::web_page(502),
        Behaviour::json_text("{\"choices\":"),
        Behaviour::raw("HTTP/1.1 nonsense\r\n\r\n"),
        Behaviour::hang_before_head(),
        Behaviour::hang_after_head(),
        Behaviour::answer(["half of"]).ending(Ending::Cut),
        Behaviour::answer(["no mark"]).marks(false, false),
    ]
}
