//! Callers who wait for an end, whatever becomes of its reply.

use std::{cell::Cell, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    domain::{
        ids::MessageId,
        reply::{Attempt, Frame, FrameBody, Outcome},
    },
    lifecycle::Lifecycle,
    queue::connection::Link,
};
use futures_util::future::join_all;
use gateway::{
    dispatcher::{answer::DispatchError, ends::Ends, upkeep::look_after_waiters},
    stored_ends::StoredEnds,
    waiter::{Waiters, Wake},
};
use sim::check;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    case::{Call, Case, LONG, Manner, case},
    store::{Contents, Shelf},
};
use crate::{clock::on_paused_clock, ends::completed};

/// How often, and after how much waiting, the store is asked for ends whose reply was lost.
const LOOK_EVERY: u64 = 3_000;
/// How long after the deadline the store may still be asked: an answer comes a second earlier than was promised.
const LAST_LOOK: u64 = 1_000;
/// The clock goes in steps of a millisecond.
const STEP: u64 = 1;

/// What a caller is told, and when.
enum Told {
    Answer(String, u64),
    Timeout(u64),
    Refused,
    Gone,
}

struct Site {
    case: Case,
    ids: Vec<MessageId>,
    began: Instant,
    waiters: Arc<Waiters>,
    ends: Ends<Shelf>,
    lifecycle: Lifecycle,
    /// How many wait at the moment.
    waiting: Cell<usize>,
}

impl Site {
    async fn until(&self, millis: u64) {
        sleep_until(self.at(millis)).await;
    }

    fn at(&self, millis: u64) -> Instant {
        self.began + Duration::from_millis(millis)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a short case")
    }

    /// As the dispatcher does it: registered first, then published, then waited for.
    async fn call(&self, place: usize) -> Told {
        let (call, id) = (&self.case.calls[place], self.ids[place]);
        self.until(call.begins).await;
        self.waiting.set(self.waiting.get() + 1);
        let gone = self.at(call.hangs_up_after.map_or(u64::MAX >> 20, |after| call.begins + after));
        let told = timeout_at(gone, self.answer(call, id)).await.unwrap_or(Told::Gone);
        self.waiting.set(self.waiting.get() - 1);
        told
    }

    async fn answer(&self, call: &Call, id: MessageId) -> Told {
        let until = self.at(call.begins + call.patience);
        let mut waiter = self.waiters.call(id);
        self.until(call.begins + call.publish).await;
        let wake = match call.is_refused {
            true => waiter.take_now().ok_or(Told::Refused),
            false => {
                self.ends.wake(&mut waiter, id, until, &self.lifecycle).await.map_err(|error| self.timeout(&error))
            }
        };
        match wake {
            Err(told) => told,
            Ok(wake) => match self.ends.outcome(id, wake, until).await {
                Ok(outcome) => Told::Answer(outcome.content.expect("an answer with its content"), self.now()),
                Err(error) => self.timeout(&error),
            },
        }
    }

    fn timeout(&self, error: &DispatchError) -> Told {
        assert!(matches!(error, DispatchError::Timeout { .. }), "{error}");
        Told::Timeout(self.now())
    }

    /// A reply, or nothing when its call has none.
    async fn reply(&self, at: u64, id: MessageId, bytes: Bytes) {
        self.until(at).await;
        self.waiters.wake(id, Wake::Frame(bytes));
        assert!(self.waiters.len() <= self.waiting.get(), "more are registered than wait");
        assert_eq!(self.waiters.waiting_since(Instant::now()).len(), self.waiters.len());
    }

    async fn replies(&self) {
        let calls = self.case.calls.iter().zip(&self.ids);
        let own = calls.flat_map(|(call, id)| {
            let end =
                call.end.iter().flat_map(move |end| end.replies.iter().map(move |reply| (end.stored_after, reply)));
            end.map(move |(stored, (after, manner))| (call.begins + stored + after, *id, frame(*id, *manner)))
        });
        let strays = self
            .case
            .strays
            .iter()
            .map(|at| (*at, MessageId::new()))
            .map(|(at, id)| (at, id, frame(id, Manner::Whole)));
        join_all(own.chain(strays).map(|(at, id, bytes)| self.reply(at, id, bytes))).await;
    }

    async fn links(&self, link: watch::Sender<Link>) {
        for at in &self.case.reconnects {
            self.until(*at).await;
            link.send_modify(|link| *link = Link { up: true, epoch: link.epoch + 1, closed: false });
        }
        if let Some(at) = self.case.aborts {
            self.until(at).await;
            self.lifecycle.abort();
        }
        self.until(LONG).await;
    }
}

fn outcome(id: MessageId) -> Outcome {
    completed(&format!("the answer to {id}"), 1)
}

