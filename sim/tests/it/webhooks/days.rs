//! Days in the life of an endpoint, in a database whose moments are given.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{
    domain::{
        delivery::{Delivery, DeliveryStatus},
        endpoint::DisabledReason,
        event::EventKind,
        ids::{BatchId, DeliveryId},
        job::Job,
        time::Millis,
    },
    store::{
        connection::Store,
        endpoints::{EndpointChange, EndpointSpec},
        settlements::Verdict,
    },
};
use sim::check;

use super::{
    PATIENCE,
    case::{Case, Manner, Wish, case},
    visits::Courier,
};
use crate::{database::Database, ends::completed, jobs};

/// After so long every delivery is over: ten tries, each at most a day and what jitter adds after the one before.
const ALL_OVER: Duration = Duration::from_hours(30 * 24);
/// An endpoint may be left alone for this long, and what is due for it is late by that.
const LONGEST_HOLD: Duration = Duration::from_hours(24);

struct Life<'a> {
    courier: Courier<'a>,
    case: Case,
    began: Millis,
    now: Millis,
    is_on: bool,
    /// Since when nothing was taken, as far as it was tried.
    failing_since: Option<Millis>,
    /// How often each delivery was asked for anew.
    replays: BTreeMap<DeliveryId, u32>,
    told: usize,
    tests: usize,
}

#[test]
fn what_an_endpoint_is_told_it_is_told_until_it_takes_it_or_is_off() {
    let database = Database::new();
    check(file!(), "webhook deliveries", 150, case(), |case| database.run(|store| play(store, case)));
}

async fn play(store: Store, case: Case) {
    let account = store.create_account(&BatchId::new().to_string(), "desk@example.com").await.expect("an account").id;
    let spec = EndpointSpec { url: format!("https://{account}.example.com"), events: Vec::new(), enabled: true };
    let endpoint = store.create_endpoint(account, &spec, 9).await.expect("an endpoint").id;
    // The store knows the real clock as well, which is behind.
    let began = Millis::now().plus(Duration::from_mins(1));
    let courier = Courier { store: &store, account, endpoint, seen: Vec::new(), held_until: began };
    let mut life = Life {
        courier,
        case,
        began,
        now: began,
        is_on: true,
        failing_since: None,
        replays: BTreeMap::new(),
        told: 0,
        tests: 0,
    };
    life.live().await;
    life.is_told_right().await;
    store.delete_endpoint(account, endpoint).await.expect("to delete it");
}

