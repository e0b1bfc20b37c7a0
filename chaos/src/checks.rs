//! What must hold after every row, on sets: what callers were told, against what is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ::tests::sink::Received;

use crate::{
    calls::{Call, Manner},
    site::{DEADLINE, Footprint},
    store::{Store, plain},
};

/// A request may end this much after the deadline.
const LATE: Duration = Duration::from_secs(2);
/// However busy the machine is, this is no delay.
const HUNG: Duration = Duration::from_secs(30);
/// The body of a batch has no deadline: it is answered when its last line is on the queue, and one whose gateway died is
/// taken up by another when its lease of 20 s is over.
const ENQUEUED: Duration = Duration::from_secs(60);
/// What a process may have opened since the beginning, beside connections that are kept for the next call: one for each
/// caller, or to the model for each slot.
const FILES: usize = 24;
const SLOTS: usize = 64;
/// By how much its memory may have grown, in KiB.
const MEMORY: u64 = 64 * 1024;
/// The statuses that the contract allows when parts of the product are down.
const ALLOWED: [u16; 7] = [200, 202, 409, 429, 502, 503, 504];

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The run met its fault, and most calls succeeded.
    Valid,
    /// What was accepted has ended in the store.
    Lost,
    /// What is in the store was attempted.
    Phantom,
    /// One result, one charge, of the tokens of that result.
    Twice,
    /// Every request ended in time, and nobody waits any more.
    Wait,
    /// Everybody got the answer to what was asked.
    Right,
    /// Every status is one that the contract allows.
    Code,
    /// The same key gave the same id.
    Retry,
    /// It came back without help.
    Back,
    /// Nothing is held that was not before.
    Leak,
    /// The counts agree.
    Truth,
}

impl Check {
    /// As it stands in the ledger.
    pub fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }
}

/// All rules, in the order of the ledger.
pub const CHECKS: [Check; 11] = [
    Check::Valid,
    Check::Lost,
    Check::Phantom,
    Check::Twice,
    Check::Wait,
    Check::Right,
    Check::Code,
    Check::Retry,
    Check::Back,
    Check::Leak,
    Check::Truth,
];

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The rule.
    pub check: Check,
    /// What was found.
    pub found: String,
    /// A time: a busy machine breaks it, so that it decides in the full run alone.
    pub is_time: bool,
}

impl Fault {
    fn of(check: Check, found: impl Into<String>) -> Self {
        Self { check, found: found.into(), is_time: false }
    }
}

/// What a row left behind.
pub struct Evidence<'a> {
    /// The log of the callers.
    pub calls: &'a [Call],
    /// What is stored.
    pub store: &'a Store,
    /// What the receiver of webhooks got.
    pub received: &'a [Received],
    /// Faults that happened, by what they are called, with how many are needed.
    pub met: &'a [(String, u64, u64)],
    /// Held before and after, by the processes that live.
    pub footprints: [&'a Footprint; 2],
    /// How many callers there were at once.
    pub at_once: usize,
    /// Who waits at the end.
    pub waiters: f64,
    /// How long a request may take, but for the body of a batch.
    pub limit: Duration,
    /// How long the first request after the fault took to succeed, without end if none did, and how long it may.
    pub back: (Duration, Duration),
}

/// All that is wrong.
pub fn faults(evidence: &Evidence<'_>) -> Vec<Fault> {
    let checks = [valid, lost, phantom, twice, wait, right, code, retry, back, leak, truth];
    checks.iter().flat_map(|check| check(evidence)).collect()
}

fn valid(evidence: &Evidence<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (what, met, wanted) in evidence.met {
        if met < wanted {
            faults.push(Fault::of(Check::Valid, format!("{met} {what}, not {wanted}")));
        }
    }
    let done = evidence.calls.iter().filter(|call| call.done).count();
    if done * 2 <= evidence.calls.len() {
        faults.push(Fault::of(Check::Valid, format!("{done} of {} calls succeeded", evidence.calls.len())));
    }
    faults
}

