//! Accounts beside each other, through the front door: a single one beside a backlog, equal shares, and who is put where.

use std::{collections::HashMap, time::Duration};

use common::{
    domain::job::Lane,
    queue::{config::QueueRole, depths},
};
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::{
    caller::{Caller, chat_body},
    database::Database,
    model::{Behaviour, Gate, ModelServer},
    patience::until,
    queue,
    stack::{Gateway, Stack},
};
use tokio::task::JoinSet;

/// A way in, and with it a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Call,
    Message,
    Batch,
}

impl Way {
    fn lane(self) -> Lane {
        match self {
            Self::Call => Lane::Interactive,
            Self::Message => Lane::Background,
            Self::Batch => Lane::Batch,
        }
    }
}

/// An account whose agent asks the scripted model.
struct Tenant {
    name: String,
    agent: String,
    caller: Caller,
    /// Calls that wait.
    calls: JoinSet<u16>,
}

impl Tenant {
    fn new(stack: &Stack, name: &str) -> Self {
        let (_, _, key) = stack.another_account(name);
        let agent = json!({ "name": "Scripted", "model": "scripted", "provider": "openai" });
        let agent = stack.make_agent(name, &agent);
        Self { name: name.to_owned(), agent, caller: Caller::of(stack).with_key(&key), calls: JoinSet::new() }
    }

    /// Has `count` prompts that begin with the account's name put on the queue through `gateway`.
    async fn ask(&mut self, gateway: &Gateway, way: Way, count: usize) {
        let caller = self.caller.at(gateway);
        let body = chat_body(&self.agent, &self.name).to_string();
        match way {
            Way::Call => {
                for _ in 0..count {
                    let (caller, body) = (caller.clone(), body.clone());
                    self.calls.spawn(async move { caller.post("/api/v1/chat", body).await.status });
                }
            }
            Way::Message => {
                for _ in 0..count {
                    assert_eq!(caller.post("/api/v1/messages", body.clone()).await.status, 202);
                }
            }
            Way::Batch => {
                let line = |n| json!({ "custom_id": format!("{n}"), "employee_id": self.agent, "prompt": self.name });
                let lines: String = (0..count).map(|n| format!("{}\n", line(n))).collect();
                let request = caller.request(Method::POST, "/api/v1/batches");
                let request = request.header("content-type", "application/x-ndjson").body(lines);
                assert_eq!(request.send().await.expect("an answer").status(), 202);
            }
        }
    }

    /// Waits until all calls are answered.
    async fn answered(mut self) {
        while let Some(status) = self.calls.join_next().await {
            assert_eq!(status.expect("a task"), 200);
        }
    }
}

/// How many unfinished jobs each queue of `lane` holds, without the empty ones.
async fn held(stack: &Stack, lane: Lane) -> Vec<u64> {
    let connection = queue::connect(&stack.nats, QueueRole::Gateway).await;
    let depths = depths::all(&connection).await.expect("queues");
    let of_lane = depths.iter().filter(|depth| depth.queue.lane == lane && depth.unfinished() > 0);
    of_lane.map(depths::Depth::unfinished).collect()
}

/// How often the model was asked for each account, of the first `count` calls.
fn shares(model: &ModelServer, count: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for call in model.calls().iter().take(count) {
        *shares.entry(call.prompt().to_owned()).or_default() += 1;
    }
    shares
}

#[rstest]
#[tokio::test]
async fn a_single_call_begins_beside_another_accounts_backlog(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(Way::Call, Way::Message, Way::Batch)] way: Way,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    let settings = Stack::with_model(database, &model).set("FRONTDESK_CONCURRENCY", 8);
    let stack = settings.set("FRONTDESK_ACCOUNT_FRONT", 2).start().await;
    let (mut many, mut single) = (Tenant::new(&stack, "many"), Tenant::new(&stack, "single"));
    let gateway = &stack.gateways[0];
    // Two stand in front; of its slot queue come as many as the lane has slots but one.
    many.ask(gateway, way, 2).await;
    model.called(2).await;
    many.ask(gateway, way, 18).await;
    model.called(5).await;
    single.ask(gateway, way, 1).await;
    model.called(6).await;
    let begun = shares(&model, 6);
    assert_eq!((begun["many"], begun["single"]), (5, 1));
    gate.open();
    many.answered().await;
    single.answered().await;
}

