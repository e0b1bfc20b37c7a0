//! Who waits for which job on this gateway: registered before the publish, removed when the request is dropped.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use common::{
    domain::{ids::MessageId, reply::Outcome},
    sabotage::{self, Bug},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Registrations are spread over this many locks.
const SHARDS: usize = 16;
/// Frames that may wait for one streaming request; a reader that falls further behind is cut off.
const STREAM_BACKLOG: usize = 1024;

/// What a waiter is woken by.
#[derive(Debug)]
pub enum Wake {
    /// A frame, still encoded.
    Frame(Bytes),
    /// The end as it was found in the store.
    Stored(Box<Outcome>),
}

enum Slot {
    Call(oneshot::Sender<Wake>),
    Stream(mpsc::Sender<Wake>),
}

struct Entry {
    slot: Slot,
    since: Instant,
}

/// All waiters of this gateway.
#[derive(Default)]
pub struct Waiters {
    shards: [Mutex<HashMap<MessageId, Entry>>; SHARDS],
    count: AtomicUsize,
}

impl Waiters {
    /// Registers a request that waits for the end of `id` alone.
    pub fn call(self: &Arc<Self>, id: MessageId) -> CallWaiter {
        let (tx, rx) = oneshot::channel();
        CallWaiter { _registration: self.register(id, Slot::Call(tx)), rx }
    }

    /// Registers a request that wants every frame of `id`.
    pub fn stream(self: &Arc<Self>, id: MessageId) -> StreamWaiter {
        let (tx, rx) = mpsc::channel(STREAM_BACKLOG);
        StreamWaiter { _registration: self.register(id, Slot::Stream(tx)), rx }
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes whoever waits for `id`. Never blocks: a streaming request that does not keep up is dropped.
    pub fn wake(&self, id: MessageId, wake: Wake) {
        let mut shard = self.shard(id);
        let kept_up = match shard.get(&id).map(|entry| &entry.slot) {
            None => return,
            Some(Slot::Stream(tx)) => tx.try_send(wake).is_ok(),
            Some(Slot::Call(_)) => {
                if let Some(Entry { slot: Slot::Call(tx), .. }) = self.take(&mut shard, id) {
                    let _ = tx.send(wake);
                }
                return;
            }
        };
        if !kept_up {
            self.take(&mut shard, id);
        }
    }

    /// Those who have been waiting since `before` or longer.
    pub fn waiting_since(&self, before: Instant) -> Vec<MessageId> {
        let mut ids = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            ids.extend(shard.iter().filter(|(_, entry)| entry.since <= before).map(|(id, _)| *id));
        }
        ids
    }

    fn register(self: &Arc<Self>, id: MessageId, slot: Slot) -> Registration {
        self.shard(id).insert(id, Entry { slot, since: Instant::now() });
        self.count.fetch_add(1, Ordering::Relaxed);
        Registration { waiters: self.clone(), id }
    }

    fn take(&self, shard: &mut HashMap<MessageId, Entry>, id: MessageId) -> Option<Entry> {
        let entry = shard.remove(&id);
        if entry.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        entry
    }

    fn shard(&self, id: MessageId) -> std::sync::MutexGuard<'_, HashMap<MessageId, Entry>> {
        // The last bytes of a UUIDv7 are random.
        let shard = usize::from(id.0.as_bytes()[15]) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a registration when its request is gone.
struct Registration {
    waiters: Arc<Waiters>,
    id: MessageId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut shard = self.waiters.shard(self.id);
        self.waiters.take(&mut shard, self.id);
        drop(shard);
        if sabotage::has(Bug::LeakedWaiter) {
            // Under an id that nobody answers: the end of its job would find it.
            std::mem::forget(self.waiters.register(MessageId::new(), Slot::Call(oneshot::channel().0)));
        }
    }
}

/// A request that waits for the end of its job.
pub struct CallWaiter {
    _registration: Registration,
    rx: oneshot::Receiver<Wake>,
}

impl CallWaiter {
    /// Waits for the end. To be awaited once.
    pub async fn wait(&mut self) -> Wake {
        match (&mut self.rx).await {
            Ok(wake) => wake,
            // Woken before; there is nothing more to come.
            Err(_) => std::future::pending().await,
        }
    }

    /// The end, when it is there already.
    pub fn take_now(&mut self) -> Option<Wake> {
        self.rx.try_recv().ok()
    }
}

/// A request that receives the frames of its job.
pub struct StreamWaiter {
    _registration: Registration,
    rx: mpsc::Receiver<Wake>,
}

impl StreamWaiter {
    /// The next frame; `None` when this request fell too far behind.
    pub async fn next(&mut self) -> Option<Wake> {
        self.rx.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> Wake {
        Wake::Frame(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_its_own_job_only() {
        let waiters = Arc::new(Waiters::default());
        let (one, other) = (MessageId::new(), MessageId::new());
        let mut first = waiters.call(one);
        let mut second = waiters.call(other);
        waiters.wake(one, frame("for the first"));
        assert!(matches!(first.wait().await, Wake::Frame(bytes) if bytes == "for the first"));
        assert!(second.take_now().is_none());
        assert_eq!(waiters.len(), 1);
    }

    #[tokio::test]
    async fn a_dropped_request_leaves_nothing_behind() {
        let waiters = Arc::new(Waiters::default());
        let id = MessageId::new();
        drop(waiters.call(id));
        drop(waiters.stream(id));
        assert!(waiters.is_empty());
        waiters.wake(id, frame("nobody waits"));
        assert!(waiters.waiting_since(Instant::now()).is_empty());
    }

    #[tokio::test]
    async fn a_stream_that_falls_behind_is_cut_off_after_what_it_has() {
        let waiters = Arc::new(Waiters::default());
        let id = MessageId::new();
        let mut slow = waiters.stream(id);
        for _ in 0..=STREAM_BACKLOG {
            waiters.wake(id, frame("piece"));
        }
        let mut received = 0;
        while slow.next().await.is_some() {
            received += 1;
        }
        assert_eq!((received, waiters.len()), (STREAM_BACKLOG, 0));
    }
}
