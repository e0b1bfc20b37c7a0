//! How often one key may call, and how often one address may fail to say who it is.

use std::time::Duration;

use futures_util::future::join_all;
use rstest::rstest;
use tests::{answer::Answer, caller::Caller, database::Database, patience::nonce, stack::Stack};
use tokio::time::{MissedTickBehavior, interval};

const HEALTH: &str = "/api/v1/health";

fn assert_over(answer: &Answer, code: &str) {
    let fault = answer.fault(429, code);
    assert_eq!(answer.header("retry-after"), Some("60"));
    assert_eq!(fault["retryable"], true);
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[rstest]
#[tokio::test]
async fn a16_a20_a21_of_140_requests_at_once_exactly_120_pass(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let caller = Caller::of(&stack);
    let calls = (0..140).map(async |_| {
        let prompt = nonce();
        let answer = caller.chat(&stack.agent, &prompt).await;
        if answer.status == 200 {
            assert_eq!(answer.ok()["content"], prompt);
        } else {
            assert_over(&answer, "rate_limited");
        }
        answer
    });
    let answers = join_all(calls).await;
    assert_eq!((count(&answers, 200), count(&answers, 429)), (120, 20));

    // The limit is the key's: on every route, and on no other key.
    assert_over(&caller.get(HEALTH).await, "rate_limited");
    assert_over(&caller.get("/api/agents").await, "rate_limited");
    assert_over(&caller.agent_chat(&stack.agent, &nonce()).await, "rate_limited");
    let second = caller.with_key(&stack.make_key(&stack.account, "second", &[]));
    assert_eq!(second.get(HEALTH).await.status, 200);
}

#[rstest]
#[tokio::test]
async fn a20_every_answer_to_a_key_says_how_it_stands(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).set("FRONTDESK_KEY_LIMIT", 5).start().await;
    let caller = Caller::of(&stack);
    let unknown = "0190b5a0-0000-7000-8000-000000000000";
    let answers = [
        (200, caller.chat(&stack.agent, &nonce()).await),
        (400, caller.post("/api/v1/chat", "{").await),
        (404, caller.chat(unknown, &nonce()).await),
        (413, caller.post("/api/v1/chat", "x".repeat(65_537)).await),
        (200, caller.get("/api/agents").await),
        (429, caller.get(HEALTH).await),
        (429, caller.chat(&stack.agent, &nonce()).await),
    ];
    for (answer, left) in answers.iter().zip([4, 3, 2, 1, 0, 0, 0]) {
        let (status, answer) = answer;
        assert_eq!(answer.status, *status, "{answer}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"key\";q=5;w=60"));
        let standing = answer.header("ratelimit").expect("a standing");
        let resets_in = standing.strip_prefix(&format!("\"key\";r={left};t=")).unwrap_or_else(|| panic!("{standing}"));
        assert!((0..=60).contains(&resets_in.parse::<u32>().expect("seconds")), "{standing}");
    }
    let nobody = caller.without_key().get(HEALTH).await;
    assert_eq!((nobody.header("ratelimit"), nobody.header("ratelimit-policy")), (None, None));
}

#[rstest]
#[tokio::test]
async fn a19_the_eleventh_failure_of_an_address_is_429_and_a_valid_key_still_passes(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let (caller, wrong) = (Caller::of(&stack), Caller::of(&stack).with_key("sk-wrong"));
    for _ in 0..5 {
        wrong.get(HEALTH).await.fault(401, "unauthorized");
        caller.without_key().chat(&stack.agent, &nonce()).await.fault(401, "unauthorized");
        assert_eq!(caller.get(HEALTH).await.status, 200);
    }
    for _ in 0..3 {
        assert_over(&wrong.get(HEALTH).await, "too_many_failures");
        assert_over(&caller.without_key().chat(&stack.agent, &nonce()).await, "too_many_failures");
        assert_over(&wrong.with_header("x-forwarded-for", "192.0.2.1").get(HEALTH).await, "too_many_failures");
        let prompt = nonce();
        assert_eq!(caller.chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    }

    // At once from another address: exactly as many, whatever the others did.
    let elsewhere = wrong.from([127, 0, 0, 2]);
    let answers = join_all((0..30).map(|_| elsewhere.get(HEALTH))).await;
    assert_eq!((count(&answers, 401), count(&answers, 429)), (10, 20));
}

#[rstest]
#[tokio::test]
async fn a19_behind_a_trusted_proxy_the_address_is_the_clients(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let settings = Stack::on(database).set("FRONTDESK_TRUSTED_PROXIES", "127.0.0.0/8");
    let stack = settings.set("FRONTDESK_AUTH_FAILURE_LIMIT", 1).workers(0).start().await;
    let wrong = Caller::of(&stack).with_key("sk-wrong");
    let through = |hops: &str| wrong.with_header("x-forwarded-for", hops);
    through("192.0.2.1").get(HEALTH).await.fault(401, "unauthorized");
    through("192.0.2.2").get(HEALTH).await.fault(401, "unauthorized");
    // What a client puts in front of its own address is its own invention.
    assert_over(&through("203.0.113.9, 192.0.2.1, 127.0.0.9").get(HEALTH).await, "too_many_failures");
}

/// 20 requests a second over two gateways, evenly: the gateways tell each other what they have counted.
#[rstest]
#[tokio::test]
async fn a20_over_two_gateways_steady_traffic_holds_within_5_percent(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).gateways(2).workers(0).start().await;
    let callers = [&stack.gateways[0], &stack.gateways[1]].map(|gateway| Caller::of(&stack).at(gateway));
    let mut beat = interval(Duration::from_millis(50));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = Vec::new();
    for caller in callers.iter().cycle().take(160) {
        beat.tick().await;
        answers.push(caller.get(HEALTH).await);
    }
    let (passed, refused) = (count(&answers, 200), count(&answers, 429));
    assert_eq!(passed + refused, 160);
    assert!((120..=126).contains(&passed), "{passed} passed");
    assert!(answers[130..].iter().all(|answer| answer.status == 429), "the limit did not hold");
}
