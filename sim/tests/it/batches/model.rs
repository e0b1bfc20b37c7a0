//! What a batch is to be, told apart from how it is stored.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{
    domain::{
        batch::{Batch, BatchStatus},
        ids::{AccountId, BatchId, GatewayId, KeyId},
        job::Job,
        message::MessageStatus,
        time::Millis,
    },
    store::{
        batches::{NewBatch, Opened},
        connection::Store,
        messages::{Committed, Finish, Start, StartedJob},
    },
};

use super::{
    Form,
    acts::{Act, End},
};
use crate::{
    ends::{completed, without_answer},
    jobs,
};

/// What each run uses.
const TOKENS: i64 = 3 + 4;
/// How long a gateway keeps a batch for which it says nothing.
pub(super) const LEASE: Duration = Duration::from_secs(20);

/// The truth about one batch.
pub struct Model {
    pub(super) store: Store,
    account: AccountId,
    pub(super) form: Form,
    pub(super) new: NewBatch,
    pub(super) jobs: Vec<Arc<Job>>,
    pub(super) now: Millis,
    pub(super) owner: GatewayId,
    pub(super) leased_until: Millis,
    pub(super) status: BatchStatus,
    /// How each line ended that has, in the order in which that was stored.
    ended: Vec<(usize, MessageStatus)>,
    /// Which are charged.
    pub(super) charged: BTreeMap<usize, ()>,
    /// How many had ended when it was stopped, by status; they count no more.
    pub(super) counts: [u32; 3],
}

impl Model {
    /// A batch that is being put on the queue.
    pub async fn open(store: &Store, account: AccountId, form: Form) -> Self {
        let now = Millis::now();
        let id = BatchId::new();
        let jobs = (1..=form.lines).map(|line| jobs::line(account, id, line, form.price)).collect();
        let new = NewBatch {
            id,
            account,
            key: KeyId::new(),
            total: form.lines,
            skipped: 0,
            slot: 7,
            keyed: form.keyed,
            retry_of: None,
            notifies: form.notifies,
            created_at: now,
        };
        let (owner, leased_until) = (GatewayId::new(), now.plus(LEASE));
        let opened = store.open_batch(&new, owner, leased_until, u64::MAX).await.expect("an answer");
        assert!(matches!(opened, Opened::New(_)));
        Self {
            store: store.clone(),
            account,
            form,
            new,
            jobs,
            now,
            owner,
            leased_until,
            status: BatchStatus::Enqueuing,
            ended: Vec::new(),
            charged: BTreeMap::new(),
            counts: [0; 3],
        }
    }

    /// Lets `act` happen, and looks at what is said to it.
    pub async fn act(&mut self, act: Act) {
        match act {
            Act::Finish(ends) => self.finish(&ends).await,
            Act::Start(line) => {
                let job = self.jobs[self.place(line)].clone();
                let started = StartedJob { job, started_at: self.now, attempts: 1 };
                self.store.mark_started(&[started]).await.expect("its row");
            }
            Act::Start2(line) => {
                let place = self.place(line);
                let start = self.store.count_start(&self.jobs[place]).await.expect("an answer");
                assert_eq!(matches!(start, Start::Ended(_)), self.end_of(place).is_some());
            }
            Act::Charge(line) => self.charge(self.place(line)).await,
            Act::Cancel => self.cancel().await,
            Act::Enqueued => self.enqueued().await,
            Act::Renew => self.renew(LEASE).await,
            Act::Release => self.renew(Duration::ZERO).await,
            Act::TakeOver => self.take_over().await,
            Act::OpenAgain => {
                let again = self.store.open_batch(&self.new, GatewayId::new(), self.now, 0).await.expect("an answer");
                assert!(matches!(again, Opened::Known(batch) if batch.id == self.new.id));
            }
            Act::Abandon(seconds) => self.abandon(Duration::from_secs(seconds)).await,
        }
    }

    /// The store says the same.
    pub async fn agrees(&self) {
        let batch = self.look().await;
        let counts = batch.counts;
        assert_eq!(batch.status, self.status);
        assert_eq!([counts.completed, counts.failed, counts.cancelled], self.counts);
        assert!(self.counts.iter().sum::<u32>() <= counts.total && counts.total == self.form.lines);
        assert_eq!(batch.completed_at.is_some(), batch.status.is_terminal());
        let results = self.store.batch_results(self.new.id, 0, None, 99).await.expect("the results");
        let results: Vec<_> = results.iter().map(|it| (it.seq, it.line, it.message.status)).collect();
        let ended = self.ended.iter().zip(1_u64..);
        let wanted: Vec<_> = ended.map(|((place, status), seq)| (seq, *place as u32 + 1, *status)).collect();
        assert_eq!(results, wanted, "each that has ended has one place");
        let price = self.form.price * TOKENS * i64::try_from(self.charged.len()).expect("few");
        assert_eq!(self.store.balance(self.account).await.expect("a balance"), -price);
    }

