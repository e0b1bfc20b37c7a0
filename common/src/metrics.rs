//! What both processes count: the one home of prometheus-client.

mod backlog;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use self::backlog::LastBacklog;
use crate::domain::{backlog::Backlog, channel::Channel, message::MessageStatus, message::Usage};

/// The media type of [`Metrics::encode`]'s text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    channel: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishLabels {
    channel: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    provider: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// All counters of a process. Those that it never moves stay away from its output or at zero.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_duration: HistogramFamily<RouteLabels>,
    waiters: Arc<OnceLock<Source>>,
    accepted: Family<ChannelLabels, Counter>,
    batches: Counter,
    finished: Family<FinishLabels, Counter>,
    queue_wait: Histogram,
    run_time: Histogram,
    running: Gauge,
    slots: Gauge,
    backlog: LastBacklog,
    redeliveries: Counter,
    model_calls: Family<ModelLabels, Counter>,
    tokens: Family<DirectionLabels, Counter>,
    rate_limited: Family<LimitLabels, Counter>,
    webhook_tries: Family<OutcomeLabels, Counter>,
}

impl Metrics {
    /// Nothing counted yet. `statements` says how many statements the store has sent so far.
    pub fn new(statements: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("frontdesk"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            waiters: Arc::default(),
            accepted: Family::default(),
            batches: Counter::default(),
            finished: Family::default(),
            queue_wait: durations(),
            run_time: durations(),
            running: Gauge::default(),
            slots: Gauge::default(),
            backlog: LastBacklog::default(),
            redeliveries: Counter::default(),
            model_calls: Family::default(),
            tokens: Family::default(),
            rate_limited: Family::default(),
            webhook_tries: Family::default(),
        };
        metrics.register();
        let statements = Arc::new(OnceLock::from(Box::new(statements) as Source));
        metrics.registry.register_collector(Box::new(Read {
            name: "store_statements",
            help: "Statements sent to the database.",
            kind: MetricType::Counter,
            source: statements,
        }));
        metrics.registry.register_collector(Box::new(metrics.backlog.clone()));
        metrics.registry.register_collector(Box::new(Read {
            name: "waiters",
            help: "Callers that wait for a job's end.",
            kind: MetricType::Gauge,
            source: metrics.waiters.clone(),
        }));
        metrics
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("requests", "HTTP requests answered", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer's end",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        registry.register("jobs_accepted", "Jobs that the queue has taken", self.accepted.clone());
        registry.register("batches_accepted", "Batches that are all on the queue", self.batches.clone());
        registry.register("jobs_finished", "Jobs whose end is stored", self.finished.clone());
        registry.register_with_unit(
            "job_queue_wait",
            "Time from a job's acceptance to its start",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register_with_unit(
            "job_run",
            "Time from a job's start to its end",
            Unit::Seconds,
            self.run_time.clone(),
        );
        registry.register("jobs_running", "Jobs that this worker runs now", self.running.clone());
        registry.register("job_slots", "Jobs that this worker runs at most at a time", self.slots.clone());
        registry.register("job_redeliveries", "Jobs that the queue handed out again", self.redeliveries.clone());
        registry.register("model_calls", "Calls of model providers", self.model_calls.clone());
        registry.register("model_tokens", "Tokens that models read and wrote", self.tokens.clone());
        registry.register("rate_limited", "Requests that a rate limit refused", self.rate_limited.clone());
        registry.register("webhook_tries", "Requests to receivers of webhooks", self.webhook_tries.clone());
    }

    /// A request to `route` (its pattern, never its path) was answered after `took`.
    pub fn request(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let labels = RequestLabels { route: route.to_owned(), method, status };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: labels.route };
        self.request_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// From now on `waiters` says how many callers wait for a job's end. The first call counts.
    pub fn count_waiters_with(&self, waiters: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.waiters.set(Box::new(waiters));
    }

    /// The queue has taken a job.
    pub fn job_accepted(&self, channel: Channel) {
        self.jobs_accepted(channel, 1);
    }

    /// The queue has taken so many jobs.
    pub fn jobs_accepted(&self, channel: Channel, count: u64) {
        self.accepted.get_or_create(&ChannelLabels { channel: channel.name() }).inc_by(count);
    }

    /// All lines of a batch are on the queue.
    pub fn batch_accepted(&self) {
        self.batches.inc();
    }

    /// A job's end is stored.
    pub fn job_finished(&self, channel: Channel, outcome: MessageStatus) {
        self.finished.get_or_create(&FinishLabels { channel: channel.name(), outcome: outcome.name() }).inc();
    }

    /// A job was begun this long after its acceptance.
    pub fn job_waited(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    /// A job ran this long.
    pub fn job_ran(&self, took: Duration) {
        self.run_time.observe(took.as_secs_f64());
    }

    /// This worker runs at most so many jobs at a time.
    pub fn has_slots(&self, slots: usize) {
        self.slots.set(i64::try_from(slots).unwrap_or(i64::MAX));
    }

    /// A job runs until what is returned is dropped.
    pub fn job_runs(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// The whole pool's backlog, as it was just read; `None` when it could not be.
    pub fn backlog_read(&self, backlog: Option<Backlog>) {
        self.backlog.set(backlog);
    }

    /// The queue handed a job out again.
    pub fn job_redelivered(&self) {
        self.redeliveries.inc();
    }

    /// A provider was called; `outcome` is `ok` or the kind of its failure.
    pub fn model_called(&self, provider: &str, outcome: &'static str) {
        self.model_calls.get_or_create(&ModelLabels { provider: provider.to_owned(), outcome }).inc();
    }

    /// A model has read and written this much.
    pub fn tokens_used(&self, usage: Usage) {
        let counted = |direction| self.tokens.get_or_create_owned(&DirectionLabels { direction });
        counted("input").inc_by(u64::from(usage.input_tokens));
        counted("output").inc_by(u64::from(usage.output_tokens));
    }

    /// The limit of this name refused a request.
    pub fn limited(&self, limit: &'static str) {
        self.rate_limited.get_or_create(&LimitLabels { limit }).inc();
    }

    /// A webhook was sent, and taken or not.
    pub fn webhook_tried(&self, is_taken: bool) {
        let outcome = if is_taken { "delivered" } else { "failed" };
        self.webhook_tries.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Everything, in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// A job that runs.
#[derive(Debug)]
pub struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// From a millisecond to nine minutes: an answer may take five, a run more.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 3.0, 13))
}

type Source = Box<dyn Fn() -> u64 + Send + Sync>;

/// A number that somebody else keeps, read when the page is made.
struct Read {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    source: Arc<OnceLock<Source>>,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Read").field(&self.name).finish()
    }
}

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(source) = self.source.get() else { return Ok(()) };
        let line = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        match self.kind {
            MetricType::Counter => ConstCounter::new(source()).encode(line),
            _ => ConstGauge::new(source()).encode(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{backlog::LaneBacklog, time::Millis};

    #[test]
    fn what_was_counted_is_on_the_page() {
        let metrics = Metrics::new(|| 17);
        metrics.request("/api/v1/chat", "POST", 200, Duration::from_millis(2));
        metrics.count_waiters_with(|| 1);
        metrics.job_accepted(Channel::Api);
        metrics.jobs_accepted(Channel::Api, 4);
        metrics.batch_accepted();
        metrics.job_finished(Channel::Api, MessageStatus::Completed);
        metrics.job_waited(Duration::from_millis(1));
        metrics.job_ran(Duration::from_secs(400));
        metrics.job_redelivered();
        metrics.model_called("demo", "ok");
        metrics.tokens_used(Usage { input_tokens: 3, output_tokens: 4, estimated: false });
        metrics.limited("key");
        metrics.webhook_tried(true);
        metrics.has_slots(64);
        let _running = metrics.job_runs();
        drop(metrics.job_runs());
        let page = metrics.encode().expect("text");
        for line in [
            r#"frontdesk_requests_total{route="/api/v1/chat",method="POST",status="200"} 1"#,
            r#"frontdesk_request_duration_seconds_count{route="/api/v1/chat"} 1"#,
            "frontdesk_waiters 1",
            r#"frontdesk_jobs_accepted_total{channel="api"} 5"#,
            "frontdesk_batches_accepted_total 1",
            r#"frontdesk_jobs_finished_total{channel="api",outcome="completed"} 1"#,
            "frontdesk_job_queue_wait_seconds_count 1",
            r#"frontdesk_job_run_seconds_bucket{le="177.147"} 0"#,
            "frontdesk_job_redeliveries_total 1",
            r#"frontdesk_model_calls_total{provider="demo",outcome="ok"} 1"#,
            r#"frontdesk_model_tokens_total{direction="output"} 4"#,
            r#"frontdesk_rate_limited_total{limit="key"} 1"#,
            r#"frontdesk_webhook_tries_total{outcome="delivered"} 1"#,
            "frontdesk_store_statements_total 17",
            "frontdesk_jobs_running 1",
            "frontdesk_job_slots 64",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn a_backlog_is_on_the_page_as_long_as_it_can_be_read() {
        let metrics = Metrics::new(|| 0);
        let page = || metrics.encode().expect("text");
        assert!(!page().contains("frontdesk_queue_"));
        let mut backlog = Backlog::default();
        backlog.lanes[1] = LaneBacklog { pending: 5, running: 2, oldest: Some(Millis(0)) };
        metrics.backlog_read(Some(backlog));
        let unknown = page();
        for line in [
            r#"frontdesk_queue_pending{lane="interactive"} 0"#,
            r#"frontdesk_queue_pending{lane="background"} 5"#,
            r#"frontdesk_queue_running{lane="background"} 2"#,
            r#"frontdesk_queue_oldest_age_seconds{lane="batch"} 0"#,
        ] {
            assert!(unknown.contains(line), "{line} is not in\n{unknown}");
        }
        assert!(!unknown.contains("frontdesk_queue_drain"));
        metrics.backlog_read(Some(Backlog { drain: Some(Duration::from_millis(2_500)), ..backlog }));
        assert!(page().contains("frontdesk_queue_drain_seconds 2.5"));
        metrics.backlog_read(None);
        assert!(!page().contains("frontdesk_queue_"));
    }
}