impl Life<'_> {
    async fn live(&mut self) {
        let mut events = self.case.events.clone();
        let mut wishes = self.case.wishes.clone();
        events.sort_unstable();
        wishes.sort_by_key(|(at, _)| *at);
        let (mut events, mut wishes) = (events.into_iter().peekable(), wishes.into_iter().peekable());
        loop {
            let since = self.now.since(self.began);
            while events.next_if(|at| *at <= since).is_some() {
                self.message_ends().await;
            }
            while let Some((_, wish)) = wishes.next_if(|(at, _)| *at <= since) {
                self.wish(wish).await;
            }
            self.visit().await;
            let next = events.peek().copied().into_iter().chain(wishes.peek().map(|(at, _)| *at));
            let next = next.map(|at| self.began.plus(at)).chain(self.next_due().await).min();
            let Some(next) = next else { return };
            assert!(next.since(self.began) < ALL_OVER, "it goes on for ever");
            self.now = next.max(self.now.plus(Duration::from_millis(1)));
        }
    }

    /// When something is to be tried next.
    async fn next_due(&self) -> Option<Millis> {
        let pending = self.deliveries().await.into_iter().filter(|delivery| delivery.status == DeliveryStatus::Pending);
        pending.map(|delivery| delivery.next_at.max(self.courier.held_until)).min()
    }

    async fn visit(&mut self) {
        let manner = self.case.manner(self.now.since(self.began));
        let before = self.courier.seen.len();
        let due: Vec<_> = self.deliveries().await;
        let is_due = |delivery: &Delivery| delivery.status == DeliveryStatus::Pending && delivery.next_at <= self.now;
        let is_due = due.iter().any(is_due) && self.courier.held_until <= self.now;
        let has_come = self.courier.visit(self.now, manner).await;
        assert_eq!(has_come, is_due, "what is due is tried, and nothing else");
        for place in before..self.courier.seen.len() {
            let seen = &self.courier.seen[place];
            assert!(self.is_on || seen.due.delivery.event == EventKind::WebhookTest, "it is off");
            self.heed(seen.manner);
        }
    }

    /// What a try says about the endpoint.
    fn heed(&mut self, manner: Manner) {
        if manner == Manner::Takes {
            self.failing_since = None;
            return;
        }
        let since = *self.failing_since.get_or_insert(self.now);
        if manner == Manner::Gone || self.now.since(since) >= PATIENCE {
            self.is_on = false;
        }
    }

    async fn message_ends(&mut self) {
        let job = Job { notifies: true, ..Job::clone(&jobs::job(self.courier.account)) };
        let mut outcome = completed("an answer", 1);
        outcome.completed_at = self.now;
        self.courier.store.finish(&[jobs::finish(&Arc::new(job), outcome)]).await.expect("to finish");
        self.told += usize::from(self.is_on);
    }

    async fn wish(&mut self, wish: Wish) {
        let Courier { store, account, endpoint, .. } = self.courier;
        match wish {
            Wish::SwitchOff | Wish::SwitchOn => {
                self.is_on = matches!(wish, Wish::SwitchOn);
                let change = EndpointChange { enabled: Some(self.is_on), ..EndpointChange::default() };
                store.update_endpoint(account, endpoint, &change).await.expect("an answer").expect("the endpoint");
                // A pause that the receiver has asked for stands all the same.
                if self.is_on {
                    self.failing_since = None;
                }
            }
            Wish::Replay => {
                let Some(first) = self.deliveries().await.pop() else { return };
                store.replay_delivery(account, first.id, self.now).await.expect("an answer");
                if self.is_on || first.event == EventKind::WebhookTest {
                    *self.replays.entry(first.id).or_default() += 1;
                    self.courier.held_until = self.began;
                }
            }
            Wish::Test => {
                store.test_endpoint(account, endpoint, self.now).await.expect("an answer").expect("a test");
                self.tests += 1;
                self.courier.held_until = self.began;
            }
        }
    }

    /// Newest first.
    async fn deliveries(&self) -> Vec<Delivery> {
        let Courier { store, account, endpoint, .. } = self.courier;
        let log = store.deliveries(account, endpoint, None, 99).await.expect("the log");
        log.into_iter().map(|(delivery, _)| delivery).collect()
    }

    /// At the end every delivery is over, in the way that its tries say.
    async fn is_told_right(&self) {
        let Courier { store, account, endpoint, .. } = self.courier;
        let log = store.deliveries(account, endpoint, None, 99).await.expect("the log");
        assert_eq!(log.len(), self.told + self.tests, "one delivery for each event");
        for (delivery, tries) in &log {
            let seen: Vec<_> = self.courier.seen.iter().filter(|seen| seen.due.delivery.id == delivery.id).collect();
            let times: Vec<_> = seen.iter().map(|seen| seen.at).collect();
            assert_eq!(tries.iter().map(|tried| tried.at).collect::<Vec<_>>(), times, "each try is in the log, once");
            let replays = self.replays.get(&delivery.id).copied().unwrap_or_default();
            assert!(tries.len() <= 10 * (1 + replays as usize), "{} tries", tries.len());
            let is_taken = seen.last().is_some_and(|last| last.verdict == Verdict::Delivered);
            match delivery.status {
                DeliveryStatus::Pending => panic!("it is not over: {delivery:?}"),
                DeliveryStatus::Delivered => assert!(is_taken),
                DeliveryStatus::Failed => {
                    assert!(seen.last().is_some_and(|last| last.verdict == Verdict::Failed) || self.is_overdue(&seen));
                }
                DeliveryStatus::Dropped => assert!(!is_taken, "it was taken"),
            }
        }
        let found = store.endpoint(account, endpoint).await.expect("an answer").expect("the endpoint");
        assert_eq!(found.enabled, self.is_on);
        if self.case.wishes.is_empty() {
            let is_gone = self.courier.seen.iter().any(|seen| seen.manner == Manner::Gone);
            let reason = if is_gone { DisabledReason::Gone } else { DisabledReason::Failing };
            assert_eq!(found.disabled_reason, (!self.is_on).then_some(reason));
        }
    }

    /// What a failing receiver could not be sent for days is given up untried.
    fn is_overdue(&self, seen: &[&super::visits::Seen]) -> bool {
        let last = seen.last().map_or(self.began, |seen| seen.at);
        self.now.since(last) + LONGEST_HOLD >= PATIENCE
    }
}
