//! Batches from their submission to their results: what is taken, who sees it, and how it is followed.

use std::collections::BTreeSet;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tests::{
    answer::Answer,
    batch::{BATCHES, LINES, accepted, body, counts, ended, id_of, line, read, results, results_by_id, submit},
    caller::Caller,
    database::Database,
    patience::until,
    sse::{Events, names},
    stack::Stack,
};

const MEMBERS: [&str; 10] = [
    "batch_id",
    "completed_at",
    "created_at",
    "enqueued_at",
    "request_counts",
    "results_url",
    "retry_of",
    "skipped",
    "status",
    "stream_url",
];

#[rstest]
#[tokio::test]
async fn a_batch_runs_to_its_end_and_its_results_hold_each_line_once(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let answer = submit(&stack, body(&stack.agent, 300)).await;
    assert_eq!((answer.status, answer.header("content-type")), (202, Some("application/json")), "{answer}");
    assert_eq!(answer.members(), BTreeSet::from(MEMBERS.map(str::to_owned)));
    let id = id_of(&answer);
    assert_eq!(answer.header("location"), Some(&*format!("{BATCHES}/{id}")));
    let batch = answer.json();
    assert!(batch["enqueued_at"].is_string() && ["in_progress", "completed"].iter().any(|s| batch["status"] == *s));
    assert_eq!(counts(&batch)[0], 300);

    let batch = ended(&stack, &id).await;
    assert_eq!((&batch["status"], counts(&batch)), (&json!("completed"), [300, 300, 0, 0]));
    assert!(batch["completed_at"].is_string() && batch["retry_of"].is_null() && batch["skipped"] == 0);
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 300.0);
    assert_eq!(stack.metric("frontdesk_batches_accepted_total").await, 1.0);

    let url = batch["results_url"].as_str().expect("a URL");
    assert_eq!(url, format!("{BATCHES}/{id}/results"));
    let by_id = results_by_id(&stack, &id).await;
    assert_eq!(by_id.len(), 300);
    for n in 1..=300 {
        let result = &by_id[&format!("line-{n}")];
        assert_eq!((&result["line"], &result["content"]), (&json!(n), &json!(format!("prompt {n}"))));
        assert_eq!(
            (&result["status"], &result["model"], &result["error"]),
            (&json!("completed"), &json!("demo"), &json!(null))
        );
        assert_eq!(result["usage"]["total_tokens"], 4, "{result}");
    }
    let message = &by_id["line-7"]["message_id"].as_str().expect("an id").to_owned();
    let message = Answer::of(stack.get(&format!("/api/v1/messages/{message}")).await).await.ok();
    assert_eq!((&message["batch_id"], &message["channel"]), (&json!(id), &json!("api")));
    assert_eq!(stack.billed(), 300);
}

#[rstest]
#[tokio::test]
async fn lines_have_four_forms_and_ends_of_every_kind(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let agent = &stack.agent;
    let wrapped = |id: &str, url: &str, body: Value| {
        json!({ "custom_id": id, "method": "POST", "url": url, "body": body }).to_string()
    };
    let said = json!([{ "role": "user", "content": "earlier" }, { "role": "assistant", "content": "I see" }]);
    let messages = json!([{ "role": "system", "content": "be kind" }, { "role": "user", "content": "by name" }]);
    let lines = [
        line("own", agent, "own form"),
        String::new(),
        wrapped("chat", "/api/v1/chat", json!({ "employee_id": agent, "prompt": "as chat", "metadata": { "k": 1 } })),
        wrapped("agents", "/api/agents/chat", json!({ "agentId": agent, "history": said, "message": "as agents" })),
        wrapped("id", "/v1/chat/completions", json!({ "model": agent, "messages": messages, "temperature": 0.5 })),
        " \t".to_owned(),
        wrapped("name", "/v1/chat/completions", json!({ "model": "Assistant", "messages": messages })),
        line("fails", agent, "/fail 400"),
    ];
    // A byte order mark, CRLF, blank lines and a last line without an end.
    let id = accepted(&stack, format!("\u{feff}{}", lines.join("\r\n"))).await;
    let batch = ended(&stack, &id).await;
    assert_eq!((&batch["status"], counts(&batch)), (&json!("completed"), [6, 5, 1, 0]));
    let by_id = results_by_id(&stack, &id).await;
    for (custom_id, number, content) in [
        ("own", 1, "own form"),
        ("chat", 3, "as chat"),
        ("agents", 4, "as agents"),
        ("id", 5, "by name"),
        ("name", 7, "by name"),
    ] {
        let result = &by_id[custom_id];
        assert_eq!((&result["line"], &result["content"]), (&json!(number), &json!(content)), "{result}");
    }
    let failed = &by_id["fails"];
    assert_eq!((&failed["status"], &failed["content"], &failed["line"]), (&json!("failed"), &json!(null), &json!(8)));
    assert!(failed["error"]["code"].is_string() && failed["error"]["message"].is_string(), "{failed}");
    let chat = by_id["chat"]["message_id"].as_str().expect("an id").to_owned();
    let chat = Answer::of(stack.get(&format!("/api/v1/messages/{chat}")).await).await.ok();
    assert_eq!(chat["metadata"], json!({ "k": 1 }));
}

