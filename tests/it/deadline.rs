//! The true five minutes (A2, A18). It takes that long, and is therefore run apart: `make test-deadline`.

use std::time::{Duration, Instant};

use rstest::rstest;
use tests::{database::Database, stack::Stack};

#[rstest]
#[tokio::test]
#[ignore = "takes 300 s: `make test-deadline`"]
async fn a18_the_shipped_deadline_is_five_minutes(#[values(Database::Sqlite)] database: Database) {
    let stack = Stack::start(database).await;
    let begun = Instant::now();
    let answer = stack.chat("/sleep 310s\nnonce 300").await;
    let waited = begun.elapsed();
    assert_eq!(answer.status(), 504);
    assert!(waited >= Duration::from_secs(300), "{waited:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
    assert_eq!((&body["code"], &body["accepted"]), (&"timeout".into(), &true.into()));
    // The job goes on to its own limit, and its answer is kept.
    stack.until_billed(1, Duration::from_secs(60)).await.expect("the job ends");
}
