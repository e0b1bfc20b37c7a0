//! Databases for the store's tests: a new one of each kind for each test.

use sea_orm::{ConnectionTrait as _, Database};

use super::connection::{Store, StoreConfig};
use crate::{
    domain::{account::Account, ids::MessageId},
    env,
};

/// Runs `test` with the settings of an empty SQLite file, and of an empty PostgreSQL database where
/// `FRONTDESK_TEST_POSTGRES` is the URL of a server in which databases may be made.
pub(super) async fn on_each_empty_database(test: impl AsyncFn(StoreConfig)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("data").join("frontdesk.db");
    test(config(format!("sqlite://{}?mode=rwc", file.display()))).await;

    let Some(server) = env::text("FRONTDESK_TEST_POSTGRES") else { return };
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let name = format!("frontdesk_{}", MessageId::new().0.simple());
    let admin = Database::connect(&server).await.expect("the server of FRONTDESK_TEST_POSTGRES");
    admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a new database");
    test(config(format!("{base}/{name}"))).await;
    admin.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("to drop it");
}

/// Like [`on_each_empty_database`], connected and migrated.
pub(super) async fn on_each_database(test: impl AsyncFn(Store)) {
    on_each_empty_database(async |config| {
        let store = Store::connect(&config).await.expect("to connect");
        store.migrate().await.expect("to migrate");
        test(store.clone()).await;
        store.close().await.expect("to close");
    })
    .await;
}

fn config(url: String) -> StoreConfig {
    StoreConfig { url, max_connections: 8 }
}

/// An account with some name.
pub(super) async fn account(store: &Store) -> Account {
    let name = format!("acme {}", MessageId::new());
    store.create_account(&name, "desk@example.com").await.expect("a new account")
}
