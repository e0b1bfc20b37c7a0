//! Who may do what on the queue, by the shipped `nats.conf`: each role is tried on every subject, in its own name.

use common::{
    domain::job::Lane,
    queue::{config::QueueRole, subjects},
};
use futures_util::TryStreamExt as _;
use tests::{
    nats::PASSWORD,
    nats_wire::NatsWire,
    queue::{Queue, job, publish},
};

use super::nats_subjects::{GATEWAY_HEARS, GATEWAY_SAYS, WORKER_HEARS, WORKER_SAYS, heard, said};

/// Whether the server refused something for want of a right, as it has to say then.
fn is_refused(subject: &str, words: Option<&str>) -> bool {
    if let Some(words) = words {
        assert!(words.contains("Permissions Violation"), "{subject}: {words}");
    }
    words.is_some()
}

/// Whether `pattern` lets `subject` be listened to. The server takes a `>` there for a token like any other, so that
/// `cancel.*` lets somebody hear `cancel.>` as well; nothing of ours is longer by a token than what it lets.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut named) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), named.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// What the queue is made of, as its admin sees it: streams and consumers.
async fn standing(queue: &Queue) -> Vec<String> {
    let admin = queue.admin().await;
    let mut all = Vec::new();
    let mut streams = admin.streams();
    while let Some(info) = streams.try_next().await.expect("a stream") {
        all.push(format!("{} {:?}", info.config.name, info.config));
        let stream = admin.get_stream(&info.config.name).await.expect("a stream");
        let mut consumers = stream.consumers();
        while let Some(info) = consumers.try_next().await.expect("a consumer") {
            all.push(format!("{} {} {:?}", info.stream_name, info.name, info.config));
        }
    }
    all.sort();
    all
}

/// How many jobs are on the queue.
async fn jobs(queue: &Queue) -> u64 {
    queue.admin().await.get_stream(subjects::JOBS).await.expect("JOBS").cached_info().state.messages
}

/// Tries everything in the name of `user`, who may `say` and `hear` this much; how much was refused.
async fn try_all(queue: &Queue, user: &str, say: &[&str], hear: &[&str]) -> usize {
    let mut wire = NatsWire::open(&queue.nats, user, PASSWORD).await.expect("to be let in");
    let mut refused = 0;
    for subject in said() {
        let words = wire.publish(&subject, "").await;
        let may = say.contains(&subject.as_str());
        assert_eq!(is_refused(&subject, words.as_deref()), !may, "{user} says {subject}: {words:?}");
        refused += usize::from(!may);
    }
    for subject in heard() {
        for group in ["", "group"] {
            let words = wire.subscribe(&subject, group).await;
            let may = hear.iter().any(|pattern| covers(pattern, &subject));
            assert_eq!(is_refused(&subject, words.as_deref()), !may, "{user} hears {subject}: {words:?}");
            refused += usize::from(!may);
        }
    }
    refused
}

#[tokio::test]
async fn each_role_may_what_it_needs_and_nothing_else() {
    let queue = Queue::start().await;
    let before = (standing(&queue).await, jobs(&queue).await);
    let by_gateway = try_all(&queue, "gateway", &GATEWAY_SAYS, &GATEWAY_HEARS).await;
    let by_worker = try_all(&queue, "worker", &WORKER_SAYS, &WORKER_HEARS).await;
    let put_there = GATEWAY_SAYS.iter().filter(|subject| subject.starts_with("jobs.")).count() as u64;
    let after = (standing(&queue).await, jobs(&queue).await - put_there);
    assert_eq!(after, before, "what was refused was done all the same");
    println!(
        "NATS, roles: {by_gateway} acts refused to the gateway and {by_worker} to the worker; {} and {} that they need allowed",
        GATEWAY_SAYS.len() + 2 * GATEWAY_HEARS.len(),
        WORKER_SAYS.len() + 2 * WORKER_HEARS.len()
    );
    assert!(by_gateway >= 200 && by_worker >= 200);
}

