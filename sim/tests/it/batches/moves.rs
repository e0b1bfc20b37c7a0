//! What is done to a batch as a whole: charged, stopped, handed from gateway to gateway, given up.

use std::time::Duration;

use common::{
    domain::{
        batch::BatchStatus,
        ids::GatewayId,
        message::{MessageStatus, Usage},
    },
    store::batch_leases::Lease,
};

use super::model::{LEASE, Model};

/// How long a batch that its caller can resume waits for that.
const RESUME: Duration = Duration::from_mins(15);

impl Model {
    pub(super) async fn charge(&mut self, place: usize) {
        let usage = Usage { input_tokens: 3, output_tokens: 4, estimated: false };
        let charges = self.store.charge_cancelled(&self.jobs[place], usage, Some("demo"), self.now).await;
        let is_due = self.end_of(place) == Some(MessageStatus::Cancelled) && !self.charged.contains_key(&place);
        assert_eq!(charges.expect("an answer"), is_due, "what a stopped run used is charged once");
        if is_due {
            self.charged.insert(place, ());
        }
    }

    fn stop(&mut self, status: BatchStatus) {
        self.counts[2] = self.form.lines - self.counts[0] - self.counts[1];
        self.status = status;
    }

    pub(super) async fn cancel(&mut self) {
        let stopped = self.store.cancel_batch(self.new.id, self.now).await.expect("an answer");
        assert_eq!(stopped.is_some(), !self.status.is_terminal());
        match self.status {
            BatchStatus::Enqueuing => self.stop(BatchStatus::Cancelling),
            BatchStatus::InProgress => self.stop(BatchStatus::Cancelled),
            _ => {}
        }
    }

    pub(super) async fn enqueued(&mut self) {
        let batch = self.store.batch_enqueued(self.new.id, self.owner, self.now).await.expect("an answer");
        match self.status {
            BatchStatus::Enqueuing if self.counts.iter().sum::<u32>() == self.form.lines => {
                self.status = BatchStatus::Completed;
            }
            BatchStatus::Enqueuing => self.status = BatchStatus::InProgress,
            BatchStatus::Cancelling => self.status = BatchStatus::Cancelled,
            _ => {}
        }
        assert_eq!(batch.map(|batch| batch.status), Some(self.status));
    }

    pub(super) async fn renew(&mut self, by: Duration) {
        let until = self.now.plus(by);
        let lease = self.store.renew_batch(self.new.id, self.owner, until).await.expect("an answer");
        let wanted = match self.status {
            BatchStatus::Enqueuing => Lease::Held,
            BatchStatus::Cancelling | BatchStatus::Cancelled => Lease::Stopped,
            BatchStatus::InProgress | BatchStatus::Completed => Lease::Lost,
        };
        assert_eq!(lease, wanted);
        if lease == Lease::Held {
            self.leased_until = until;
        }
    }

    pub(super) async fn take_over(&mut self) {
        let (other, until) = (GatewayId::new(), self.now.plus(LEASE));
        let taken = self.store.take_batch_over(self.new.id, other, self.now, until).await.expect("an answer");
        let is_free = self.status == BatchStatus::Enqueuing && self.leased_until <= self.now;
        assert_eq!(taken.is_some(), is_free, "one gateway at a time");
        if is_free {
            let late = self.store.batch_enqueued(self.new.id, self.owner, self.now).await.expect("an answer");
            assert_eq!(late, None, "who has lost it ends it no more");
            (self.owner, self.leased_until) = (other, until);
        }
    }

    pub(super) async fn abandon(&mut self, after: Duration) {
        self.now = self.now.plus(after);
        let abandoned = self.store.abandon_batches(self.now).await.expect("a sweep");
        let is_kept = self.form.keyed && self.status == BatchStatus::Enqueuing;
        let until = if is_kept { self.leased_until.plus(RESUME) } else { self.leased_until };
        let is_open = matches!(self.status, BatchStatus::Enqueuing | BatchStatus::Cancelling);
        let is_due = is_open && until <= self.now;
        assert_eq!(abandoned.contains(&self.new.id), is_due, "{:?}", self.status);
        if is_due {
            self.stop(BatchStatus::Cancelled);
        }
    }
}