fn lost(evidence: &Evidence<'_>) -> Vec<Fault> {
    let ended = evidence.store.ended();
    let mut lost = BTreeSet::new();
    for call in evidence.calls.iter().filter(|call| call.accepted) {
        if call.manner != Manner::Batch {
            lost.extend(call.ids.iter().filter(|id| !ended.contains(plain(id).as_str())).cloned());
            continue;
        }
        let of_batch = |id: &str| call.ids.iter().any(|batch| plain(batch) == id);
        let lines = evidence.store.messages.values().filter(|line| line.batch.as_deref().is_some_and(of_batch));
        let stored = lines.filter(|line| line.has_ended()).count();
        if stored < call.answers.len() {
            lost.insert(format!("{} lines of {}", call.answers.len() - stored, call.key));
        }
    }
    list(Check::Lost, "accepted, and without an end", lost)
}

fn phantom(evidence: &Evidence<'_>) -> Vec<Fault> {
    let attempted: BTreeSet<&str> =
        evidence.calls.iter().flat_map(|call| call.answers.keys()).map(String::as_str).collect();
    let is_known = |prompt: &str| nonce_in(prompt).is_some_and(|nonce| attempted.contains(nonce));
    let unknown = evidence.store.messages.values().filter(|message| !is_known(&message.prompt));
    let mut faults = list(Check::Phantom, "stored, and attempted by nobody", unknown.map(|message| message.id.clone()));
    // With a key it may have come in with an earlier request.
    let refused = evidence.calls.iter().filter(|call| call.manner == Manner::Unkeyed && call.refused);
    let kept = refused.flat_map(|call| &call.ids).filter(|id| evidence.store.messages.contains_key(&plain(id)));
    faults.extend(list(Check::Phantom, "refused, and stored", kept.cloned()));
    faults
}

fn twice(evidence: &Evidence<'_>) -> Vec<Fault> {
    let mut by_nonce: BTreeMap<&str, usize> = BTreeMap::new();
    let messages = evidence.store.messages.values();
    messages.filter_map(|message| nonce_in(&message.prompt)).for_each(|nonce| {
        *by_nonce.entry(nonce).or_default() += 1;
    });
    let doubled = by_nonce.into_iter().filter(|(_, messages)| *messages > 1).map(|(nonce, _)| nonce.to_owned());
    let mut faults = list(Check::Twice, "stored as more than one message", doubled);
    let completed = evidence.store.messages.values().filter(|message| message.status == "completed");
    let misbilled = completed.filter(|message| {
        let charges = evidence.store.charges.get(&message.id).map(Vec::as_slice);
        charges != Some(&[message.tokens])
    });
    faults.extend(list(Check::Twice, "not billed once for its tokens", misbilled.map(|message| message.id.clone())));
    let mut seen = BTreeSet::new();
    let noted = evidence.store.results.iter().filter(|line| !seen.insert(line.as_str()));
    faults.extend(list(Check::Twice, "twice in the results of its batch", noted.cloned()));
    faults.extend(list(Check::Twice, "told of under two ids", told_twice(evidence.received)));
    faults
}

/// Messages of which a receiver heard under more than one id of a delivery: it could not know that it is the same.
fn told_twice(received: &[Received]) -> Vec<String> {
    let mut deliveries: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for request in received {
        let message = request.json()["data"]["message_id"].as_str().unwrap_or_default().to_owned();
        deliveries.entry(message).or_default().extend(request.header("webhook-id"));
    }
    deliveries.into_iter().filter(|(_, ids)| ids.len() > 1).map(|(message, _)| message).collect()
}

fn wait(evidence: &Evidence<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    if evidence.waiters != 0.0 {
        faults.push(Fault::of(Check::Wait, format!("{} still wait", evidence.waiters)));
    }
    let asks = evidence.calls.iter().flat_map(|call| call.asks.iter().map(move |ask| (call, ask)));
    let hung = asks.clone().filter(|(_, ask)| ask.took > DEADLINE + HUNG && ask.route != "POST /api/v1/batches");
    faults.extend(list(Check::Wait, "never ended", hung.map(|(call, ask)| format!("{} of {}", ask.route, call.key))));
    let limit = |route| if route == "POST /api/v1/batches" { ENQUEUED } else { evidence.limit + LATE };
    let late = asks.filter(|(_, ask)| ask.took > limit(ask.route));
    let late = late.map(|(call, ask)| format!("{} of {} after {:?}", ask.route, call.key, ask.took));
    faults.extend(list(Check::Wait, "ended too late", late).into_iter().map(|fault| Fault { is_time: true, ..fault }));
    faults
}