#[rstest]
#[tokio::test]
async fn results_can_be_read_while_the_batch_runs_and_go_on_after_any_of_them(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let slow: String = (1..=3).map(|n| line(&format!("slow-{n}"), &stack.agent, "/sleep 4s\nslow") + "\n").collect();
    let fails = line("fails", &stack.agent, "/fail 400") + "\n";
    let id = accepted(&stack, slow + &fails + &body(&stack.agent, 40)).await;
    let early = until("the quick ones have ended", async || {
        let results = results(&stack, &id, "").await;
        (results.len() == 41).then_some(results)
    })
    .await;
    assert_eq!(read(&stack, &id).await["status"], "in_progress");
    let seqs: Vec<_> = early.iter().map(|result| result["seq"].as_u64().expect("a place")).collect();
    assert_eq!(seqs, (1..=41).collect::<Vec<_>>());

    ended(&stack, &id).await;
    let all = results(&stack, &id, "").await;
    assert_eq!((all.len(), &all[..41]), (44, &early[..]), "what was seen stays as it is");
    for after in [0, 1, 17, 41, 43, 44, 1_000] {
        let rest = all[all.len().min(after)..].to_vec();
        assert_eq!(results(&stack, &id, &format!("after={after}")).await, rest);
    }
    let failed = results(&stack, &id, "status=failed").await;
    assert_eq!(failed.iter().map(|result| &result["custom_id"]).collect::<Vec<_>>(), ["fails"]);
    assert_eq!(results(&stack, &id, "status=completed&after=41").await, all[41..]);
    assert_eq!(results(&stack, &id, "status=cancelled").await, Vec::<Value>::new());
    let caller = Caller::of(&stack);
    for query in ["after=x", "after=-1", "status=done", "after=1&after=2"] {
        caller.get(&format!("{BATCHES}/{id}/results?{query}")).await.fault(400, "invalid_request");
    }
}

#[rstest]
#[tokio::test]
async fn a_batch_is_followed_from_every_gateway(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let mut stack = Stack::on(database).gateways(2).workers(0).start().await;
    let id = accepted(&stack, body(&stack.agent, 5)).await;
    let path = format!("{BATCHES}/{id}/stream");
    let request = |index| stack.request_at(index, Method::GET, &path, &stack.key);
    let mut readers = [Events::open(request(0)).await, Events::open(request(1)).await];
    for reader in &mut readers {
        let progress = reader.expect("batch.progress").await;
        assert_eq!((&progress.data["batch_id"], counts(&progress.data)), (&json!(id), [5, 0, 0, 0]));
    }
    let waiting =
        Answer::to(stack.request_at(1, Method::GET, &format!("{BATCHES}/{id}?wait=1"), &stack.key)).await.ok();
    assert_eq!(waiting["status"], "in_progress");
    let requests = [request(0), request(1)];
    stack.add_worker().await;
    for reader in readers {
        let events = reader.rest().await;
        let last = events.last().expect("an end");
        assert_eq!((&*last.name, &*last.id), ("batch.completed", "end"));
        assert!(names(&events[..events.len() - 1]).iter().all(|name| *name == "batch.progress"));
        assert_eq!(last.data, read(&stack, &id).await);
    }
    for request in requests {
        let again = request.try_clone().expect("a request");
        assert_eq!(names(&Events::open(again).await.rest().await), ["batch.completed"]);
        let seen = Answer::to(request.header("last-event-id", "end")).await;
        assert_eq!((seen.status, seen.body.len()), (204, 0));
    }
}

