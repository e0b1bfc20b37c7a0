//! One visit to a receiver: everything that is due for it, tried and settled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    domain::{delivery::Delivery, ids::EndpointId, time::Millis},
    lifecycle::Lifecycle,
    metrics::Metrics,
    outbound::guard::NoAddress,
    store::{
        claims::{Claim, Due, Token},
        connection::Store,
        error::StoreError,
        settlements::{Settled, Settlement},
        targets::TargetId,
    },
};
use tracing::{debug, error, info, warn};

use super::{
    body,
    post::{Parcel, Post, PostError},
    round::Round,
    settler::Settler,
    tried::Tried,
};

/// How long a receiver is left alone when the database does not answer, or no name can be looked up.
const PAUSE: Duration = Duration::from_secs(1);

/// Visits receivers.
pub struct Courier {
    /// Where messages and endpoints are.
    pub store: Store,
    /// Sends to receivers that took what they got last.
    pub healthy: Post,
    /// Sends to all others, of whose names nobody may know anything: with look-ups of its own.
    pub others: Post,
    /// Stores what came of it.
    pub settler: Settler,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

/// Where a visit goes.
struct Place<'a> {
    target: TargetId,
    token: Token,
    post: &'a Post,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
enum NotTried {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("too many names are being looked up")]
    Busy,
}

impl Courier {
    /// Tries what is due for the receiver of `claim`, which was made at `claimed` or later: one at a time, or two when
    /// it took what it got last.
    pub async fn visit(&self, claim: Claim, claimed: Instant) {
        let Claim { target, token, proven, failures, deliveries, .. } = claim;
        let round = Round::new(deliveries, failures, claimed, self.lifecycle.clone());
        let post = if proven && failures == 0 { &self.healthy } else { &self.others };
        let place = Place { target, token, post };
        if !proven || failures > 0 {
            self.try_next(&round, &place).await;
        }
        let lane = async || while self.try_next(&round, &place).await {};
        tokio::join!(lane(), lane());
        if !round.is_given_back()
            && let Err(error) = self.store.release_target(target, token, Millis::now()).await
        {
            warn!(%error, "could not give a receiver of webhooks back; it is free when the lease is over");
        }
    }

    /// Tries one delivery of the round and settles it. Whether there was one.
    async fn try_next(&self, round: &Round, place: &Place<'_>) -> bool {
        let Some(due) = round.open() else { return false };
        let tried = match self.attempt(&due, place.post).await {
            Ok(tried) => tried,
            Err(error) => {
                warn!(%error, "a webhook could not be tried; it is tried later");
                tokio::time::sleep(PAUSE).await;
                round.abandon();
                return false;
            }
        };
        let delivery = due.delivery;
        self.count(&delivery, &tried);
        let (then, closed) = (round.close(tried.is_delivered(), tried.took, tried.retry_after()), Instant::now());
        let settlement = Settlement {
            target: place.target,
            token: place.token,
            delivery: delivery.id,
            due_at: delivery.next_at,
            verdict: tried.verdict(&delivery, Millis::now()),
            tried: tried.as_try(&delivery),
            then,
        };
        let Some(Settled { is_ours: true, failing_since }) = self.settler.settle(settlement).await else {
            round.lose();
            return false;
        };
        round.renew(closed);
        if let Some(endpoint) = delivery.endpoint {
            self.judge(&delivery, endpoint, &tried, failing_since).await;
        }
        true
    }

    /// One request, and how it went.
    async fn attempt(&self, due: &Due, post: &Post) -> Result<Tried, NotTried> {
        let (at, begun) = (Millis::now(), Instant::now());
        let Some(body) = self.body(&due.delivery).await? else {
            let result = Err("what it would tell of is gone".to_owned());
            return Ok(Tried { at, took: begun.elapsed(), result, is_final: true });
        };
        let (id, timestamp) = (body::webhook_id(&due.delivery), at.0.div_euclid(1_000));
        let signatures: Vec<_> = due.secrets.valid_at(at).map(|secret| secret.sign(&id, timestamp, &body)).collect();
        let parcel = Parcel { url: due.url.clone(), id, timestamp, signatures: signatures.join(" "), body };
        let result = post.send(parcel).await;
        if result == Err(PostError::NoAddress(NoAddress::Busy)) {
            return Err(NotTried::Busy);
        }
        let is_final = matches!(result, Err(PostError::Refused(_)));
        Ok(Tried { at, took: begun.elapsed(), result: result.map_err(|error| error.to_string()), is_final })
    }

    /// What the webhook says, as things stand now; `None` when there is nothing left to tell of.
    async fn body(&self, delivery: &Delivery) -> Result<Option<Bytes>, StoreError> {
        let (event, at) = (delivery.event, delivery.created_at);
        let built = match (delivery.message, delivery.batch) {
            (Some(id), _) => match self.store.message(id).await? {
                Some(message) => body::of_message(event, at, message.object()),
                None => return Ok(None),
            },
            (None, Some(id)) => match self.store.batch(id).await? {
                Some(batch) => body::of_batch(event, at, &batch),
                None => return Ok(None),
            },
            (None, None) => body::of_test(at, delivery.endpoint),
        };
        Ok(built.inspect_err(|error| error!(%error, "could not write a webhook")).ok())
    }

    /// Switches an endpoint off that says it is gone, or that was tried in vain for days.
    async fn judge(&self, delivery: &Delivery, endpoint: EndpointId, tried: &Tried, failing_since: Option<Millis>) {
        let Some(reason) = tried.reason_to_switch_off(failing_since, Millis::now()) else { return };
        match self.store.disable_endpoint(delivery.account, endpoint, reason).await {
            Ok(true) => info!(endpoint.id = %endpoint, %reason, "a webhook endpoint was switched off"),
            Ok(false) => {}
            Err(error) => warn!(%error, endpoint.id = %endpoint, "could not switch a webhook endpoint off"),
        }
    }

    fn count(&self, delivery: &Delivery, tried: &Tried) {
        let (n, took_ms) = (delivery.tries + 1, tried.took.as_millis());
        self.metrics.webhook_tried(tried.is_delivered());
        match &tried.result {
            Ok(receipt) if receipt.is_taken() => debug!(delivery.id = %delivery.id, n, took_ms, "a webhook was taken"),
            Ok(receipt) => {
                info!(delivery.id = %delivery.id, n, took_ms, status = receipt.status, "a webhook was not taken");
            }
            Err(error) => info!(delivery.id = %delivery.id, n, took_ms, error, "a webhook was not taken"),
        }
    }
}
