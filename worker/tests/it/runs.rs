//! Whole runs: which failures are tried again, what is said meanwhile, and what is counted.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::domain::{failure::FailureCode, message::Usage};
use tests::model::{Behaviour, Ending, ModelServer};
use tokio::time::Instant;
use worker::{
    agent::{
        error::RunError,
        meter::Meter,
        runtime::{Event, Run, Runtime, RuntimeConfig},
    },
    providers::registry::{ProvidersConfig, Registry},
};

use crate::support::{agent, config, job};

const LONG: Duration = Duration::from_secs(20);

struct Bench {
    server: ModelServer,
    runtime: Runtime,
    observed: Arc<Mutex<Vec<&'static str>>>,
}

impl Bench {
    async fn new() -> Self {
        let server = ModelServer::start().await.expect("a model server");
        let registry = Registry::new(ProvidersConfig { openai: Some(config(&server.url())) }).expect("a client");
        let observed = Arc::new(Mutex::new(Vec::new()));
        let outcomes = Arc::clone(&observed);
        let observer = Box::new(move |_, outcome| outcomes.lock().expect("no panic").push(outcome));
        Self { server, runtime: Runtime::new(registry, RuntimeConfig::default(), observer), observed }
    }

    /// Scripts these behaviours for a run of at most `limit`; how it ended, and what was said.
    async fn run(
        &self,
        behaviours: impl IntoIterator<Item = Behaviour>,
        limit: Duration,
    ) -> (Result<Run, RunError>, String) {
        behaviours.into_iter().for_each(|behaviour| self.server.script(behaviour));
        self.run_with("openai", "hello there", limit, &mut Meter::default()).await
    }

    async fn run_with(
        &self,
        provider: &str,
        prompt: &str,
        limit: Duration,
        meter: &mut Meter,
    ) -> (Result<Run, RunError>, String) {
        let agent = agent(provider);
        let mut said = String::new();
        let mut note = |event: Event<'_>| match event {
            Event::Text(text) => said.push_str(text),
            Event::Restarted => said.push('|'),
        };
        let job = job(&agent, prompt);
        let end = self.runtime.run(&agent, &job, Instant::now() + limit, &mut note, meter).await;
        (end, said)
    }

    fn calls(&self) -> usize {
        self.server.calls().len()
    }

    fn observed(&self) -> Vec<&'static str> {
        self.observed.lock().expect("no panic").clone()
    }
}

fn usage(input_tokens: u32, output_tokens: u32, estimated: bool) -> Usage {
    Usage { input_tokens, output_tokens, estimated }
}

#[tokio::test]
async fn a_run_gives_the_instructions_and_the_turns_to_the_model() {
    let bench = Bench::new().await;
    let (end, said) = bench.run([], LONG).await;
    let run = end.expect("an echo");
    assert_eq!((run.content.as_str(), said.as_str()), ("hello there", "hello there"));
    assert_eq!((run.model.as_str(), run.usage), ("scripted-1", usage(7, 3, false)));
    let messages = bench.server.calls()[0].body["messages"].clone();
    assert_eq!(messages[0]["content"], "be kind");
    assert_eq!(messages[1]["content"], "hello there");
    assert_eq!(bench.observed(), ["ok"]);
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for passing in [Behaviour::rate_limited(Some("0")), Behaviour::unavailable(), Behaviour::raw("")] {
        let bench = Bench::new().await;
        let (end, said) = bench.run([passing.clone(), passing], LONG).await;
        assert_eq!(end.expect("the third try").content, "hello there");
        assert_eq!(said, "hello there", "nothing had been said before, so nothing is restarted");
        assert_eq!(bench.calls(), 3);
    }
}

#[tokio::test]
async fn tries_are_counted() {
    let bench = Bench::new().await;
    bench.server.always(Behaviour::unavailable());
    let (end, _) = bench.run([], LONG).await;
    let error = end.expect_err("it never passes");
    assert_eq!(error.failure.code, FailureCode::ProviderUnavailable);
    assert_eq!(error.failure.message, "the model provider cannot serve now (status 503, `unavailable_error`)");
    assert!(error.failure.retryable);
    assert_eq!((error.usage, error.retry_after), (Usage::default(), None));
    assert_eq!(bench.calls(), 3);
    assert_eq!(bench.observed(), ["provider_unavailable"; 3]);
}

