//! What was read from the database lately: the one home of `moka`.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How many values are found at once, before all of them are looked for again.
const RECENT: usize = 4_096;

/// Values by key, absent ones too: a caller who repeats an unknown key costs one query per time to live.
///
/// An entry belongs to the *epoch* in which its load began. [`Cache::flush`] begins a new epoch, so that what was
/// loaded before it, or is still being loaded, is never seen by a later [`Cache::get`].
pub struct Cache<K, V> {
    /// What was asked for lately. A look into `entries` takes several times as long, as it decides what is kept there.
    recent: RwLock<HashMap<K, Loaded<V>>>,
    entries: moka::future::Cache<(u64, K), Loaded<V>>,
    epoch: AtomicU64,
    time_to_live: Duration,
}

/// What a load found.
#[derive(Clone)]
struct Loaded<V> {
    value: Option<V>,
    epoch: u64,
    at: Instant,
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty cache of at most `capacity` entries, each of which is forgotten after `time_to_live`.
    pub fn new(capacity: u64, time_to_live: Duration) -> Self {
        let entries = moka::future::Cache::builder().max_capacity(capacity).time_to_live(time_to_live).build();
        Self { recent: RwLock::default(), entries, epoch: AtomicU64::new(0), time_to_live }
    }

    /// The value of `key`, through `load` when it is not cached. Of many calls for one key at once, one loads.
    /// Errors are not kept; all who waited for the same load get it.
    pub async fn get<E, F>(&self, key: K, load: impl FnOnce() -> F) -> Result<Option<V>, E>
    where
        F: Future<Output = Result<Option<V>, E>>,
        E: Clone + Send + Sync + 'static,
    {
        let epoch = self.epoch.load(Ordering::SeqCst);
        if let Some(value) = self.lately(&key, epoch) {
            return Ok(value);
        }
        let load = async { load().await.map(|value| Loaded { value, epoch, at: Instant::now() }) };
        // Boxed: it is large, and seldom needed. Whoever calls would be as large, for every request that waits.
        let loading = Box::pin(self.entries.try_get_with((epoch, key.clone()), load));
        let loaded = loading.await.map_err(Arc::unwrap_or_clone)?;
        self.remember(key, loaded.clone());
        Ok(loaded.value)
    }

    fn lately(&self, key: &K, epoch: u64) -> Option<Option<V>> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let loaded = recent.get(key).filter(|loaded| loaded.epoch == epoch)?;
        (loaded.at.elapsed() < self.time_to_live).then(|| loaded.value.clone())
    }

    fn remember(&self, key: K, loaded: Loaded<V>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT {
            recent.clear();
        }
        recent.insert(key, loaded);
    }

    /// Forgets everything, also what is being loaded.
    pub fn flush(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries.invalidate_all();
        self.recent.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::atomic::AtomicUsize};

    use futures_util::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    fn cache() -> Cache<u8, &'static str> {
        Cache::new(100, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn values_and_their_absence_are_loaded_once() {
        let cache = cache();
        for value in [Some("a"), None] {
            let key = u8::from(value.is_some());
            let loads = AtomicUsize::new(0);
            let gets = join_all((0..50).map(|_| {
                cache.get(key, || async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(value)
                })
            }))
            .await;
            assert!(gets.into_iter().all(|got| got == Ok(value)));
            assert_eq!(loads.into_inner(), 1);
        }
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let cache = cache();
        assert_eq!(cache.get(1, || async { Err("down") }).await, Err("down"));
        assert_eq!(cache.get(1, || async { Ok::<_, &str>(Some("up")) }).await, Ok(Some("up")));
    }

    #[tokio::test]
    async fn what_was_being_loaded_at_a_flush_is_not_kept() {
        let cache = cache();
        let (loading, begun) = oneshot::channel();
        let (release, released) = oneshot::channel::<()>();
        let stale = cache.get(1, || async {
            let _ = loading.send(());
            let _ = released.await;
            Ok::<_, Infallible>(Some("before the revocation"))
        });
        let fresh = async {
            begun.await.expect("the load has begun");
            cache.flush();
            // It neither waits for the old load nor takes its value.
            let got = cache.get(1, || async { Ok::<_, Infallible>(None) }).await;
            let _ = release.send(());
            got
        };
        let (stale, fresh) = tokio::join!(stale, fresh);
        assert_eq!((stale, fresh), (Ok(Some("before the revocation")), Ok(None)));
        let later = cache.get(1, || async { Ok::<_, Infallible>(Some("loaded again")) }).await;
        assert_eq!(later, Ok(None), "the old load has not replaced the new value");
    }

    #[tokio::test]
    async fn a_flush_forgets() {
        let cache = cache();
        for value in ["old", "new"] {
            assert_eq!(cache.get(1, || async { Ok::<_, Infallible>(Some(value)) }).await, Ok(Some(value)));
            cache.flush();
        }
    }

    #[tokio::test]
    async fn more_than_is_found_at_once_is_still_known() {
        let cache = Cache::new(100_000, Duration::from_secs(60));
        let loads = AtomicUsize::new(0);
        for _ in 0..2 {
            for key in 0..=RECENT {
                let load = async || Ok::<_, Infallible>(Some(loads.fetch_add(1, Ordering::SeqCst)));
                assert_eq!(cache.get(key, load).await, Ok(Some(key)));
            }
        }
        assert_eq!(loads.into_inner(), RECENT + 1);
    }

    #[tokio::test]
    async fn a_value_lives_no_longer_than_it_may() {
        let cache = Cache::new(100, Duration::from_millis(50));
        let _ = cache.get(1, || async { Ok::<_, Infallible>(Some("old")) }).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert_eq!(cache.get(1, || async { Ok::<_, Infallible>(Some("new")) }).await, Ok(Some("new")));
    }
}
