//! What came of one try, and what follows from it for the delivery and for its endpoint.

use std::time::Duration;

use common::{
    domain::{
        delivery::{Delivery, Try},
        endpoint::DisabledReason,
        event::EventKind,
        time::Millis,
    },
    store::settlements::Verdict,
};

use super::{post::Receipt, schedule};

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Tried {
    /// When it began.
    pub at: Millis,
    /// How long it took.
    pub took: Duration,
    /// The answer, or what went wrong in a few words for the endpoint's owner.
    pub result: Result<Receipt, String>,
    /// Whether another try could do no better.
    pub is_final: bool,
}

impl Tried {
    /// Whether the receiver has taken the event.
    pub fn is_delivered(&self) -> bool {
        self.result.as_ref().is_ok_and(|receipt| receipt.is_taken())
    }

    /// The pause that the receiver has asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.result.as_ref().ok().and_then(|receipt| receipt.retry_after)
    }

    /// What is to become of `delivery`.
    pub fn verdict(&self, delivery: &Delivery, now: Millis) -> Verdict {
        if self.is_delivered() {
            return Verdict::Delivered;
        }
        // Who tries an endpoint out wants to hear how it went, not to have it repeated for days.
        if self.is_final || self.is_gone() || delivery.event == EventKind::WebhookTest {
            return Verdict::Failed;
        }
        schedule::next_try(delivery.step + 1, self.retry_after(), now).map_or(Verdict::Failed, Verdict::Again)
    }

    /// Why the endpoint is switched off, if it is: it says that it is gone, or it was tried in vain for days.
    pub fn reason_to_switch_off(&self, failing_since: Option<Millis>, now: Millis) -> Option<DisabledReason> {
        if self.is_gone() {
            return Some(DisabledReason::Gone);
        }
        let is_hopeless = failing_since.is_some_and(|since| schedule::is_hopeless(since, now));
        is_hopeless.then_some(DisabledReason::Failing)
    }

    /// What is kept of it in the log of `delivery`.
    pub fn as_try(&self, delivery: &Delivery) -> Try {
        Try {
            n: delivery.tries + 1,
            at: self.at,
            status: self.result.as_ref().ok().map(|receipt| receipt.status),
            error: self.result.as_ref().err().cloned(),
            duration_ms: u32::try_from(self.took.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn is_gone(&self) -> bool {
        self.result.as_ref().is_ok_and(|receipt| receipt.is_gone())
    }
}
