//! A database for all cases of a property: SQLite, in memory where the machine has a file system there.

use std::{future::Future, path::Path};

use common::store::connection::{Store, StoreConfig};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// An empty database at first. Each case makes an account of its own in it.
pub struct Database {
    runtime: Runtime,
    store: Store,
    _directory: TempDir,
}

impl Database {
    /// A new one.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.expect("a temporary directory");
        let url = format!("sqlite://{}?mode=rwc", directory.path().join("cases.db").display());
        // The real clock: the database is on threads of its own, for which no paused one waits.
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let store = runtime.block_on(async {
            let store = Store::connect(&StoreConfig { url, max_connections: 2 }).await.expect("a database");
            store.migrate().await.expect("our tables");
            store
        });
        Self { runtime, store, _directory: directory }
    }

    /// Runs one case.
    pub fn run<F: Future<Output = ()>>(&self, case: impl FnOnce(Store) -> F) {
        self.runtime.block_on(case(self.store.clone()));
    }
}
