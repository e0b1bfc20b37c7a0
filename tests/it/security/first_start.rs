//! The first start, by all processes at once: two gateways and two migrations on an empty database, and
//! on an empty queue every few rounds.

use std::{path::Path, process::Command, time::Duration};

use async_nats::jetstream::{self, context::Context};
use futures_util::TryStreamExt as _;
use rstest::rstest;
use tests::{
    database::{Database, query},
    nats::PASSWORD,
    patience::until,
    process::Process,
    queue,
    stack::{Stack, listening},
};

const ROUNDS: usize = 25;
/// Making the queue takes most of the time, since all of it has to reach the disk.
const QUEUE_EMPTY_EVERY: usize = 5;
const STREAMS: [&str; 3] = ["DEAD", "EVENTS", "JOBS"];

/// All that a database holds by way of definitions, and which migrations were made.
fn schema(database: Database, url: &str) -> String {
    let statement = match database {
        Database::Sqlite => {
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master
             UNION ALL SELECT 'made ' || version FROM seaql_migrations ORDER BY 1"
        }
        Database::Postgres => {
            "SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, is_nullable, column_default)
             FROM information_schema.columns WHERE table_schema = 'public'
             UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
             UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace
             UNION ALL SELECT 'made ' || version FROM seaql_migrations ORDER BY 1"
        }
    };
    query(url, statement).expect("the schema")
}

/// The streams with their consumers, as names.
async fn streams(nats: &Context) -> Vec<String> {
    let mut names = Vec::new();
    for stream in STREAMS {
        let stream = nats.get_stream(stream).await.expect("a stream");
        let mut consumers: Vec<String> = stream.consumer_names().try_collect().await.expect("names");
        consumers.sort();
        names.push(format!("{}: {consumers:?}", stream.cached_info().config.name));
    }
    names
}

async fn delete_streams(nats: &Context) {
    for stream in STREAMS {
        let _ = nats.delete_stream(stream).await;
    }
}

fn migration(stack: &Stack, url: &str) -> Command {
    let mut command = stack.operator_command();
    command.arg("migrate").env("DATABASE_URL", url);
    command
}

fn gateway(stack: &Stack, url: &str) -> Command {
    let mut command = stack.command("gateway");
    command.arg("serve").env("DATABASE_URL", url).env("NATS_USER", "gateway").env("NATS_PASSWORD", PASSWORD);
    command.env("FRONTDESK_LISTEN", "127.0.0.1:0").env("FRONTDESK_METRICS_LISTEN", "127.0.0.1:0");
    command
}

/// Starts all four at once, and waits until both migrations have ended well and both gateways are ready. How many
/// migrations NATS did not answer in time.
async fn start_all(stack: &Stack, folder: &Path, url: &str) -> usize {
    let start = |name: &str, command: Command| {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        Process::start("gateway", command, &folder).expect("a process")
    };
    let mut gateways = ["one", "other"].map(|name| start(name, gateway(stack, url)));
    let mut migrations = ["first", "second"].map(|name| start(name, migration(stack, url)));
    let mut late = 0;
    for migration in &mut migrations {
        let code = migration.ended(Duration::from_secs(120)).await.expect("an end");
        // On a busy disk NATS may take longer than a command waits; whoever migrates then does so again.
        if code != 0 && migration.output().contains("timed out") {
            late += 1;
            continue;
        }
        assert_eq!(code, 0, "{}", migration.output());
    }
    if late > 0 {
        let again = migration(stack, url).output().expect("the gateway's binary");
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    }
    for gateway in &mut gateways {
        let address = listening(gateway, "listening").await.expect("a gateway that listens");
        until("the gateway is ready", async || {
            let answer = stack.client().get(format!("{address}/readyz")).send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
        let output = gateway.output();
        assert!(!output.contains("\"ERROR\"") && !output.contains("panicked"), "{output}");
        assert!(!output.contains("waiting for the database"), "one stood in the other's way: {output}");
    }
    late
}

#[rstest]
#[tokio::test]
async fn two_gateways_and_two_migrations_may_begin_at_once(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(0).workers(0).set("FRONTDESK_SLOTS", 2).start().await;
    let nats = jetstream::new(queue::admin(&stack.nats).await.expect("a connection"));
    // What one migration alone makes.
    let expected = (schema(database, &stack.database_url), streams(&nats).await);
    let mut late = 0;
    for round in 0..ROUNDS {
        if round % QUEUE_EMPTY_EVERY == 0 {
            delete_streams(&nats).await;
        }
        let folder = stack.folder().join(format!("round-{round}"));
        std::fs::create_dir(&folder).expect("a folder");
        let url = database.make(&folder).expect("an empty database");
        late += start_all(&stack, &folder, &url).await;
        assert_eq!((schema(database, &url), streams(&nats).await), expected, "round {round}");
    }
    println!(
        "first start ({database:?}): {ROUNDS} rounds of 2 gateways and 2 migrations at once, 0 errors; {late} migrations \
         were not answered by NATS in time, and were made again"
    );
}