fn right(evidence: &Evidence<'_>) -> Vec<Fault> {
    let answers = evidence.calls.iter().flat_map(|call| &call.answers);
    let answers: Vec<_> = answers.filter_map(|(nonce, answer)| Some((nonce.as_str(), answer.as_deref()?))).collect();
    let told = |(nonce, answer): &(&str, &str)| format!("{nonce}: {answer:?}");
    let wrong = answers.iter().filter(|(nonce, answer)| !answer.ends_with(nonce));
    let mut faults = list(Check::Right, "answered otherwise", wrong.map(told));
    let messages = evidence.store.messages.values();
    let stored: BTreeMap<&str, &str> =
        messages.filter_map(|message| Some((nonce_in(&message.prompt)?, message.content.as_str()))).collect();
    // No two answers of the model are alike.
    let unlike = answers.iter().filter(|(nonce, answer)| stored.get(nonce).is_some_and(|stored| stored != answer));
    faults.extend(list(Check::Right, "answered, and stored with another answer", unlike.map(told)));
    let told: BTreeMap<String, String> = evidence
        .received
        .iter()
        .map(|request| request.json()["data"].clone())
        .filter_map(|data| Some((data["message_id"].as_str()?.to_owned(), data["content"].as_str()?.to_owned())))
        .collect();
    let webhooks = evidence.calls.iter().filter(|call| call.manner == Manner::Webhook && call.done && call.is_told);
    let untold = webhooks.filter(|call| {
        let told = call.ids.first().and_then(|id| told.get(id));
        let nonce = call.answers.keys().next();
        !told.zip(nonce).is_some_and(|(told, nonce)| told.ends_with(nonce))
    });
    faults.extend(list(Check::Right, "not told to the receiver", untold.map(|call| call.key.clone())));
    faults
}

fn code(evidence: &Evidence<'_>) -> Vec<Fault> {
    let asks = evidence.calls.iter().flat_map(|call| call.asks.iter().map(move |ask| (call, ask)));
    let wrong = asks.filter(|(_, ask)| ask.status.is_some_and(|status| !ALLOWED.contains(&status)));
    let wrong = wrong.map(|(call, ask)| format!("{} of {}: {:?} {:?}", ask.route, call.key, ask.status, ask.code));
    list(Check::Code, "not in the contract", wrong)
}

fn retry(evidence: &Evidence<'_>) -> Vec<Fault> {
    let changed = evidence.calls.iter().filter(|call| call.ids.len() > 1);
    list(Check::Retry, "more than one id", changed.map(|call| format!("{}: {:?}", call.key, call.ids)))
}

fn back(evidence: &Evidence<'_>) -> Vec<Fault> {
    let (took, limit) = evidence.back;
    if took == Duration::MAX {
        return vec![Fault::of(Check::Back, "no request after the fault succeeded")];
    }
    let found = format!("the first request after the fault took {took:.1?} to succeed, not {limit:?}");
    if took > limit { vec![Fault { is_time: true, ..Fault::of(Check::Back, found) }] } else { Vec::new() }
}

fn leak(evidence: &Evidence<'_>) -> Vec<Fault> {
    leaks(evidence.footprints, evidence.at_once)
}

/// What is held after a row with so many callers at once that was not before.
pub fn leaks([before, after]: [&Footprint; 2], at_once: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (process, files) in &after.files {
        let earlier = before.files.get(process).copied();
        if earlier.is_some_and(|earlier| *files > earlier + FILES + at_once.max(SLOTS)) {
            faults.push(Fault::of(Check::Leak, format!("process {process} has {files} files open, was {earlier:?}")));
        }
    }
    for (process, memory) in &after.memory {
        let earlier = before.memory.get(process).copied();
        if earlier.is_some_and(|earlier| *memory > earlier + MEMORY) {
            faults.push(Fault::of(Check::Leak, format!("process {process} has {memory} KiB, was {earlier:?}")));
        }
    }
    for (what, earlier, now) in
        [("subscriptions", before.subscriptions, after.subscriptions), ("consumers", before.consumers, after.consumers)]
    {
        if earlier != now {
            faults.push(Fault::of(Check::Leak, format!("{now} {what}, were {earlier}")));
        }
    }
    faults
}