#[tokio::test]
async fn what_cannot_pass_is_not_tried_again() {
    for (hopeless, code) in [
        (Behaviour::quota(), FailureCode::ProviderQuota),
        (Behaviour::wrong_key(), FailureCode::ProviderAuth),
        (Behaviour::context_length(), FailureCode::ContextLength),
        (Behaviour::bad_request(), FailureCode::ProviderBadRequest),
        (Behaviour::web_page(200), FailureCode::ProviderProtocol),
    ] {
        let bench = Bench::new().await;
        let error = bench.run([hopeless], LONG).await.0.expect_err("hopeless");
        assert_eq!((error.failure.code, error.failure.retryable), (code, false));
        assert_eq!(bench.calls(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_short_delay_is_waited_for_and_a_long_one_handed_back() {
    let bench = Bench::new().await;
    let began = Instant::now();
    bench.run([Behaviour::rate_limited(Some("1"))], LONG).await.0.expect("the second try");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    let bench = Bench::new().await;
    let error = bench.run([Behaviour::rate_limited(Some("60"))], LONG).await.0.expect_err("too long for a slot");
    assert_eq!(error.failure.code, FailureCode::ProviderRateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(60)));
    assert_eq!(bench.calls(), 1);
}

#[tokio::test]
async fn text_that_has_left_is_taken_back_before_another_try() {
    let bench = Bench::new().await;
    let broken = Behaviour::answer(["half an ", "answer"]).ending(Ending::Cut);
    let (end, said) = bench.run([broken, Behaviour::answer(["a whole ", "one"])], LONG).await;
    let run = end.expect("the second try");
    assert_eq!((run.content.as_str(), said.as_str()), ("a whole one", "half an answer|a whole one"));
    // `be kind` and `hello there` are 18 bytes, `half an answer` 14: 5 + 4 tokens, and the report of the second call.
    assert_eq!(run.usage, usage(7 + 5, 3 + 4, true));
    assert_eq!(bench.observed(), ["truncated", "ok"]);
}

#[tokio::test]
async fn what_a_failed_run_used_is_told() {
    let bench = Bench::new().await;
    bench.server.always(Behaviour::answer(["half an ", "answer"]).marks(false, false));
    let (end, said) = bench.run([], LONG).await;
    let error = end.expect_err("never whole");
    assert_eq!(said, "half an answer|half an answer|half an answer");
    assert_eq!((error.failure.code, error.usage), (FailureCode::Truncated, usage(15, 12, true)));
}

#[tokio::test]
async fn a_missing_usage_is_estimated() {
    let bench = Bench::new().await;
    let (end, _) = bench.run([Behaviour::answer(["12345"]).usage(None)], LONG).await;
    assert_eq!(end.expect("an answer").usage, usage(5, 2, true));
}

#[tokio::test]
async fn no_run_outlives_its_deadline() {
    let limit = Duration::from_millis(250);
    let bench = Bench::new().await;
    let began = Instant::now();
    let (end, said) = bench.run([Behaviour::answer(["tick"; 100]).paced(Duration::from_millis(20))], limit).await;
    let error = end.expect_err("too slow");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(error.failure.code, FailureCode::RunLimit);
    assert!(said.starts_with("ticktick") && error.usage.output_tokens > 1, "{said} {:?}", error.usage);
    assert_eq!(bench.observed(), ["dropped"]);
}

#[tokio::test]
async fn a_pause_that_would_outlast_the_deadline_is_not_begun() {
    let bench = Bench::new().await;
    let began = Instant::now();
    let refused = [Behaviour::rate_limited(Some("4"))];
    let error = bench.run(refused, Duration::from_secs(3)).await.0.expect_err("no time");
    assert_eq!(error.failure.code, FailureCode::ProviderRateLimited);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(bench.calls(), 1);
}

#[tokio::test]
async fn a_dropped_run_stops_the_model_and_tells_what_it_used() {
    let bench = Bench::new().await;
    bench.server.script(Behaviour::answer(["half an ", "answer"]).ending(Ending::Hang));
    let mut meter = Meter::default();
    let run = bench.run_with("openai", "hello there", LONG, &mut meter);
    assert!(tokio::time::timeout(Duration::from_millis(150), run).await.is_err(), "the run was to hang");
    assert_eq!(meter.usage(), usage(5, 4, true));
    tokio::time::timeout(Duration::from_secs(2), bench.server.hung_up(1)).await.expect("the server was to notice");
    assert_eq!(bench.observed(), ["dropped"]);
}

#[tokio::test]
async fn a_nul_never_reaches_the_store() {
    let bench = Bench::new().await;
    let (end, said) = bench.run([Behaviour::answer(["a\0b", "\0"])], LONG).await;
    assert_eq!(end.expect("an answer").content, "a\u{fffd}b\u{fffd}");
    assert_eq!(said, "a\u{fffd}b\u{fffd}");
}

#[tokio::test(start_paused = true)]
async fn demo_runs_like_any_other_provider() {
    let bench = Bench::new().await;
    let (end, _) = bench.run_with("demo", "one\n/sleep 10s\ntwo", LONG, &mut Meter::default()).await;
    let run = end.expect("an echo");
    assert_eq!((run.content.as_str(), run.model.as_str(), run.usage), ("one\ntwo", "demo", usage(6, 2, false)));

    let (end, said) = bench.run_with("demo", "one\n/fail 503", LONG, &mut Meter::default()).await;
    assert_eq!(end.expect_err("told to fail").failure.code, FailureCode::ProviderUnavailable);
    assert_eq!(said, "one|one|one");

    let (end, _) = bench.run_with("demo", "/sleep 1h", LONG, &mut Meter::default()).await;
    assert_eq!(end.expect_err("too long").failure.code, FailureCode::RunLimit);
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn an_agent_with_an_unknown_provider_fails_at_once() {
    let bench = Bench::new().await;
    let (end, _) = bench.run_with("oracle", "hello", LONG, &mut Meter::default()).await;
    assert_eq!(end.expect_err("no such provider").failure.code, FailureCode::ProviderMissing);
}