#[rstest]
#[tokio::test]
async fn ten_accounts_with_backlogs_have_equal_shares_whichever_came_first(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(Way::Call, Way::Message, Way::Batch)] way: Way,
) {
    const EACH: usize = 40;
    let model = ModelServer::start().await.expect("a model");
    let settings = Stack::with_model(database, &model).gateways(2).workers(0).set("FRONTDESK_CONCURRENCY", 8);
    let settings = settings.set("FRONTDESK_SLOTS", 32).set("FRONTDESK_ACCOUNT_FRONT", 2);
    let mut stack = settings.start().await;
    let mut tenants: Vec<_> = (0..10).map(|n| Tenant::new(&stack, &format!("account-{n}"))).collect();
    for (n, tenant) in tenants.iter_mut().enumerate() {
        tenant.ask(&stack.gateways[n % 2], way, EACH).await;
        until("they are on the queue", async || {
            let held = held(&stack, way.lane()).await.iter().sum::<u64>();
            (held == ((n + 1) * EACH) as u64).then_some(())
        })
        .await;
    }
    stack.add_worker().await;
    model.called(10 * EACH / 2).await;
    let shares = shares(&model, 10 * EACH / 2);
    let (expected, fifth) = (EACH / 2, EACH / 2 / 5);
    assert!(shares.len() == 10 && shares.values().all(|share| share.abs_diff(expected) <= fifth), "{shares:?}");
    for tenant in tenants {
        tenant.answered().await;
    }
}

#[rstest]
#[tokio::test]
async fn an_account_has_one_queue_whichever_gateway_takes_its_jobs(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let mut stack = Stack::on(database).gateways(2).workers(0).start().await;
    let mut tenants: Vec<_> = (0..4).map(|n| Tenant::new(&stack, &format!("account-{n}"))).collect();
    // There are four, and each account's first choice may be another's.
    for round in 0..2 {
        for tenant in &mut tenants {
            tenant.ask(&stack.gateways[round], Way::Message, 2).await;
        }
    }
    assert_eq!(held(&stack, Lane::Background).await, [4; 4]);
    // One that knows nothing finds out.
    stack.restart_gateway(0).await;
    stack.until_status("/readyz", 200, Duration::from_secs(30)).await.expect("ready");
    for tenant in &mut tenants {
        tenant.ask(&stack.gateways[0], Way::Message, 1).await;
    }
    assert_eq!(held(&stack, Lane::Background).await, [5; 4]);
}

#[rstest]
#[tokio::test]
async fn no_more_jobs_of_an_account_run_than_are_set(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
    #[values(Way::Call, Way::Message, Way::Batch)] way: Way,
) {
    let model = ModelServer::start().await.expect("a model");
    let gate = Gate::closed();
    model.always(Behaviour::answer(["at last"]).held_after(0, &gate));
    let settings = Stack::with_model(database, &model).gateways(2).workers(2);
    let stack = settings.set("FRONTDESK_ACCOUNT_RUNNING", 3).start().await;
    let (mut capped, mut other) = (Tenant::new(&stack, "capped"), Tenant::new(&stack, "other"));
    for gateway in &stack.gateways {
        capped.ask(gateway, way, 5).await;
    }
    model.called(3).await;
    other.ask(&stack.gateways[0], way, 2).await;
    model.called(5).await;
    let begun = shares(&model, usize::MAX);
    assert_eq!((begun["capped"], begun["other"]), (3, 2));
    gate.open();
    model.called(12).await;
    capped.answered().await;
    other.answered().await;
}