fn truth(evidence: &Evidence<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (ended, all) = (evidence.store.ended().len(), evidence.store.messages.len());
    if ended != all {
        faults.push(Fault::of(Check::Truth, format!("{ended} of {all} stored messages have ended")));
    }
    let miscounted = evidence.store.batches.iter().filter(|(id, (total, counted))| {
        let lines = evidence.store.messages.values().filter(|line| line.batch.as_ref() == Some(id)).count() as u64;
        *total != *counted || *counted != lines
    });
    faults.extend(list(Check::Truth, "counted otherwise than stored", miscounted.map(|(id, _)| id.clone())));
    let answered = evidence.calls.iter().filter(|call| call.done && call.manner != Manner::Batch);
    let end =
        |id: &String| evidence.store.messages.get(&plain(id)).map_or("unknown", |message| message.status.as_str());
    let otherwise = answered.filter(|call| call.ids.iter().any(|id| end(id) != "completed"));
    let otherwise = otherwise.map(|call| {
        let ends: Vec<_> = call.ids.iter().map(end).collect();
        format!("{} ({}): {}", call.key, call.manner, ends.join(", "))
    });
    faults.extend(list(Check::Truth, "answered, and stored otherwise", otherwise));
    faults
}

/// One fault with the first few of `things`, unless there are none.
fn list(check: Check, what: &str, things: impl IntoIterator<Item = String>) -> Vec<Fault> {
    let things: Vec<_> = things.into_iter().collect();
    if things.is_empty() {
        return Vec::new();
    }
    let some: Vec<_> = things.iter().take(3).cloned().collect();
    vec![Fault::of(check, format!("{} {what}: {}", things.len(), some.join(", ")))]
}

