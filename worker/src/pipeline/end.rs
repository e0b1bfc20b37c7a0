//! The end of a job's run: brought to where ends are stored.

use std::{pin::pin, sync::Arc};

use common::{
    domain::{job::Job, reply::Outcome},
    queue::delivery::Delivery,
};
use tokio::time::interval;
use tracing::Span;

use super::Pipeline;
use crate::{
    conclusion::{Rest, STORE_DELAY},
    reply::Gatherer,
};

impl Pipeline {
    /// Brings the end to where it is stored, and gives the slot back; the rest is done there. While there is no place,
    /// the job is kept alive.
    pub(super) async fn finish(&self, mut delivery: Delivery, job: Arc<Job>, outcome: Outcome, gatherer: &Gatherer) {
        // Its first beat is at once: how long ago the run's last one was is not known here.
        let mut beat = interval(self.runner.heartbeat);
        let mut place = pin!(self.finisher.place());
        let place = loop {
            tokio::select! {
                biased;
                place = place.as_mut() => break place,
                _ = beat.tick() => delivery.in_progress().await,
                () = self.conclusion.lifecycle.aborting() => break None,
            }
        };
        delivery.free_slot();
        let rest = Rest { delivery, last: gatherer.last(), span: Span::current() };
        let refused = match place {
            Some(place) => place.leave(job.clone(), outcome, rest).err(),
            None => Some(Box::new(rest)),
        };
        match refused {
            None => {}
            Some(rest) if self.conclusion.lifecycle.is_aborting() => {
                self.conclusion.hand_back(&rest.delivery, &job, None).await;
            }
            Some(rest) => rest.delivery.retry_after(Some(STORE_DELAY)).await,
        }
    }
}