    /// The batch as it is stored.
    pub async fn look(&self) -> Batch {
        self.store.batch(self.new.id).await.expect("an answer").expect("the batch")
    }

    /// All that is left ends, and its gateway notices.
    pub async fn end_all(&mut self) {
        let lines: Vec<_> = (0..self.form.lines).map(|line| (line, End::Completed)).collect();
        self.finish(&lines).await;
        self.enqueued().await;
    }

    /// What was not answered makes up a new batch, whose ends change nothing of this one.
    pub async fn retry_what_was_not_answered(&mut self) {
        let lines = self.store.retryable_lines(self.new.id, 0, 99).await.expect("lines");
        let mut wanted: Vec<_> = self.ended.iter().filter(|(_, status)| *status != MessageStatus::Completed).collect();
        wanted.sort_unstable_by_key(|(place, _)| *place);
        let wanted: Vec<_> = wanted.into_iter().map(|(place, _)| *place as u32 + 1).collect();
        assert_eq!(lines.iter().map(|line| line.line).collect::<Vec<_>>(), wanted);
        assert_eq!(self.store.count_retryable(self.new.id).await.expect("a count") as usize, wanted.len());
        if wanted.is_empty() {
            return;
        }
        let form = Form { lines: wanted.len() as u32, price: 0, notifies: false, keyed: false };
        let before = self.look().await;
        let mut again = Self::open(&self.store, self.account, form).await;
        again.end_all().await;
        let batch = again.look().await;
        assert_eq!((batch.status, batch.counts.completed), (BatchStatus::Completed, form.lines));
        assert_eq!(self.look().await, before);
    }

    fn place(&self, line: u32) -> usize {
        (line % self.form.lines) as usize
    }

    pub(super) fn end_of(&self, place: usize) -> Option<MessageStatus> {
        self.ended.iter().find(|(of, _)| *of == place).map(|(_, status)| *status)
    }

    async fn finish(&mut self, ends: &[(u32, End)]) {
        let mut group = BTreeMap::new();
        for (line, end) in ends {
            group.entry(self.place(*line)).or_insert(*end);
        }
        let finishes: Vec<_> = group.iter().map(|(place, end)| self.ending(*place, *end)).collect();
        let committed = self.store.finish(&finishes).await.expect("to finish");
        for ((place, end), committed) in group.into_iter().zip(committed) {
            let given = status_of(end);
            if let Some(before) = self.end_of(place) {
                assert!(
                    matches!(committed, Committed::Lost(outcome) if outcome.status == before),
                    "the first end stays"
                );
                continue;
            }
            let status = if self.status.is_stopped() { MessageStatus::Cancelled } else { given };
            assert_eq!(matches!(committed, Committed::Won { .. }), status == given);
            self.note(place, status);
        }
    }

    fn ending(&self, place: usize, end: End) -> Finish {
        let outcome = match end {
            End::Completed => completed(&format!("answer {place}"), 1),
            end => without_answer(status_of(end), 1),
        };
        jobs::finish(&self.jobs[place], outcome)
    }

    fn note(&mut self, place: usize, status: MessageStatus) {
        self.ended.push((place, status));
        if status != MessageStatus::Cancelled {
            self.charged.insert(place, ());
        }
        if self.status.is_stopped() {
            return;
        }
        let column = match status {
            MessageStatus::Completed => 0,
            MessageStatus::Cancelled => 2,
            _ => 1,
        };
        self.counts[column] += 1;
        if self.status == BatchStatus::InProgress && self.counts.iter().sum::<u32>() == self.form.lines {
            self.status = BatchStatus::Completed;
        }
    }
}

fn status_of(end: End) -> MessageStatus {
    match end {
        End::Completed => MessageStatus::Completed,
        End::Failed => MessageStatus::Failed,
        End::Expired => MessageStatus::Expired,
        End::Cancelled => MessageStatus::Cancelled,
    }
}
