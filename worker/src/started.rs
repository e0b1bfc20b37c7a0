//! Rows of running jobs, for lists and polls: written behind, in groups; nothing depends on them.

use common::{
    lifecycle::Lifecycle,
    store::{connection::Store, messages::StartedJob},
};
use tokio::sync::mpsc;
use tracing::warn;

const GROUP: usize = 256;

/// Where runs that take a while are noted. Cheap to clone.
#[derive(Clone)]
pub struct StartedRows(mpsc::Sender<StartedJob>);

impl StartedRows {
    /// Starts the one task that writes.
    pub fn start(store: Store, lifecycle: &Lifecycle) -> Self {
        let (tx, mut rx) = mpsc::channel(GROUP * 4);
        lifecycle.spawn(async move {
            let mut group = Vec::with_capacity(GROUP);
            while rx.recv_many(&mut group, GROUP).await > 0 {
                if let Err(error) = store.mark_started(&group).await {
                    warn!(%error, jobs = group.len(), "could not note running jobs");
                }
                group.clear();
            }
        });
        Self(tx)
    }

    /// Notes a running job; forgotten when too many are waiting to be written.
    pub fn note(&self, job: StartedJob) {
        let _ = self.0.try_send(job);
    }
}
