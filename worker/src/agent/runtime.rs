//! One run of an agent: its prompt goes to a model, its text leaves while it is made, failed calls are tried again.

mod draft;
mod watch;

use std::time::Duration;

use common::{
    domain::{agent::Agent, ids::AgentId, job::Job, message::Usage},
    env::{self, EnvError},
    retry::Pauses,
};
use tokio::time::Instant;

use self::{draft::Draft, watch::Watch};
use super::{error::RunError, meter::Meter, prompt};
use crate::providers::{
    provider::{Completion, ModelRequest, Provider, ProviderError},
    registry::Registry,
};

/// The pause after the first failed call is at most this; each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A provider that asks for more than this is not waited for in a slot.
const LONGEST_WAIT_IN_PLACE: Duration = Duration::from_secs(5);
const MOST_TRIES: u32 = 10;
/// The most characters kept of a model's name.
const LONGEST_MODEL_NAME: usize = 200;

/// The settings of all runs.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeConfig {
    /// How often a model is called for one answer, at least once.
    pub tries: u32,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { tries: 3 }
    }
}

impl RuntimeConfig {
    /// What `FRONTDESK_MODEL_TRIES` says.
    pub fn from_environment() -> Result<Self, EnvError> {
        let tries = env::within("FRONTDESK_MODEL_TRIES", Self::default().tries, 1..=MOST_TRIES)?;
        Ok(Self { tries })
    }
}

/// What a run says while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The next piece of the answer.
    Text(&'a str),
    /// What has been said is void: the answer begins anew.
    Restarted,
}

/// Takes the events of a run, in order; never blocks.
pub type EventSink<'a> = dyn FnMut(Event<'_>) + Send + 'a;

/// Told of every call of a model: the provider, and `ok`, `dropped` or the code of its failure.
pub type Observer = Box<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// A run that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The whole answer.
    pub content: String,
    /// The model that gave it.
    pub model: String,
    /// What it used, failed calls included.
    pub usage: Usage,
}

/// Runs agents.
pub struct Runtime {
    registry: Registry,
    config: RuntimeConfig,
    observer: Observer,
}

impl Runtime {
    /// A runtime over these providers.
    pub fn new(registry: Registry, config: RuntimeConfig, observer: Observer) -> Self {
        Self { registry, config, observer }
    }

    /// Runs `agent` on `job` until `deadline`. Pieces of the answer go to `events` as they are made; a call that is
    /// repeated after text has left says [`Event::Restarted`] first. Dropping the future stops the run at once; what it
    /// has used until then stands in `meter`.
    pub async fn run(
        &self,
        agent: &Agent,
        job: &Job,
        deadline: Instant,
        events: &mut EventSink<'_>,
        meter: &mut Meter,
    ) -> Result<Run, RunError> {
        let provider = self.registry.pick(&agent.spec)?;
        let turns = prompt::build(&agent.spec, &job.turns);
        let request = ModelRequest {
            model: &agent.spec.model,
            turns: &turns,
            temperature: agent.spec.temperature,
            max_output_tokens: agent.spec.max_output_tokens,
        };
        let mut draft = Draft::new(events, meter);
        let answer = self.answer(provider, agent.id, request, deadline, &mut draft);
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(completion)) => Ok(draft.into_run(clean_model_name(&completion.model))),
            Ok(Err(error)) => {
                let retry_after = error.retry_after.filter(|wait| *wait > LONGEST_WAIT_IN_PLACE);
                Err(RunError::provider(&error, draft.usage(), retry_after))
            }
            Err(_) => Err(RunError::run_limit(draft.usage())),
        }
    }

    /// Calls until an answer is whole, or another try makes no sense.
    async fn answer(
        &self,
        provider: &dyn Provider,
        agent: AgentId,
        request: ModelRequest<'_>,
        deadline: Instant,
        draft: &mut Draft<'_, '_>,
    ) -> Result<Completion, ProviderError> {
        let mut pauses = Pauses::with_full_jitter(FIRST_PAUSE, LONGEST_PAUSE);
        let mut tries = 1;
        loop {
            let watch = Watch::begin(agent, provider.name(), request.model, &self.observer);
            let error = match draft.call(provider, request).await {
                Ok((completion, used)) => {
                    watch.succeeded(used);
                    return Ok(completion);
                }
                Err((error, used)) => {
                    watch.failed(&error, used);
                    error
                }
            };
            let may_try = error.retryable() && tries < self.config.tries;
            let Some(pause) = pauses.next_pause().filter(|_| may_try).and_then(|pause| in_place(&error, pause)) else {
                return Err(error);
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            draft.restart();
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }
}

/// How long to wait before the next try; `None` when that is too long for a slot.
fn in_place(error: &ProviderError, pause: Duration) -> Option<Duration> {
    let asked = error.retry_after.unwrap_or_default();
    (asked <= LONGEST_WAIT_IN_PLACE).then(|| asked + pause)
}

/// A provider may name its model as it likes; what is stored has no control characters and an end.
fn clean_model_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(LONGEST_MODEL_NAME).collect()
}
