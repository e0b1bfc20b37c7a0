//! Whole runs against a provider that fails as it likes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::domain::{
    agent::{Agent, AgentSpec},
    failure::{Failure, FailureCode},
    ids::{AccountId, AgentId, MessageId},
    job::Job,
    message::Usage,
    reply::Attempt,
    time::Millis,
};
use sim::{check, proptest::prelude::*};
use tokio::time::Instant;
use worker::{
    agent::{
        error::RunError,
        meter::Meter,
        runtime::{Event, Run, Runtime, RuntimeConfig},
    },
    providers::registry::{ProvidersConfig, Registry},
    reply::Gatherer,
    run::later,
};

use super::script::{Call, End, Scripted, call};
use crate::{clock::on_paused_clock, jobs};

/// A provider that asks for more than this is not waited for.
const LONGEST_IN_PLACE: Duration = Duration::from_secs(5);
/// The clock goes in steps of a millisecond, and each of two sleeps may take one more.
const STEPS: Duration = Duration::from_millis(3);

/// The most that a pause may be after so many failed calls, beside what the provider asks for.
fn longest_pause(failed: usize) -> Duration {
    Duration::from_millis(500 << (failed - 1)).min(Duration::from_secs(4))
}

struct Seen {
    result: Result<Run, RunError>,
    /// When each call began, and when the run ended, since its begin.
    calls: Vec<Duration>,
    ended: Duration,
    /// What was said; what was taken back ends with a line.
    said: String,
}

fn agent() -> Agent {
    let spec = AgentSpec {
        name: "Ada".to_owned(),
        description: String::new(),
        provider: Some("scripted".to_owned()),
        model: "m".to_owned(),
        instructions: String::new(),
        temperature: None,
        max_output_tokens: None,
    };
    Agent { id: AgentId::new(), account_id: AccountId::new(), version: 1, spec }
}

fn run(tries: u32, limit: Duration, calls: &[Call]) -> Seen {
    on_paused_clock(async {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let provider = Scripted { calls: calls.to_vec(), begun: noted.clone() };
        let registry = Registry::new(ProvidersConfig::default()).expect("no client").with(provider);
        let runtime = Runtime::new(registry, RuntimeConfig { tries }, Box::new(|_, _| {}));
        let (begun, mut said, mut meter) = (Instant::now(), String::new(), Meter::default());
        let mut note = |event: Event<'_>| match event {
            Event::Text(text) => said.push_str(text),
            Event::Restarted => said.push('\n'),
        };
        let agent = agent();
        let job = jobs::job(agent.account_id);
        let result = runtime.run(&agent, &job, begun + limit, &mut note, &mut meter).await;
        let calls = noted.lock().expect("no panic").iter().map(|at| *at - begun).collect();
        Seen { result, calls, ended: begun.elapsed(), said }
    })
}