/// The nonce in a stored prompt: it ends with a full stop.
pub fn nonce_in(prompt: &str) -> Option<&str> {
    let from = prompt.find("nonce-")?;
    let length = prompt[from..].find('.')?;
    Some(&prompt[from..=from + length])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{calls::Ask, store::Message};

    const ID: &str = "01a2265c-7d04-7380-b892-a40efc607240";

    /// What a row leaves that went well: a call that was answered, and its message.
    struct Row {
        calls: Vec<Call>,
        store: Store,
        received: Vec<Received>,
        met: Vec<(String, u64, u64)>,
        footprints: [Footprint; 2],
        waiters: f64,
        back: Duration,
    }

    impl Row {
        fn good() -> Self {
            let mut call = Call::new(Manner::Sync, "nonce-1".to_owned(), ["nonce-1.".to_owned()]);
            call.named(ID);
            call.answers.insert("nonce-1.".to_owned(), Some("nonce-1.".to_owned()));
            (call.accepted, call.done) = (true, true);
            call.asks.push(ask(Some(200), Duration::from_secs(1)));
            let message = message(ID, "nonce-1.");
            let charges = BTreeMap::from([(message.id.clone(), vec![message.tokens])]);
            let messages = BTreeMap::from([(message.id.clone(), message)]);
            let footprint = Footprint { files: BTreeMap::from([(7, 30)]), subscriptions: 5, ..Footprint::default() };
            Self {
                calls: vec![call],
                store: Store { messages, charges, batches: BTreeMap::new(), results: Vec::new() },
                received: Vec::new(),
                met: vec![("deaths".to_owned(), 2, 2)],
                footprints: [footprint.clone(), footprint],
                waiters: 0.0,
                back: Duration::from_secs(1),
            }
        }

        fn message(&mut self) -> &mut Message {
            self.store.messages.get_mut(&plain(ID)).expect("its message")
        }

        /// The rules that are broken.
        fn broken(&self) -> Vec<Check> {
            let [before, after] = &self.footprints;
            let evidence = Evidence {
                calls: &self.calls,
                store: &self.store,
                received: &self.received,
                met: &self.met,
                footprints: [before, after],
                at_once: 1,
                limit: DEADLINE,
                waiters: self.waiters,
                back: (self.back, Duration::from_secs(5)),
            };
            let mut broken: Vec<_> = faults(&evidence).into_iter().map(|fault| fault.check).collect();
            broken.dedup();
            broken
        }
    }

    fn ask(status: Option<u16>, took: Duration) -> Ask {
        Ask { route: "POST /api/v1/chat", status, code: None, began: Duration::ZERO, took }
    }

    fn message(id: &str, nonce: &str) -> Message {
        Message {
            id: plain(id),
            status: "completed".to_owned(),
            tokens: (7, 3),
            attempts: 1,
            batch: None,
            failure: String::new(),
            content: nonce.to_owned(),
            prompt: format!("[{{\"role\":\"user\",\"content\":\"{nonce}\"}}]"),
        }
    }

    fn told(id: &str) -> Received {
        let body = format!("{{\"data\":{{\"message_id\":\"{ID}\",\"content\":\"nonce-1.\"}}}}");
        Received {
            method: "POST".to_owned(),
            path: "/ended".to_owned(),
            headers: vec![("webhook-id".to_owned(), id.to_owned())],
            body: body.into_bytes(),
            at: Instant::now(),
        }
    }

    /// Breaks one thing.
    type Break = fn(&mut Row);

    #[test]
    fn what_went_well_breaks_no_rule() {
        assert_eq!(Row::good().broken(), []);
    }

    #[test]
    fn each_rule_sees_what_breaks_it() {
        let breaks: [(&[Check], Break); 24] = [
            (&[Check::Valid], |row| row.met[0].1 = 1),
            (&[Check::Valid], |row| row.calls[0].done = false),
            (&[Check::Lost, Check::Truth], |row| row.message().status = "in_progress".to_owned()),
            (&[Check::Lost, Check::Truth], |row| row.store.messages.clear()),
            (&[Check::Lost], |row| {
                row.calls[0].manner = Manner::Batch;
                row.calls[0].answers.insert("nonce-2.".to_owned(), Some("nonce-2.".to_owned()));
                row.message().batch = Some(plain(ID));
            }),
            (&[Check::Phantom], |row| row.message().prompt = "nobody asked".to_owned()),
            (&[Check::Phantom], |row| {
                (row.calls[0].manner, row.calls[0].refused) = (Manner::Unkeyed, true);
            }),
            (&[Check::Twice], |row| {
                let other = message("01a2265c-7d04-7000-8000-05a3610ff74a", "nonce-1.");
                row.store.charges.insert(other.id.clone(), vec![other.tokens]);
                row.store.messages.insert(other.id.clone(), other);
            }),
            (&[Check::Twice], |row| row.store.charges.clear()),
            (&[Check::Twice], |row| row.message().tokens = (7, 4)),
            (&[Check::Twice], |row| row.store.results = vec![plain(ID), plain(ID)]),
            (&[Check::Twice], |row| row.received = vec![told("msg_1"), told("msg_2")]),
            (&[Check::Wait], |row| row.waiters = 1.0),
            (&[Check::Wait], |row| row.calls[0].asks[0].took = Duration::from_secs(13)),
            (&[Check::Wait], |row| row.calls[0].asks[0].took = Duration::from_secs(60)),
            (&[Check::Right], |row| {
                row.calls[0].answers.insert("nonce-1.".to_owned(), Some("nonce-2.".to_owned()));
            }),
            (&[Check::Right], |row| row.message().content = "#2 nonce-1.".to_owned()),
            (&[Check::Right], |row| row.calls[0].manner = Manner::Webhook),
            (&[Check::Code], |row| row.calls[0].asks[0].status = Some(500)),
            (&[Check::Retry, Check::Lost, Check::Truth], |row| {
                row.calls[0].named("01a2265c-7d04-7000-8000-000000000000")
            }),
            (&[Check::Back], |row| row.back = Duration::from_secs(6)),
            (&[Check::Back], |row| row.back = Duration::MAX),
            (&[Check::Leak], |row| row.footprints[1].subscriptions = 6),
            (&[Check::Truth], |row| {
                row.store.batches.insert(plain(ID), (2, 1));
            }),
        ];
        for (number, (rules, break_it)) in breaks.into_iter().enumerate() {
            let mut row = Row::good();
            break_it(&mut row);
            let mut broken = row.broken();
            broken.sort_unstable();
            let mut rules = rules.to_vec();
            rules.sort_unstable();
            assert_eq!(broken, rules, "break {number}");
        }
    }

    #[test]
    fn files_and_memory_may_grow_a_little() {
        let mut row = Row::good();
        row.footprints[1].files.insert(7, 30 + FILES + SLOTS);
        row.footprints[1].files.insert(8, 1_000);
        assert_eq!(row.broken(), [], "a process that was not there before has no earlier count");
        row.footprints[1].files.insert(7, 31 + FILES + SLOTS);
        assert_eq!(row.broken(), [Check::Leak]);
        let mut row = Row::good();
        row.footprints[0].memory.insert(7, 1_000);
        row.footprints[1].memory.insert(7, 1_001 + MEMORY);
        assert_eq!(row.broken(), [Check::Leak]);
    }
}
