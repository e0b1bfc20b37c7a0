//! A courier without a network: claims, tries as the case says, and settles, at any moment.

use std::time::{Duration, Instant};

use common::{
    domain::{
        ids::{AccountId, EndpointId},
        time::Millis,
    },
    lifecycle::Lifecycle,
    store::{
        claims::{ClaimLimits, Class, Due},
        connection::Store,
        settlements::{Settlement, Then, Verdict},
        targets::TargetId,
    },
};
use worker::deliveries::{
    post::Receipt,
    round::{LEASE, Round},
    schedule,
    tried::Tried,
};

use super::{LONGEST_RETRY_AFTER, PAUSES, case::Manner};

/// How long a try takes.
const TOOK: Duration = Duration::from_millis(40);
/// How long one takes that nobody answers.
const SILENCE: Duration = Duration::from_secs(20);

/// How long a failing receiver that asks for nothing is left alone at most.
const LONGEST_HOLD: Duration = Duration::from_mins(5);
/// More tries than any case may have: ten for each event, and as many for each wish.
const MANY: usize = 200;

/// One try, as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Millis,
    pub due: Due,
    pub manner: Manner,
    pub verdict: Verdict,
}

/// Sends to one endpoint.
pub struct Courier<'a> {
    pub store: &'a Store,
    pub account: AccountId,
    pub endpoint: EndpointId,
    pub seen: Vec<Seen>,
    /// Until when the receiver is left alone.
    pub held_until: Millis,
}

impl Courier<'_> {
    /// Visits the receiver at `now` when something is due for it, which answers in this manner. Whether anything was.
    pub async fn visit(&mut self, now: Millis, manner: Manner) -> bool {
        let mut has_come = false;
        for (class, each) in [(Class::Healthy, 32), (Class::Untried, 32), (Class::Shaken, 1), (Class::Failing, 1)] {
            let limits = ClaimLimits { targets: 100_000, each, lease: LEASE, patience: schedule::PATIENCE };
            let claims = self.store.claim_targets(class, &limits, now).await.expect("claims");
            // What a case left behind that did not hold is none of this one's.
            for claim in claims.into_iter().filter(|claim| claim.target == TargetId::of_endpoint(self.endpoint)) {
                has_come = true;
                assert!(
                    now >= self.held_until,
                    "it was to be left alone: {now:?} {:?} {class:?} {claim:?}",
                    self.held_until
                );
                let (target, token) = (claim.target, claim.token);
                let round = Round::new(claim.deliveries, claim.failures, Instant::now(), Lifecycle::new());
                while let Some(due) = round.open() {
                    let tried = tried(now, manner);
                    let verdict = tried.verdict(&due.delivery, now);
                    judge(&due, manner, verdict, now);
                    let then = round.close(tried.is_delivered(), tried.took, tried.retry_after());
                    if let Then::Release(hold) = then {
                        let asked = asked(manner);
                        assert!(hold >= asked && hold <= asked.max(LONGEST_HOLD), "left alone for {hold:?}");
                        self.held_until = now.plus(hold);
                    }
                    let delivery = &due.delivery;
                    let (id, due_at) = (delivery.id, delivery.next_at);
                    let settlement = Settlement {
                        target,
                        token,
                        delivery: id,
                        due_at,
                        tried: tried.as_try(delivery),
                        verdict,
                        then,
                    };
                    let settled = self.store.settle(&[settlement], now).await.expect("to settle").remove(0);
                    self.seen.push(Seen { at: now, due, manner, verdict });
                    assert!(self.seen.len() < MANY, "it is tried for ever");
                    if !settled.is_ours {
                        round.lose();
                    } else if let Some(reason) = tried.reason_to_switch_off(settled.failing_since, now) {
                        self.store.disable_endpoint(self.account, self.endpoint, reason).await.expect("an answer");
                    }
                }
                if !round.is_given_back() {
                    self.store.release_target(target, token, now).await.expect("to give it back");
                }
            }
        }
        has_come
    }
}

fn tried(at: Millis, manner: Manner) -> Tried {
    let answer = |status, retry_after| Ok(Receipt { status, retry_after });
    let (result, took) = match manner {
        Manner::Takes => (answer(204, None), TOOK),
        Manner::Fails(status) => (answer(status, None), TOOK),
        Manner::FailsFor(seconds) => (answer(503, Some(Duration::from_secs(seconds))), TOOK),
        Manner::Gone => (answer(410, None), TOOK),
        Manner::Silent => (Err("no answer within 20 s".to_owned()), SILENCE),
        Manner::Forbidden => (Err("the address is not public".to_owned()), Duration::ZERO),
    };
    Tried { at, took, result, is_final: manner == Manner::Forbidden }
}

/// The pause that a receiver asks for, as far as it is heeded.
fn asked(manner: Manner) -> Duration {
    match manner {
        Manner::FailsFor(seconds) => Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER),
        _ => Duration::ZERO,
    }
}

/// What has to become of a delivery.
fn judge(due: &Due, manner: Manner, verdict: Verdict, now: Millis) {
    assert!(due.delivery.next_at <= now, "before its time");
    let is_last = due.delivery.step as usize >= PAUSES.len();
    let is_test = due.delivery.event == common::domain::event::EventKind::WebhookTest;
    match (manner, verdict) {
        (Manner::Takes, verdict) => assert_eq!(verdict, Verdict::Delivered),
        (Manner::Gone | Manner::Forbidden, verdict) => assert_eq!(verdict, Verdict::Failed),
        (_, Verdict::Failed) => assert!(is_last || is_test, "given up after {}", due.delivery.step + 1),
        (_, Verdict::Delivered) => panic!("only a 2xx is a success"),
        (manner, Verdict::Again(at)) => {
            assert!(!is_last && !is_test, "one try too many");
            let pause = PAUSES[due.delivery.step as usize];
            let asked = asked(manner);
            let given = at.since(now);
            assert!(given >= pause.max(asked) && given <= pause.mul_f64(1.2).max(asked), "{given:?} of {pause:?}");
        }
    }
}