/// What had to happen, call by call.
fn judge(tries: u32, limit: Duration, calls: &[Call], seen: &Seen) {
    let made = seen.calls.len();
    assert!(made >= 1 && made <= tries as usize, "{made} calls");
    assert!(seen.ended <= limit + STEPS, "it went on until {:?}", seen.ended);
    let of = |place: usize| &calls[place % calls.len()];
    for place in 1..made {
        let before = of(place - 1);
        let End::Fails { kind, retry_after } = before.end else { panic!("{before:?} was tried again") };
        let asked = retry_after.unwrap_or_default();
        assert!(kind.retryable() && asked <= LONGEST_IN_PLACE, "{before:?} was tried again");
        let failed_at = seen.calls[place - 1] + before.takes().expect("it failed");
        let pause = seen.calls[place].checked_sub(failed_at).expect("one call at a time");
        let most = asked + longest_pause(place) + STEPS;
        assert!(pause >= asked && pause <= most, "{pause:?} after {place} failures, {asked:?} asked for");
        assert!(seen.calls[place] < limit, "a call after the deadline");
    }
    let (last, begun) = (of(made - 1), seen.calls[made - 1]);
    let ends = last.takes().map(|takes| begun + takes);
    let is_cut = ends.is_none_or(|ends| ends >= limit);
    match &seen.result {
        Ok(run) => {
            assert!(matches!(last.end, End::Whole) && run.content == last.text());
            assert_eq!(seen.said.rsplit('\n').next(), Some(run.content.as_str()), "what was said last is the answer");
        }
        Err(error) if error.failure.code == FailureCode::RunLimit => {
            assert!(seen.ended >= limit && ends.is_none_or(|ends| ends + STEPS >= limit), "{:?}", seen.ended);
        }
        Err(error) => {
            let End::Fails { kind, retry_after } = last.end else { panic!("{last:?} ended as {error}") };
            assert_eq!(error.failure.code, kind.code());
            assert_eq!(error.retry_after, retry_after.filter(|asked| *asked > LONGEST_IN_PLACE));
            let ends = ends.expect("it failed");
            assert!(seen.ended <= ends + STEPS, "it waited for nothing");
            let asked = retry_after.unwrap_or_default();
            let no_time = ends + asked + longest_pause(made) + STEPS >= limit;
            let may_try = kind.retryable() && asked <= LONGEST_IN_PLACE && made < tries as usize;
            assert!(!may_try || no_time, "there was time for another try");
        }
    }
    assert!(is_cut || !matches!(last.end, End::Whole) || seen.result.is_ok());
    says_what_the_calls_say(calls, seen);
}

/// What was said by each call, where another one followed, was taken back.
fn says_what_the_calls_say(calls: &[Call], seen: &Seen) {
    let texts: Vec<_> = (0..seen.calls.len()).map(|place| calls[place % calls.len()].text()).collect();
    let (last, before) = texts.split_last().expect("a call");
    let taken_back: String = before.iter().filter(|text| !text.is_empty()).map(|text| format!("{text}\n")).collect();
    let rest = seen.said.strip_prefix(taken_back.as_str()).unwrap_or_else(|| panic!("{:?}", seen.said));
    // The run limit may be met while the next call is waited for: that one has been made room for.
    let is_waiting = rest == format!("{last}\n");
    assert!(is_waiting || last.starts_with(rest), "{rest:?} of {last:?}");
}

#[test]
fn a_run_tries_again_within_its_tries_and_its_deadline() {
    let case = (1_u32..6, 100_u64..30_000, prop::collection::vec(call(), 1..6));
    check(file!(), "retries of a run", 3_000, case, |(tries, limit, calls)| {
        let limit = Duration::from_millis(limit);
        judge(tries, limit, &calls, &run(tries, limit, &calls));
    });
}

#[test]
fn a_long_pause_is_spent_on_the_queue_when_nobodys_time_ends_before() {
    // Seconds, none so near to another that a busy machine makes a difference.
    let case = (prop::option::of(1_u64..40), 1_u64..40, prop::option::of(1_u64..40), any::<bool>());
    check(file!(), "jobs handed back", 1_000, case, |(waits, starts, asked, has_spoken)| {
        let at = |minutes: u64| Millis::now().plus(Duration::from_mins(minutes * 2));
        let account = AccountId::new();
        let job = Job { wait_until: waits.map(at), start_by: at(starts), ..Job::clone(&jobs::job(account)) };
        let retry_after = asked.map(|minutes| Duration::from_mins(minutes * 2 + 1));
        let failure =
            Failure { code: FailureCode::ProviderRateLimited, message: "slow down".to_owned(), retryable: true };
        let error = RunError { failure, usage: Usage::default(), retry_after };
        let gatherer = Gatherer::new(MessageId::new(), Attempt::default(), Duration::ZERO);
        if has_spoken {
            on_paused_clock(async {
                gatherer.due().await;
                gatherer.say("text");
                gatherer.due().await;
            });
        }
        let in_time = asked.is_some_and(|minutes| minutes * 2 + 1 < waits.unwrap_or(starts) * 2);
        let wanted = retry_after.filter(|_| in_time && !has_spoken);
        assert_eq!(later(&job, &gatherer, &error), wanted);
    });
}