#[rstest]
#[tokio::test]
async fn batches_are_listed_newest_first_to_who_may_see_them(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(accepted(&stack, body(&stack.agent, 1)).await);
    }
    let limited = stack.make_key(&stack.account, "limited", &[&stack.agent]);
    let caller = Caller::of(&stack).with_key(&limited);
    let own = caller.with_header("content-type", LINES).request(Method::POST, BATCHES).body(body(&stack.agent, 1));
    let own = id_of(&Answer::to(own).await);
    ids.push(own.clone());
    ids.reverse();
    for id in &ids {
        ended(&stack, id).await;
    }

    let listed = async |query: &str| {
        let list = Answer::of(stack.get(&format!("{BATCHES}?{query}")).await).await.ok();
        let ids = list["batches"].as_array().expect("a list").iter().map(|batch| batch["batch_id"].clone());
        (ids.map(|id| id.as_str().expect("an id").to_owned()).collect::<Vec<_>>(), list["next_cursor"].clone())
    };
    assert_eq!(listed("").await, (ids.clone(), Value::Null));
    let (first, cursor) = listed("limit=3").await;
    assert_eq!(first, ids[..3]);
    let cursor = cursor.as_str().expect("a cursor").to_owned();
    assert_eq!(listed(&format!("limit=3&cursor={cursor}")).await, (ids[3..].to_vec(), Value::Null));
    assert_eq!(listed("status=completed").await.0, ids);
    assert_eq!(listed("status=cancelled").await.0, Vec::<String>::new());
    for query in ["status=done", "limit=0", "limit=101", "cursor=x"] {
        Caller::of(&stack).get(&format!("{BATCHES}?{query}")).await.fault(400, "invalid_request");
    }

    // A key that is limited to agents sees what it has made, and nobody sees another account's.
    let theirs = caller.get(BATCHES).await.ok();
    assert_eq!(theirs["batches"].as_array().map(Vec::len), Some(1));
    assert_eq!(caller.get(&format!("{BATCHES}/{own}")).await.ok()["batch_id"], json!(own));
    let (_, _, key) = stack.another_account("second");
    let stranger = Caller::of(&stack).with_key(&key);
    for (caller, id) in [(&caller, &*ids[1]), (&stranger, &*ids[1]), (&stranger, "x"), (&stranger, &*stack.agent)] {
        for path in ["", "/results", "/stream"] {
            caller.get(&format!("{BATCHES}/{id}{path}")).await.fault(404, "batch_not_found");
        }
        for path in ["/cancel", "/retry-failed"] {
            caller.post(&format!("{BATCHES}/{id}{path}"), "").await.fault(404, "batch_not_found");
        }
    }
    assert_eq!(stranger.get(BATCHES).await.ok(), json!({ "batches": [], "next_cursor": null }));
}

