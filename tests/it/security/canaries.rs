//! Secrets with texts that nobody else has, taken through success and failure, and then looked for everywhere: in the
//! logs of all processes at their most talkative, in metrics, errors, the database and the queue's files.

mod tour;

use std::{fs, path::Path, process::Command};

use rstest::rstest;
use tests::{database::Database, model::ModelServer, sink::Sink, stack::Stack};

use self::tour::Tour;

/// Where a secret may be found after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Nowhere.
    Nowhere,
    /// In the database: what operators can read, as `SECURITY.md` says.
    Stored,
}

/// A text to look for.
struct Canary {
    name: &'static str,
    text: String,
    kept: Kept,
}

/// Everything that was written, with the name of the place.
struct Place {
    name: String,
    content: String,
    /// Whether it is the database, or files of the queue.
    is_store: bool,
}

#[rstest]
#[tokio::test]
async fn secrets_are_found_where_they_are_kept_and_nowhere_else(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let (model, sink) = (ModelServer::start().await.expect("a model"), Sink::start().await);
    let builder = Stack::with_model(database, &model).gateways(0).workers(0);
    let builder = builder.set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true).set("FRONTDESK_KEY_LIMIT", 100_000);
    let builder = builder.set("FRONTDESK_LOG", "trace").set("FRONTDESK_OPENAI_KEY", tour::canary("model key"));
    let builder = builder.set("FRONTDESK_AUTH_FAILURE_LIMIT", 1_000).set("FRONTDESK_BODY_TIMEOUT", "1s");
    let mut stack = builder.start().await;
    let mut tour = Tour::begin(&mut stack, database).await;
    tour.succeed(&stack, &model, &sink).await;
    tour.fail(&stack, &model, &sink).await;
    tour.stop_and_start(&mut stack).await;

    let places = places(&mut stack, database, &tour).await;
    let log = places.iter().find(|place| place.name == "the log of gateway 0").expect("a log");
    assert!(log.content.contains("\"DEBUG\""), "the log is not at its most talkative");
    let canaries = tour.canaries(&stack);
    let (mut looked, mut leaks) = (0, Vec::new());
    for canary in &canaries {
        let mut kept = 0;
        for place in &places {
            looked += 1;
            let hits = place.content.matches(&canary.text).count();
            let allowed = place.is_store && canary.kept == Kept::Stored;
            if hits > 0 && !allowed {
                leaks.push(format!("{} stands {hits} times in {}: {}", canary.name, place.name, around(place, canary)));
            }
            kept += if allowed { hits } else { 0 };
        }
        assert!(
            canary.kept == Kept::Nowhere || kept > 0,
            "{} is nowhere: the places are not the right ones",
            canary.name
        );
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    let size: usize = places.iter().map(|place| place.content.len()).sum();
    println!(
        "canaries ({database:?}): {} secrets in {} places ({} KiB), {looked} looks, 0 hits where none may be",
        canaries.len(),
        places.len(),
        size / 1024
    );
}

/// Everything that the product has written by now.
async fn places(stack: &mut Stack, database: Database, tour: &Tour) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |name: String, content: Vec<u8>, is_store: bool| {
        places.push(Place { name, content: String::from_utf8_lossy(&content).into_owned(), is_store });
    };
    for (index, gateway) in stack.gateways.iter().enumerate() {
        add(format!("the log of gateway {index}"), gateway.process.output().into_bytes(), false);
        add(format!("the metrics of gateway {index}"), page(stack, &gateway.metrics_url).await, false);
        add(format!("the command line of gateway {index}"), command_line(gateway.process.id()), false);
    }
    for (index, worker) in stack.workers.iter().enumerate() {
        add(format!("the log of worker {index}"), worker.output().into_bytes(), false);
        add(format!("the metrics of worker {index}"), page(stack, &stack.worker_metrics_url(index)).await, false);
        add(format!("the command line of worker {index}"), command_line(worker.id()), false);
    }
    for (name, text) in tour.written() {
        add(name.clone(), text.clone().into_bytes(), false);
    }
    add("the database".to_owned(), dump(database, stack), true);
    add("the queue's files".to_owned(), files(&stack.folder().join("jetstream")), true);
    let nats = stack.nats.process();
    add("the log of nats-server".to_owned(), nats.output().into_bytes(), false);
    places
}

async fn page(stack: &Stack, url: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for path in ["/metrics", "/scale", "/readyz"] {
        let answer = stack.client().get(format!("{url}{path}")).send().await.expect("a page");
        all.extend(answer.bytes().await.expect("a page"));
    }
    all
}

fn command_line(process: u32) -> Vec<u8> {
    fs::read(format!("/proc/{process}/cmdline")).expect("a running process")
}

/// All of the database, byte for byte or as its own tool writes it down.
fn dump(database: Database, stack: &Stack) -> Vec<u8> {
    if database == Database::Sqlite {
        let folder = fs::read_dir(stack.folder()).expect("the folder");
        let files = folder.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        let of_database = files.filter(|path| path.to_string_lossy().contains("frontdesk.db"));
        return of_database.flat_map(|path| fs::read(path).expect("a file")).collect();
    }
    let out = Command::new("pg_dump").args(["--inserts", &stack.database_url]).output().expect("pg_dump");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// What all files below `folder` hold.
fn files(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        all.extend(if path.is_dir() { files(&path) } else { fs::read(&path).unwrap_or_default() });
    }
    all
}

/// The line or so in which `canary` stands.
fn around(place: &Place, canary: &Canary) -> String {
    let text = &place.content;
    let at = text.find(&canary.text).unwrap_or_default();
    let begin = text[..at].char_indices().rev().nth(300).map_or(0, |(index, _)| index);
    text[begin..].chars().take(700).collect()
}
