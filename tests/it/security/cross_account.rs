//! Every route with something of an account in it, and every way to name what is not the caller's: the same 404.
//!
//! The routes are those of `/openapi.json`. One that is not in [`TABLE`] fails the test.

mod things;

use std::collections::BTreeMap;

use common::domain::ids::MessageId;
use reqwest::Method;
use rstest::rstest;
use serde_json::Value;
use tests::{answer::Answer, batch::line, caller::Caller, database::Database, operation::Operation, stack::Stack};

use self::things::{Foreign, Owner, Thing};

/// What a route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Something by its id, in the path.
    InPath(Thing),
    /// An agent, in the body.
    Agent,
    /// Nothing: it tells of all that is the caller's.
    Listed,
    /// Nothing that belongs to anybody.
    Nobodys,
}

const TABLE: [(&str, Names); 33] = [
    ("cancel_batch", Names::InPath(Thing::Batch)),
    ("cancel_message", Names::InPath(Thing::Message)),
    ("change_webhook_endpoint", Names::InPath(Thing::Endpoint)),
    ("chat", Names::Agent),
    ("chat_with_agent", Names::Agent),
    ("create_webhook_endpoint", Names::Nobodys),
    ("delete_webhook_endpoint", Names::InPath(Thing::Endpoint)),
    ("docs", Names::Nobodys),
    ("docs_file", Names::Nobodys),
    ("get_webhook_endpoint", Names::InPath(Thing::Endpoint)),
    ("health", Names::Nobodys),
    ("list_agents", Names::Listed),
    ("list_batches", Names::Listed),
    ("list_messages", Names::Listed),
    ("list_webhook_deliveries", Names::InPath(Thing::Endpoint)),
    ("list_webhook_endpoints", Names::Listed),
    ("livez", Names::Nobodys),
    ("openapi", Names::Nobodys),
    ("purge_message", Names::InPath(Thing::Message)),
    ("read_batch", Names::InPath(Thing::Batch)),
    ("read_batch_results", Names::InPath(Thing::Batch)),
    ("read_message", Names::InPath(Thing::Message)),
    ("readyz", Names::Nobodys),
    ("replay_webhook_delivery", Names::InPath(Thing::Delivery)),
    ("retry_batch", Names::InPath(Thing::Batch)),
    ("retry_message", Names::InPath(Thing::Message)),
    ("rotate_webhook_secret", Names::InPath(Thing::Endpoint)),
    ("stream_batch", Names::InPath(Thing::Batch)),
    ("stream_message", Names::InPath(Thing::Message)),
    ("submit_batch", Names::Agent),
    ("submit_message", Names::Agent),
    ("submit_webhook", Names::Agent),
    ("test_webhook_endpoint", Names::InPath(Thing::Endpoint)),
];

/// What is no id, as it stands in a path.
const MALFORMED: [&str; 9] =
    ["x", "0", "%00", "%ff", "*", "%3E", "..%2f..%2fetc", "%27%20OR%201=1--", "01a20041-b7f8-71fc-b820"];

/// The routes that were asked, and how often.
struct Matrix<'a> {
    own: &'a Owner,
    foreign: &'a Foreign,
    nobody: String,
    cells: usize,
    routes: usize,
}

#[rstest]
#[tokio::test]
async fn what_belongs_to_others_is_as_unknown_as_what_is_not_there(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let settings = Stack::on(database).set("FRONTDESK_KEY_LIMIT", 100_000).set("FRONTDESK_READ_LIMIT", 100_000);
    let mut stack = settings.set("FRONTDESK_DEADLINE", "1s").start().await;
    let own = Owner::first(&stack);
    let (account, agent, key) = stack.another_account("second");
    let other = Owner::new(&stack, &account, &agent, &key);
    let document = Answer::to(stack.anonymous(Method::GET, "/openapi.json")).await.ok();
    let operations = Operation::all(&document);
    let known: BTreeMap<&str, Names> = TABLE.into_iter().collect();
    assert_eq!(known.len(), operations.len(), "the table has routes that are not in the document, or one twice");

    own.make_finished(&operations, &known).await;
    let foreign = other.make_foreign(&mut stack).await;
    let before = foreign.as_seen_by(&other).await;
    let mut matrix = Matrix { own: &own, foreign: &foreign, nobody: MessageId::new().to_string(), cells: 0, routes: 0 };
    for operation in &operations {
        let names = known.get(operation.name()).unwrap_or_else(|| panic!("{} is not in the table", operation.name()));
        let has_id = operation.path.replace("{file}", "").contains('{');
        assert_eq!(has_id, matches!(names, Names::InPath(_)), "{}", operation.name());
        match names {
            Names::InPath(thing) => matrix.try_ids(operation, *thing).await,
            Names::Agent => matrix.try_agents(&stack, operation).await,
            Names::Listed => matrix.look_through(operation).await,
            Names::Nobodys => continue,
        }
        matrix.routes += 1;
    }
    assert_eq!(foreign.as_seen_by(&other).await, before, "something of another account has changed");
    println!("cross-account ({database:?}): {} routes, {} cells, 0 leaks", matrix.routes, matrix.cells);
}

