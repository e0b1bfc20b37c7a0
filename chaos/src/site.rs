//! The product that a row torments: two gateways, three workers, a scripted model and a receiver of webhooks.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    database::Database,
    model::{Behaviour, ModelServer},
    sink::{Received, Sink},
    stack::{Builder, Stack, metric},
};
use tokio::time::{Instant, sleep};

use crate::{calls::Calls, desk::Desk, disk::Disk, links::Links, store::Store};

/// The longest wait of a caller.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// After how long a silent job is handed out again.
pub const ACK_WAIT: Duration = Duration::from_secs(3);
const GATEWAYS: usize = 2;
const WORKERS: usize = 3;
/// How large a small disk is, in MiB: an empty queue of many slot queues takes some of it.
const DISK: u32 = 64;
/// Where webhooks go.
pub const CALLBACK: &str = "/ended";
/// How long a caller goes on trying, and all of it may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same where a bug is planted: it need not take long to see that something never ends.
pub const LITTLE_PATIENCE: Duration = Duration::from_secs(25);

/// A product under test.
pub struct Site {
    /// Its processes.
    pub stack: Stack,
    /// What its agent asks.
    pub model: ModelServer,
    /// Who is told of ends.
    pub sinks: Vec<Sink>,
    /// What callers saw.
    pub calls: Calls,
    /// What stands between its parts, if anything.
    pub links: Option<Links>,
    /// How long to wait for what may never come.
    pub patience: Duration,
    /// What its queue is stored on, if it can be filled.
    pub disk: Option<Disk>,
}

/// What processes hold: none of it may grow from one fault to the next.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    /// Open files of each process, by id.
    pub files: BTreeMap<u32, usize>,
    /// Resident memory of each process in KiB, by id.
    pub memory: BTreeMap<u32, u64>,
    /// Subscriptions at nats-server.
    pub subscriptions: u64,
    /// Consumers at nats-server.
    pub consumers: u64,
}

