//! Request smuggling: whatever cannot be read in one way is refused, and nothing behind it is run.

use futures_util::future::join_all;
use serde_json::Value;
use tests::{
    caller::Caller,
    database::Database,
    model::ModelServer,
    nginx::{Bodies, Nginx},
    patience::nonce,
    raw::Connection,
    stack::Stack,
};

use super::smuggling_forms::{self, Form, Reading, SMUGGLED};

/// How many requests of somebody else go through nginx beside the forms.
const BYSTANDER: usize = 50;

/// A stack whose model is counted, and which soon closes what stays open.
async fn stack(model: &ModelServer) -> Stack {
    let builder = Stack::with_model(Database::Sqlite, model).set("FRONTDESK_KEY_LIMIT", 100_000);
    builder.set("FRONTDESK_HEADER_TIMEOUT", "1s").set("FRONTDESK_BODY_TIMEOUT", "2s").start().await
}

/// What comes back until the connection ends, answer by answer.
async fn answers(url: &str, form: &Form) -> Vec<String> {
    let mut connection = Connection::to(url).await;
    connection.send(&form.bytes).await;
    let said = String::from_utf8_lossy(&connection.rest().await).into_owned();
    said.split("HTTP/1.1 ").skip(1).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_what_is_behind_it_is_not_run() {
    let model = ModelServer::start().await.expect("a model server");
    let stack = stack(&model).await;
    let url = stack.url("");
    let forms = smuggling_forms::all(&stack.key, &stack.agent);
    let all = join_all(forms.iter().map(|form| answers(&url, form))).await;
    let mut refused = 0;
    for (form, answers) in forms.iter().zip(&all) {
        assert_eq!(answers.len(), form.before + 1, "{}: {answers:?}", form.name);
        let answer = &answers[form.before];
        if form.reading == Reading::Refused {
            assert!(answer.starts_with('4') || answer.starts_with("501"), "{}: {answer}", form.name);
            assert!(answer.contains("connection: close"), "{}: {answer}", form.name);
            refused += 1;
        }
    }
    assert_eq!(model.calls().len(), 0, "a form reached the model");
    let prompt = nonce();
    assert_eq!(Caller::of(&stack).chat(&stack.agent, &prompt).await.ok()["content"], prompt);
    assert_eq!(model.calls().len(), 1);
    println!("smuggling: {} forms, {refused} refused, {} read in one way, 0 calls", forms.len(), forms.len() - refused);
    assert!(refused >= 40);
}

/// Somebody else, whose connections through `url` share those to the gateway with the forms.
async fn bystander(stack: &Stack, url: &str) -> usize {
    let caller = Caller::of(stack).at_url(url);
    for _ in 0..BYSTANDER {
        let prompt = nonce();
        assert_eq!(caller.chat(&stack.agent, &prompt).await.ok()["content"], prompt, "an answer to somebody else");
    }
    BYSTANDER
}

/// nginx reads some forms as we do not, and may well find a second request behind one. What it makes of them is one
/// request each for the gateway, nothing more, and nobody gets another's answer.
#[tokio::test]
async fn behind_nginx_the_gateway_sees_the_requests_that_nginx_saw() {
    let model = ModelServer::start().await.expect("a model server");
    let stack = stack(&model).await;
    let nginx = Nginx::before(&stack.url("")).await.expect("an nginx");
    let requests = "frontdesk_requests_total";
    let before = stack.metric(requests).await;
    let (mut sent, mut answered) = (0, 0);
    for bodies in [Bodies::Whole, Bodies::AsTheyCome] {
        let url = nginx.url(bodies);
        let forms = smuggling_forms::all(&stack.key, &stack.agent);
        let (all, asked) =
            tokio::join!(join_all(forms.iter().map(|form| answers(&url, form))), bystander(&stack, &url));
        sent += forms.len();
        answered += asked + all.iter().map(Vec::len).sum::<usize>();
    }
    let seen = nginx.answered();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let understood: Vec<_> = seen.iter().filter(|line| !text(line, "id").is_empty()).collect();
    assert_eq!(stack.metric(requests).await - before, understood.len() as f64, "{seen:#?}");
    assert!(answered <= seen.len(), "{answered} answers to {} requests: {seen:#?}", seen.len());

    let count_of = |texts: Vec<String>| texts.iter().filter(|text| text.contains(SMUGGLED)).count();
    let read_by_nginx = count_of(understood.iter().map(|line| text(line, "request")).collect());
    let run = count_of(model.calls().iter().map(|call| call.prompt().to_owned()).collect());
    assert_eq!(run, read_by_nginx, "a second request that nginx knew nothing of was run: {seen:#?}");
    let understood = understood.len();
    let refused = seen.iter().filter(|line| text(line, "upstream").is_empty()).count();
    println!(
        "smuggling behind nginx: {sent} forms, {refused} requests refused by nginx, {understood} passed on and counted \
         by the gateway as well, {run} of them second ones that nginx itself had read, 0 unknown to it"
    );
    assert!(refused >= 40 && understood > 2 * BYSTANDER);
}