impl Matrix<'_> {
    /// All ids of things that are not the caller's, and its own.
    async fn try_ids(&mut self, operation: &Operation<'_>, thing: Thing) {
        let unknown = self.ask(operation, &self.nobody).await;
        unknown.fault(404, thing.unknown());
        for id in self.foreign.ids(thing).iter().map(String::as_str).chain(MALFORMED) {
            self.is_the_same(operation, id, &unknown).await;
        }
        if let Some(gone) = self.own.gone(thing) {
            if thing == Thing::Endpoint {
                self.is_the_same(operation, &gone, &unknown).await;
            } else {
                // A tombstone stays, and so does what became of a delivery.
                let answer = self.ask(operation, &gone).await;
                assert!([200, 204, 409, 410].contains(&answer.status), "{}: {answer}", operation.name());
                self.cells += 1;
            }
        }
        let own = self.ask(operation, &self.own.take(thing).await).await;
        assert!((200..300).contains(&own.status) || own.status == 409, "{}: {own}", operation.name());
        self.cells += 2;
    }

    async fn is_the_same(&mut self, operation: &Operation<'_>, id: &str, unknown: &Answer) {
        let answer = self.ask(operation, id).await;
        assert_eq!(shown(&answer), shown(unknown), "{} tells {id} from what is not there", operation.name());
        self.cells += 1;
    }

    async fn ask(&self, operation: &Operation<'_>, id: &str) -> Answer {
        let (before, rest) = operation.path.split_once('{').expect("an id");
        let (_, after) = rest.split_once('}').expect("an id");
        let method: Method = operation.method.to_uppercase().parse().expect("a method");
        let mut request = self.own.caller.request(method, &format!("{before}{id}{after}"));
        if let Some((media_type, body)) = operation.body() {
            request = request.header("content-type", media_type).body(body);
        }
        Answer::to(request).await
    }

    /// Agents of others, removed ones, and the caller's own.
    async fn try_agents(&mut self, stack: &Stack, operation: &Operation<'_>) {
        let unknown = ask_agent(&self.own.caller, operation, &self.nobody).await;
        let is_batch = operation.name() == "submit_batch";
        assert_eq!(unknown.status, if is_batch { 422 } else { 404 }, "{unknown}");
        for agent in self.foreign.agents.iter().chain([&self.own.removed_agent]) {
            let answer = ask_agent(&self.own.caller, operation, agent).await;
            assert_eq!(shown(&answer), shown(&unknown), "{} tells {agent} from none", operation.name());
            self.cells += 1;
        }
        // Nobody works: whoever waits is told so.
        let own = ask_agent(&self.own.caller, operation, &stack.agent).await;
        assert!([202, 504].contains(&own.status), "{}: {own}", operation.name());
        self.cells += 2;
    }

    /// What the caller is told of all that is there, and by filters that name what is another's.
    async fn look_through(&mut self, operation: &Operation<'_>) {
        let filters = ["employee_id", "batch_id"].map(|name| {
            let foreign = if name == "batch_id" { &self.foreign.ids(Thing::Batch)[0] } else { &self.foreign.agents[0] };
            format!("?{name}={foreign}")
        });
        let queries: &[String] = if operation.name() == "list_messages" { &filters } else { &[] };
        for query in std::iter::once("").chain(queries.iter().map(String::as_str)) {
            let answer = self.own.caller.get(&format!("{}{query}", operation.path)).await;
            let text = answer.ok().to_string();
            for id in self.foreign.all() {
                assert!(!text.contains(id), "{}{query} shows {id}: {answer}", operation.name());
            }
            self.cells += 1;
        }
    }
}

async fn ask_agent(caller: &Caller, operation: &Operation<'_>, agent: &str) -> Answer {
    let (media_type, body) = match operation.name() {
        "submit_batch" => ("application/x-ndjson", line("one", agent, "hello")),
        "chat_with_agent" => {
            ("application/json", serde_json::json!({ "agentId": agent, "message": "hello" }).to_string())
        }
        _ => ("application/json", tests::caller::chat_body(agent, "hello").to_string()),
    };
    let request = caller.request(Method::POST, operation.path).header("content-type", media_type);
    Answer::to(request.body(body)).await
}

/// All of an answer but what differs between any two: its id, its time, how the key stands, and whether the body was
/// worth reading.
fn shown(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let counted = ["date", "x-request-id", "ratelimit", "connection"];
    let headers = answer.headers.iter().filter(|(name, _)| !counted.contains(&name.as_str()));
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().expect("a value").to_owned())).collect();
    let mut body = answer.json();
    body.as_object_mut().expect("an object").remove("request_id");
    (answer.status, headers, body)
}
