//! What the bare paths send: the product's own envelope and the product's own end of a job.

use std::time::Duration;

use common::domain::{
    channel::Channel,
    ids::{AccountId, AgentId, GatewayId, KeyId, MessageId},
    job::{JOB_VERSION, Job, Lane, Price, Turn},
    message::{MessageStatus, Usage},
    reply::{Attempt, Frame, FrameBody, Outcome},
    time::Millis,
};

/// What is asked on every path, after a nonce: a short question.
pub const PROMPT: &str = "what do you know about the opening hours of the front desk, and who is there on Sundays?";

const WAIT: Duration = Duration::from_secs(300);

/// Who asks on the bare paths.
#[derive(Clone, Copy)]
pub struct Asker {
    /// The process that waits.
    pub gateway: GatewayId,
    /// The account.
    pub account: AccountId,
    /// The key.
    pub key: KeyId,
}

impl Asker {
    /// Somebody new.
    pub fn new() -> Self {
        Self { gateway: GatewayId::new(), account: AccountId::new(), key: KeyId::new() }
    }

    /// A job as the gateway would put it on the queue.
    pub fn job(&self, agent: AgentId, prompt: String) -> Job {
        let now = Millis::now();
        Job {
            v: JOB_VERSION,
            id: MessageId::new(),
            account: self.account,
            key: self.key,
            agent,
            agent_version: 1,
            channel: Channel::Api,
            lane: Lane::Interactive,
            turns: vec![Turn::user(prompt)],
            new_chat: false,
            created_at: now,
            publish_by: now.plus(Duration::from_secs(5)),
            start_by: now.plus(2 * WAIT),
            wait_until: Some(now.plus(WAIT)),
            reply_to: Some(self.gateway),
            stream: false,
            price: Price::default(),
            balance: 0,
            callback: None,
            notifies: false,
            metadata: None,
            retry_of: None,
            batch: None,
            again: false,
        }
    }
}

/// The end of `job` as the worker would tell it: its prompt comes back.
pub fn end(job: &Job, attempt: Attempt) -> Frame {
    let now = Millis::now();
    let outcome = Outcome {
        status: MessageStatus::Completed,
        content: job.turns.last().map(|turn| turn.content.clone()),
        model: Some("demo".to_owned()),
        usage: Usage { input_tokens: 20, output_tokens: 20, estimated: false },
        credits_charged: 0,
        failure: None,
        attempts: 1,
        started_at: Some(now),
        completed_at: now,
    };
    Frame { id: job.id, attempt, n: 0, body: FrameBody::Terminal { outcome } }
}