impl Site {
    /// Starts one on `database` with `more` settings, whose model takes `pace` for each piece of an answer.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn start(database: Database, pace: Duration, more: &[(&str, &str)]) -> Result<Self> {
        let model = ModelServer::start().await?;
        let builder = settings(Stack::with_model(database, &model), more);
        let stack = builder.gateways(GATEWAYS).workers(WORKERS).start().await;
        Ok(Self::of(stack, model, pace, None).await)
    }

    /// The same with a queue on a small disk of its own.
    ///
    /// # Errors
    /// When something cannot be started, or the disk not be mounted.
    pub async fn on_a_small_disk(database: Database, pace: Duration, more: &[(&str, &str)]) -> Result<Self> {
        let (model, disk) = (ModelServer::start().await?, Disk::mount(DISK)?);
        let builder = settings(Stack::with_model(database, &model), more).queue_in(disk.path());
        let stack = builder.gateways(GATEWAYS).workers(WORKERS).start().await;
        Ok(Self { disk: Some(disk), ..Self::of(stack, model, pace, None).await })
    }

    /// The same with a proxy between any two parts.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn with_links(database: Database, pace: Duration, more: &[(&str, &str)]) -> Result<Self> {
        let model = ModelServer::start().await?;
        let builder = settings(Stack::with_model(database, &model), more);
        let mut stack = builder.gateways(0).workers(0).start().await;
        let links = Links::lay(&mut stack, &model, GATEWAYS, WORKERS).await?;
        Ok(Self::of(stack, model, pace, Some(links)).await)
    }

    async fn of(stack: Stack, model: ModelServer, pace: Duration, links: Option<Links>) -> Self {
        model.always(Behaviour::echo().numbered().paced(pace));
        stack.admin(&["channel", "on", &stack.account, "webhooks"]);
        Self {
            stack,
            model,
            sinks: vec![Sink::start().await],
            calls: Calls::begin(),
            links,
            patience: PATIENCE,
            disk: None,
        }
    }

    /// Where its callers ask, in the name of `name`.
    pub fn desk(&self, name: &str) -> Desk {
        Desk {
            name: name.to_owned(),
            urls: match &self.links {
                Some(links) => links.urls(),
                None => self.stack.gateways.iter().map(|gateway| gateway.url.clone()).collect(),
            },
            key: self.stack.key.clone(),
            agent: self.stack.agent.clone(),
            preface: String::new(),
            callbacks: self.sinks.iter().map(|sink| sink.url(CALLBACK)).collect(),
            is_told: true,
            deadline: DEADLINE,
            patience: self.patience,
            hangs_up_within: None,
            calls: self.calls.clone(),
            client: self.stack.client().clone(),
        }
    }

    /// Adds receivers of webhooks, until there are `count`.
    pub async fn receivers(&mut self, count: usize) {
        while self.sinks.len() < count {
            self.sinks.push(Sink::start().await);
        }
    }

    /// What receivers of webhooks were told.
    pub fn received(&self) -> Vec<Received> {
        self.sinks.iter().flat_map(|sink| sink.received(CALLBACK)).collect()
    }

    /// What is stored.
    pub fn store(&self) -> Result<Store> {
        Store::read(&self.stack.database_url)
    }

    /// Waits until every gateway is ready and nothing is unfinished.
    pub async fn settle(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < self.patience {
            if self.is_ready().await && self.is_drained().await? {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("it did not come to rest within {:?}", self.patience)
    }

    async fn is_ready(&self) -> bool {
        for gateway in &self.stack.gateways {
            let answer = self.stack.client().get(format!("{}/readyz", gateway.url)).send().await;
            if !answer.is_ok_and(|answer| answer.status() == 200) {
                return false;
            }
        }
        true
    }

    /// Nothing on the queue, nothing unfinished in the store.
    async fn is_drained(&self) -> Result<bool> {
        let streams = self.monitor("/jsz?streams=true&accounts=true").await?;
        Ok(messages_of(&streams, "JOBS") == 0 && Store::unfinished(&self.stack.database_url)? == 0)
    }

    /// How many callers wait at the gateways.
    pub async fn waiters(&self) -> f64 {
        let mut waiters = 0.0;
        for gateway in &self.stack.gateways {
            waiters += metric(self.stack.client(), &gateway.metrics_url, "frontdesk_waiters").await;
        }
        waiters
    }

    /// How many jobs the gateways that live have had accepted, and how many ends the workers that live have stored.
    pub async fn counted(&self) -> [usize; 2] {
        let mut counted = [0.0; 2];
        for gateway in &self.stack.gateways {
            counted[0] += metric(self.stack.client(), &gateway.metrics_url, "frontdesk_jobs_accepted_total").await;
        }
        for worker in 0..self.stack.workers.len() {
            let url = self.stack.worker_metrics_url(worker);
            counted[1] += metric(self.stack.client(), &url, "frontdesk_jobs_finished_total").await;
        }
        counted.map(|count| count as usize)
    }

    /// What the processes hold now.
    pub async fn footprint(&self) -> Result<Footprint> {
        let gateways = self.stack.gateways.iter().map(|gateway| gateway.process.id());
        let ids: Vec<u32> = gateways.chain(self.stack.workers.iter().map(|worker| worker.id())).collect();
        let all = self.monitor("/varz").await?;
        let streams = self.monitor("/jsz").await?;
        Ok(Footprint {
            files: ids.iter().map(|id| Ok((*id, open_files(*id)?))).collect::<Result<_>>()?,
            memory: ids.iter().map(|id| Ok((*id, resident(*id)?))).collect::<Result<_>>()?,
            subscriptions: all["subscriptions"].as_u64().context("subscriptions")?,
            consumers: streams["consumers"].as_u64().context("consumers")?,
        })
    }

    async fn monitor(&self, path: &str) -> Result<Value> {
        let answer = self.stack.client().get(format!("{}{path}", self.stack.nats.monitor_url())).send().await?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        Ok(serde_json::from_str(&answer.text().await?)?)
    }
}

/// Short waits, and limits that nobody meets; and what a row sets otherwise. Workers die a hundred times as often as they
/// do elsewhere: a job must not be given up because it was there five times.
fn settings(builder: Builder, more: &[(&str, &str)]) -> Builder {
    let text = |length: Duration| format!("{}ms", length.as_millis());
    let builder = builder
        .set("FRONTDESK_DEADLINE", text(DEADLINE))
        .set("FRONTDESK_ACK_WAIT", text(ACK_WAIT))
        .set("FRONTDESK_GRACE", text(DEADLINE * 2))
        .set("FRONTDESK_MAX_STARTS", 50)
        .set("FRONTDESK_KEY_LIMIT", 1_000_000)
        .set("FRONTDESK_READ_LIMIT", 1_000_000)
        .set("FRONTDESK_ALLOW_LOOPBACK_TARGETS", true);
    more.iter().fold(builder, |builder, (name, value)| builder.set(name, value))
}

/// How many messages the stream `name` holds; what the monitoring endpoint tells is some levels deep.
fn messages_of(streams: &Value, name: &str) -> u64 {
    let accounts = streams["account_details"].as_array().into_iter().flatten();
    let details = accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    details.filter(|stream| stream["name"] == name).filter_map(|stream| stream["state"]["messages"].as_u64()).sum()
}

fn open_files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