/// A gateway answers whoever asks it, once, and writes into nobody's inbox otherwise.
#[tokio::test]
async fn who_is_asked_may_answer_once() {
    let queue = Queue::start().await;
    let open = async |user| NatsWire::open(&queue.nats, user, PASSWORD).await.expect("to be let in");
    let (mut admin, mut gateway, mut worker) = (open("admin").await, open("gateway").await, open("worker").await);
    assert_eq!(gateway.subscribe("invalidate.>", "").await, None);
    assert_eq!(worker.subscribe("invalidate.>", "").await, None);
    assert_eq!(admin.subscribe("_INBOX.admin.>", "").await, None);
    assert!(gateway.publish("_INBOX.admin.x", "unasked").await.is_some());
    assert_eq!(admin.request("invalidate.keys", "_INBOX.admin.x", "").await, None);
    assert_eq!((gateway.heard().await.len(), worker.heard().await.len()), (1, 1));
    assert_eq!(gateway.publish("_INBOX.admin.x", "heard").await, None);
    assert!(gateway.publish("_INBOX.admin.x", "again").await.is_some());
    assert!(worker.publish("_INBOX.admin.x", "heard").await.is_some(), "nobody asks a worker");
    assert_eq!(admin.heard().await, [("_INBOX.admin.x".to_owned(), b"heard".to_vec())]);
    println!("NATS, answers: 1 allowed after 1 question, 3 others refused");
}

#[tokio::test]
async fn nobody_gets_in_without_the_right_password() {
    let queue = Queue::start().await;
    let before = jobs(&queue).await;
    let token = format!(r#"{{"auth_token":"{PASSWORD}"}}"#);
    let no_user = format!(r#"{{"pass":"{PASSWORD}"}}"#);
    let mut strangers: Vec<String> = [
        "{}",
        r#"{"user":"gateway"}"#,
        r#"{"user":"","pass":""}"#,
        r#"{"jwt":"e30.e30.e30","sig":"AAAA"}"#,
        &token,
        &no_user,
    ]
    .map(str::to_owned)
    .to_vec();
    for user in ["admin", "gateway", "worker", "sys", "Gateway", "gateway ", "root", "APP", "$SYS", "*", ">"] {
        for password in ["", "wrong", "FOR-TESTS", "for-tests ", "for-test", "$NATS_GATEWAY_PASSWORD", user] {
            strangers.push(serde_json::json!({ "user": user, "pass": password }).to_string());
        }
        if !["admin", "gateway", "worker", "sys"].contains(&user) {
            strangers.push(serde_json::json!({ "user": user, "pass": PASSWORD }).to_string());
        }
    }
    for options in &strangers {
        let refused = NatsWire::open_with(&queue.nats, options).await.err();
        assert!(
            refused.as_ref().is_some_and(|words| words.contains("Authorization Violation")),
            "{options}: {refused:?}"
        );
    }
    // Before or without an introduction.
    let mut silent = 0;
    for lines in ["PUB jobs.interactive.front.a.j 2\r\nhi\r\n", "SUB > 1\r\n", "SUB $SYS.> 1\r\n", ""] {
        let words = NatsWire::silent(&queue.nats).await.refusal(lines).await;
        assert!(words.is_some_and(|words| words.contains("Authorization")), "{lines:?}");
        silent += 1;
    }
    assert_eq!(jobs(&queue).await, before);
    println!("NATS, strangers: {} introductions and {silent} acts without one, all refused", strangers.len());
}

/// The system account is for the server's own affairs: the jobs are in another one.
#[tokio::test]
async fn the_system_account_sees_no_jobs() {
    let queue = Queue::start().await;
    let before = jobs(&queue).await;
    let mut sys = NatsWire::open(&queue.nats, "sys", PASSWORD).await.expect("to be let in");
    assert_eq!(sys.subscribe(">", "").await, None);
    let gateway = queue.connect(QueueRole::Gateway).await;
    publish(&gateway, &job(Lane::Background)).await;
    assert_eq!(sys.publish("jobs.interactive.front.a.j", "mine").await, None);
    for act in ["STREAM.INFO.JOBS", "STREAM.MSG.GET.JOBS", "STREAM.PURGE.JOBS", "STREAM.DELETE.JOBS", "STREAM.NAMES"] {
        assert_eq!(sys.request(&format!("$JS.API.{act}"), "_INBOX.sys.x", "").await, None);
    }
    let heard = sys.heard().await;
    assert!(heard.iter().any(|(subject, _)| subject == "jobs.interactive.front.a.j"), "it hears its own: {heard:?}");
    let of_ours = |payload: &[u8]| String::from_utf8_lossy(payload).contains("agent_version");
    assert!(!heard.iter().any(|(_, payload)| of_ours(payload)), "a job was heard: {heard:?}");
    let answers: Vec<_> = heard.iter().filter(|(subject, _)| subject == "_INBOX.sys.x").collect();
    assert!(answers.iter().all(|(_, answer)| answer.is_empty() || String::from_utf8_lossy(answer).contains("error")));
    assert_eq!(jobs(&queue).await, before + 1, "the system account put a job there, or took one");
    println!("NATS, sys: 6 acts on the jobs reached none of them, {} messages of its own account heard", heard.len());
}
