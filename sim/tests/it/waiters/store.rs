//! The store of a case: it knows each end from a moment on, and fails or freezes now and then.

use std::{sync::Arc, time::Duration};

use common::{
    domain::{ids::MessageId, reply::Outcome},
    store::error::StoreError,
};
use gateway::stored_ends::HasEnds;
use tokio::time::{Instant, sleep, sleep_until};

use super::case::Outage;

/// How long the real one waits for a database that does not answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Cheap to clone.
#[derive(Clone)]
pub struct Shelf(pub Arc<Contents>);

/// What is on it.
pub struct Contents {
    pub began: Instant,
    /// Each end, and from which moment on it is there.
    pub ends: Vec<(Duration, MessageId, Outcome)>,
    pub outages: Vec<Outage>,
}

impl HasEnds for Shelf {
    async fn outcomes(&self, ids: &[MessageId]) -> Result<Vec<(MessageId, Outcome)>, StoreError> {
        let Contents { began, ends, outages } = &*self.0;
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let unavailable = || StoreError::Unavailable("an outage".to_owned());
        for outage in outages.iter().filter(|outage| (outage.from..outage.until).contains(&now)) {
            if !outage.is_frozen {
                return Err(unavailable());
            }
            tokio::select! {
                () = sleep_until(*began + Duration::from_millis(outage.until)) => {}
                () = sleep(PATIENCE) => return Err(unavailable()),
            }
        }
        let elapsed = began.elapsed();
        let there = ends.iter().filter(|(from, id, _)| *from <= elapsed && ids.contains(id));
        Ok(there.map(|(_, id, outcome)| (*id, outcome.clone())).collect())
    }
}
