//! A revoked key and a channel that is switched off, at three gateways under load: how long they still let in. A25.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rstest::rstest;
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    stack::{Ran, Stack},
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

const GATEWAYS: usize = 3;
/// Callers at each gateway who go on all the time.
const LOAD: usize = 4;
/// An agent that nobody has: a chat with it passes the gate and goes no further.
const NOBODY: &str = "01a20041-b7f8-71fc-b820-9ed86ed9b996";
/// Promised is 1 s; a busy machine may take a while to start the command alone.
const TOLD: Duration = Duration::from_secs(10);
/// Promised is 5 s.
const NOT_TOLD: Duration = Duration::from_secs(25);

/// What has become of NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nats {
    Up,
    Frozen,
    Gone,
}

/// A key whose end comes, and how that shows.
struct Doomed {
    /// Its holder, at each gateway.
    callers: Vec<Caller>,
    command: Vec<String>,
    refusal: (u16, &'static str),
}

#[rstest]
#[case(Database::Sqlite, Nats::Up)]
#[case(Database::Postgres, Nats::Up)]
#[case(Database::Sqlite, Nats::Frozen)]
#[case(Database::Postgres, Nats::Gone)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_away_is_refused_everywhere(#[case] database: Database, #[case] nats: Nats) {
    let mut builder = Stack::on(database).gateways(GATEWAYS).set("FRONTDESK_KEY_LIMIT", 1_000_000);
    // Many calls fail on purpose.
    builder = builder.set("FRONTDESK_AUTH_FAILURE_LIMIT", 1_000_000);
    if nats == Nats::Up {
        // Nothing is forgotten by itself.
        builder = builder.set("FRONTDESK_CACHE_TTL", "1h");
    }
    let mut stack = builder.start().await;
    let doomed = [doomed_key(&stack), doomed_channel(&stack)];
    for doomed in &doomed {
        for caller in &doomed.callers {
            caller.chat(NOBODY, "hello").await.fault(404, "agent_not_found");
        }
    }
    match nats {
        Nats::Up => {}
        Nats::Frozen => stack.nats.process().signal("STOP"),
        Nats::Gone => stack.nats.process().kill(),
    }
    let stack = Arc::new(stack);
    let mut load = start_load(&stack, nats);
    let within = if nats == Nats::Up { TOLD } else { NOT_TOLD };
    let took = join_all(doomed.iter().map(|doomed| until_refused(&stack, doomed, within))).await;
    assert!(load.try_join_next().is_none(), "a caller with another key was not answered as ever");
    drop(load);
    println!(
        "taken away ({database:?}, NATS {nats:?}): at {GATEWAYS} gateways under load the last call with a revoked key was \
         let in {:.2?} after its command began, with a closed channel {:.2?}",
        took[0], took[1]
    );
}

fn doomed_key(stack: &Stack) -> Doomed {
    let made = stack.admin(&["key", "create", &stack.account, "doomed"]);
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    let command = vec!["key".to_owned(), "revoke".to_owned(), text("id")];
    Doomed { callers: at_each_gateway(stack, &text("secret")), command, refusal: (401, "unauthorized") }
}

fn doomed_channel(stack: &Stack) -> Doomed {
    let (account, _, key) = stack.another_account("closing");
    let command = ["channel", "off", &account, "api"].map(str::to_owned).to_vec();
    Doomed { callers: at_each_gateway(stack, &key), command, refusal: (403, "channel_disabled") }
}

fn at_each_gateway(stack: &Stack, key: &str) -> Vec<Caller> {
    let caller = Caller::of(stack).with_key(key);
    stack.gateways.iter().map(|gateway| caller.at(gateway)).collect()
}

/// Runs the command, and returns how long after its beginning the last call was sent that a gateway let in.
async fn until_refused(stack: &Arc<Stack>, doomed: &Doomed, within: Duration) -> Duration {
    let begun = Instant::now();
    let (at_work, command) = (Arc::clone(stack), doomed.command.clone());
    let ran = spawn_blocking(move || {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        at_work.operator(&words)
    });
    let last = join_all(doomed.callers.iter().map(|caller| last_let_in(caller, doomed, begun, within))).await;
    let Ran { code, stderr, .. } = ran.await.expect("a command");
    assert_eq!(code, 0, "{:?}: {stderr}", doomed.command);
    last.into_iter().max().expect("gateways")
}

async fn last_let_in(caller: &Caller, doomed: &Doomed, begun: Instant, within: Duration) -> Duration {
    let (status, code) = doomed.refusal;
    let mut last = Duration::ZERO;
    loop {
        let sent = begun.elapsed();
        let answer = caller.chat(NOBODY, "hello").await;
        if answer.status == status {
            break;
        }
        answer.fault(404, "agent_not_found");
        last = sent;
        assert!(last < within, "it is still let in after {last:?}: {:?}", doomed.command);
        sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..5 {
        caller.chat(NOBODY, "hello").await.fault(status, code);
    }
    last
}

/// Calls of another key at every gateway, which end when they are dropped: whole chats while there is a queue.
fn start_load(stack: &Arc<Stack>, nats: Nats) -> JoinSet<()> {
    let mut load = JoinSet::new();
    let callers = at_each_gateway(stack, &stack.key);
    for caller in callers.into_iter().flat_map(|caller| vec![caller; LOAD]) {
        let agent = if nats == Nats::Up { stack.agent.clone() } else { NOBODY.to_owned() };
        let (expected, body) = (if nats == Nats::Up { 200 } else { 404 }, chat_body(&agent, "load").to_string());
        load.spawn(async move {
            loop {
                let answer = caller.post("/api/v1/chat", body.clone()).await;
                assert_eq!(answer.status, expected, "{answer}");
            }
        });
    }
    load
}