#[rstest]
#[tokio::test]
async fn what_was_not_answered_runs_again_as_a_new_batch(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::start(database).await;
    let agent = &stack.agent;
    let lines = [line("good", agent, "good"), line("bad", agent, "/fail 400"), line("worse", agent, "/fail 401")];
    let id = accepted(&stack, lines.join("\n")).await;
    let retry = format!("{BATCHES}/{id}/retry-failed");
    let caller = Caller::of(&stack).with_header("idempotency-key", "again");
    ended(&stack, &id).await;

    let first = caller.post(&retry, "").await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None), "{first}");
    let again = first.json();
    assert_eq!((&again["retry_of"], counts(&again)[0]), (&json!(id), 2));
    let again = id_of(&first);
    ended(&stack, &again).await;
    let by_id = results_by_id(&stack, &again).await;
    assert_eq!(by_id.keys().collect::<Vec<_>>(), ["bad", "worse"]);
    assert_eq!((&by_id["bad"]["line"], &by_id["worse"]["line"]), (&json!(2), &json!(3)));

    let replayed = caller.post(&retry, "").await;
    assert_eq!((id_of(&replayed), replayed.header("idempotent-replayed")), (again, Some("true")));
    let anew = id_of(&Caller::of(&stack).post(&retry, "").await);
    ended(&stack, &anew).await;

    let fine = accepted(&stack, body(agent, 2)).await;
    ended(&stack, &fine).await;
    let nothing = Caller::of(&stack).post(&format!("{BATCHES}/{fine}/retry-failed"), "").await;
    assert_eq!(nothing.fault(409, "nothing_to_retry")["batch_id"], json!(fine));
    let running = accepted(&stack, line("slow", agent, "/sleep 60s")).await;
    let early = Caller::of(&stack).post(&format!("{BATCHES}/{running}/retry-failed"), "").await;
    assert_eq!(early.fault(409, "not_ended")["status"], "in_progress");
}

#[rstest]
#[tokio::test]
async fn an_account_has_room_for_so_many_unfinished_jobs(
    #[values(Database::Sqlite, Database::Postgres)] database: Database,
) {
    let stack = Stack::on(database).workers(0).set("FRONTDESK_ACCOUNT_QUEUE_LIMIT", 10).start().await;
    submit(&stack, body(&stack.agent, 11)).await.fault(429, "account_queue_full");
    accepted(&stack, body(&stack.agent, 8)).await;
    let full = submit(&stack, body(&stack.agent, 3)).await;
    assert_eq!(
        (full.fault(429, "account_queue_full")["accepted"].clone(), full.header("retry-after")),
        (json!(false), Some("60"))
    );
    accepted(&stack, body(&stack.agent, 2)).await;

    let caller = Caller::of(&stack);
    let message = json!({ "employee_id": stack.agent, "prompt": "hello" }).to_string();
    caller.post("/api/v1/messages", message.as_str()).await.fault(429, "account_queue_full");
    caller.chat(&stack.agent, "hello").await.fault(429, "account_queue_full");
    let (_, agent, key) = stack.another_account("second");
    let other = caller.with_key(&key);
    let message = json!({ "employee_id": agent, "prompt": "hello" }).to_string();
    // Rows of single messages are written a little later than they are accepted.
    let mut taken = 0;
    until("the other account is full too", async || {
        let answer = other.post("/api/v1/messages", message.as_str()).await;
        taken += u32::from(answer.status == 202);
        (answer.status == 429).then(|| answer.fault(429, "account_queue_full"))
    })
    .await;
    assert!(taken >= 10, "{taken}");
}

#[rstest]
#[tokio::test]
async fn what_costs_needs_credits(#[values(Database::Sqlite, Database::Postgres)] database: Database) {
    let stack = Stack::on(database).set("FRONTDESK_PRICES", "demo=1000:1000").start().await;
    submit(&stack, body(&stack.agent, 3)).await.fault(402, "insufficient_credits");
    assert_eq!(stack.metric("frontdesk_jobs_accepted_total").await, 0.0);
    stack.admin(&["credit", "grant", &stack.account, "1"]);
    let id = accepted(&stack, body(&stack.agent, 3)).await;
    ended(&stack, &id).await;
    let charged: i64 =
        results(&stack, &id, "").await.iter().map(|line| line["credits_charged"].as_i64().expect("a charge")).sum();
    assert_eq!(
        charged,
        stack.charges().iter().map(|charge| -charge["amount_micro_credits"].as_i64().expect("an amount")).sum::<i64>()
    );
}
