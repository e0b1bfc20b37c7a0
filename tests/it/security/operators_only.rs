//! What only operators may do, tried with an account's key on every port: there is no such way.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::Value;
use tests::{answer::Answer, caller::Caller, database::Database, nats::PASSWORD, stack::Stack};

/// Where APIs keep such things.
const PLACES: [&str; 7] = ["", "/api", "/api/v1", "/v1", "/admin", "/api/admin", "/api/v1/admin"];
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// What callers may do on a path that bears the name of something of operators.
const FOR_CALLERS: [(Method, &str); 2] = [(Method::GET, "/api/agents"), (Method::POST, "/api/v1/webhook")];
/// Somebody's name in a path or a body.
const VICTIM: &str = "second";

/// The operator's commands, as the program itself lists them: `key revoke`, and `usage`, which has no second word.
fn commands(stack: &Stack) -> Vec<(String, Option<String>)> {
    let listed = |words: &[&str]| -> Vec<String> {
        let help = stack.operator(&[words, &["--help"]].concat()).stdout;
        let list = help.split_once("Commands:\n").map(|(_, list)| list).unwrap_or_default();
        let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(str::to_owned).collect()
    };
    let mut commands = Vec::new();
    for noun in listed(&[]).into_iter().filter(|noun| noun != "serve" && noun != "batch") {
        let verbs = listed(&[&noun]);
        if verbs.is_empty() {
            commands.push((noun.clone(), None));
        }
        commands.extend(verbs.into_iter().map(|verb| (noun.clone(), Some(verb))));
    }
    commands
}

/// Where a command could be, if it were a route.
fn paths(noun: &str, verb: Option<&str>, id: &str) -> Vec<String> {
    let verb = verb.unwrap_or("run");
    let forms = [
        noun.to_owned(),
        format!("{noun}s"),
        format!("{noun}s/{id}"),
        format!("{noun}/{verb}"),
        format!("{noun}s/{id}/{verb}"),
        format!("accounts/{VICTIM}/{noun}s"),
    ];
    PLACES.iter().flat_map(|place| forms.iter().map(move |form| format!("{place}/{form}"))).collect()
}

/// Everything that commands could have changed.
fn all_there_is(stack: &Stack) -> Vec<Value> {
    let mut all = vec![stack.admin(&["account", "list"]), stack.admin(&["dead", "list"])];
    for account in [&stack.account, VICTIM] {
        for list in [["key", "list"], ["channel", "list"], ["agent", "list"], ["credit", "show"], ["endpoint", "list"]]
        {
            all.push(stack.admin(&[list[0], list[1], account]));
        }
    }
    all
}

async fn ask(caller: &Caller, url: Option<&str>, method: &Method, path: &str) -> Answer {
    let body = format!(r#"{{"account":"{VICTIM}","name":"x","email":"a@b.example","channel":"mcp","amount":"1000"}}"#);
    let request = match url {
        None => caller.request(method.clone(), path),
        Some(url) => reqwest::Client::new().request(method.clone(), format!("{url}{path}")),
    };
    Answer::to(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn no_key_of_an_account_does_what_operators_do() {
    let stack = Stack::on(Database::Sqlite).set("FRONTDESK_KEY_LIMIT", 1_000_000).start().await;
    stack.another_account(VICTIM);
    let before = all_there_is(&stack);
    let commands = commands(&stack);
    for wanted in ["account create", "key create", "key revoke", "channel on", "credit grant", "agent apply"] {
        let (noun, verb) = wanted.split_once(' ').expect("two words");
        assert!(commands.contains(&(noun.to_owned(), Some(verb.to_owned()))), "{commands:?}");
    }
    let id = stack.admin(&["key", "list", VICTIM])[0]["id"].as_str().expect("an id").to_owned();
    let paths: BTreeSet<String> = commands.iter().flat_map(|(noun, verb)| paths(noun, verb.as_deref(), &id)).collect();
    let asked: Vec<(&Method, &String)> =
        METHODS.iter().flat_map(|method| paths.iter().map(move |p| (method, p))).collect();

    let caller = Caller::of(&stack);
    let answers =
        stream::iter(&asked).map(async |(method, path)| (*method, *path, ask(&caller, None, method, path).await));
    let answers: Vec<_> = answers.buffer_unordered(8).collect().await;
    for (method, path, answer) in &answers {
        let is_for_callers = FOR_CALLERS.contains(&((*method).clone(), path.as_str()));
        match answer.status {
            404 => drop(answer.fault(404, "not_found")),
            405 => drop(answer.fault(405, "method_not_allowed")),
            _ => assert!(is_for_callers, "{method} {path}: {answer}"),
        }
        assert!(!is_for_callers || answer.status < 404, "{method} {path}: {answer}");
    }
    let ports = on_the_ports_for_operators(&stack, &caller).await;
    let doors = at_the_queue(&stack).await;
    assert_eq!(all_there_is(&stack), before, "an account's key has changed something");
    println!(
        "operators only: {} commands, {} requests on {} paths of the API, {ports} on ports for operators, {doors} at NATS; \
         0 let through",
        commands.len(),
        asked.len(),
        paths.len()
    );
}

/// The ports of metrics know four pages, and take nothing.
async fn on_the_ports_for_operators(stack: &Stack, caller: &Caller) -> usize {
    let mut tried = 0;
    for url in [&stack.gateways[0].metrics_url, &stack.worker_metrics_url(0)] {
        for path in
            ["/metrics", "/scale", "/livez", "/readyz", "/accounts", "/keys", "/admin", "/debug/pprof", "/config"]
        {
            for method in METHODS.into_iter().chain([Method::TRACE]) {
                let answer = ask(caller, Some(url), &method, path).await;
                let is_page =
                    ["/metrics", "/livez", "/readyz"].contains(&path) || answer.status == 200 && path == "/scale";
                let expected = if is_page && method == Method::GET { &[200][..] } else { &[404, 405] };
                assert!(expected.contains(&answer.status), "{method} {url}{path}: {answer}");
                tried += 1;
            }
        }
    }
    tried
}

/// Neither a key nor nothing is a password at NATS, for no user; and no command takes a key for one.
async fn at_the_queue(stack: &Stack) -> usize {
    use async_nats::ConnectOptions;

    let url = stack.nats.url();
    let mut ways = vec![ConnectOptions::new(), ConnectOptions::with_token(stack.key.clone())];
    for user in ["admin", "gateway", "worker", "sys", &stack.account, &stack.key] {
        for password in ["", &stack.key, user, "password"] {
            ways.push(ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()));
        }
    }
    let tried = ways.len();
    for way in ways {
        let shown = format!("{way:?}");
        assert!(way.connect(&url).await.is_err(), "NATS let in {shown}");
    }
    ConnectOptions::with_user_and_password("admin".to_owned(), PASSWORD.to_owned())
        .connect(&url)
        .await
        .expect("a way in");

    let mut command = stack.operator_command();
    command.args(["dead", "list"]).env("NATS_ADMIN_PASSWORD", &stack.key);
    assert_eq!(command.output().expect("the gateway's binary").status.code(), Some(1));
    tried + 1
}