fn frame(id: MessageId, manner: Manner) -> Bytes {
    let outcome = match manner {
        Manner::Whole => outcome(id),
        Manner::Large => Outcome { content: None, ..outcome(id) },
        Manner::Unreadable => return Bytes::from_static(b"{}"),
    };
    let frame = Frame { id, attempt: Attempt::default(), n: 0, body: FrameBody::Terminal { outcome } };
    serde_json::to_vec(&frame).expect("JSON").into()
}

/// Plays `case`, and gives what each caller was told.
async fn play(case: Case) -> (Vec<MessageId>, Vec<Told>) {
    let began = Instant::now();
    let ids: Vec<_> = case.calls.iter().map(|_| MessageId::new()).collect();
    let stored = case.calls.iter().zip(&ids).filter_map(|(call, id)| {
        let at = call.begins + call.end.as_ref()?.stored_after;
        Some((Duration::from_millis(at), *id, outcome(*id)))
    });
    let contents = Contents { began, ends: stored.collect(), outages: case.outages.clone() };
    let stored = StoredEnds::new(Shelf(Arc::new(contents)));
    let (waiters, lifecycle) = (Arc::<Waiters>::default(), Lifecycle::new());
    let ends = Ends::new(stored.clone());
    let (link, links) = watch::channel(Link { up: true, epoch: 1, closed: false });
    let look = look_after_waiters(stored, waiters.clone(), links, lifecycle.clone());
    let site = Site { case, ids, began, waiters, ends, lifecycle, waiting: Cell::new(0) };
    let calls = join_all((0..site.ids.len()).map(|place| site.call(place)));
    let (told, (), (), ()) = tokio::join!(calls, site.replies(), site.links(link), async {
        tokio::select! { () = look => {}, () = site.until(LONG) => {} }
    });
    assert!(site.waiters.is_empty(), "{} are left", site.waiters.len());
    assert_eq!(site.waiters.waiting_since(Instant::now()), []);
    (site.ids, told)
}

/// What `call` may have been told.
fn judge(case: &Case, call: &Call, id: MessageId, told: &Told) {
    let deadline = call.begins + call.patience;
    let aborts = case.aborts.map(|at| at.max(call.begins + call.publish));
    let stored = call.end.as_ref().map(|end| call.begins + end.stored_after);
    match told {
        Told::Gone => assert!(call.hangs_up_after.is_some()),
        Told::Refused => assert!(call.is_refused),
        Told::Answer(content, at) => {
            assert_eq!(content, &format!("the answer to {id}"), "somebody else's");
            assert!(stored.is_some_and(|stored| stored <= *at), "before its end");
            assert!(*at <= deadline + LAST_LOOK + STEP, "at {at} of {deadline}");
        }
        Told::Timeout(at) => {
            assert!(*at <= deadline + LAST_LOOK + STEP, "at {at} of {deadline}");
            let was_aborted = aborts.is_some_and(|aborts| aborts <= *at);
            assert!(was_aborted || *at >= deadline, "at {at} of {deadline}");
            let was_there = stored.is_some_and(|stored| stored < deadline);
            let could_be_read = case.store_answers(deadline.saturating_sub(LOOK_EVERY), deadline + LAST_LOOK + STEP);
            assert!(was_aborted || !was_there || !could_be_read, "the store had it at {stored:?}, and answered");
        }
    }
    if let Some(by) = latest(case, call).filter(|by| *by < deadline && aborts.is_none_or(|aborts| *by + STEP < aborts))
    {
        let in_time =
            matches!(told, Told::Gone | Told::Refused) || matches!(told, Told::Answer(_, at) if *at <= by + STEP);
        assert!(in_time, "it was to be told by {by}");
    }
}

/// When it is told its end at the latest, where that is certain: with its first reply if that is whole, or when the
/// store is looked into.
fn latest(case: &Case, call: &Call) -> Option<u64> {
    let end = call.end.as_ref()?;
    let stored = call.begins + end.stored_after;
    let ready = call.begins + call.publish;
    let first = end.replies.iter().min_by_key(|(after, _)| *after);
    let told = first.filter(|(_, manner)| *manner == Manner::Whole).map(|(after, _)| (stored + after).max(ready));
    let is_alone = end.replies.iter().all(|(_, manner)| *manner == Manner::Whole);
    let sought = (is_alone && case.store_answers(0, LONG)).then(|| {
        let look = stored.max(call.begins + LOOK_EVERY) + LOOK_EVERY;
        let reconnect = case.reconnects.iter().copied().find(|at| *at > stored.max(call.begins));
        reconnect.map_or(look, |at| at.min(look)).max(ready)
    });
    [told, sought].into_iter().flatten().min()
}

#[test]
fn each_caller_has_one_outcome_of_its_own_in_time() {
    check(file!(), "waiter registry", 3_000, case(), |case| {
        let (ids, told) = on_paused_clock(play(case.clone()));
        for ((call, id), told) in case.calls.iter().zip(ids).zip(&told) {
            judge(&case, call, id, told);
        }
    });
}
