//! What a channel wants to be done, and the job that it becomes.

use std::time::Duration;

use common::{
    domain::{
        account::MicroCredits,
        channel::Channel,
        event::Callback,
        ids::{AccountId, AgentId, GatewayId, KeyId, MessageId},
        job::{JOB_VERSION, Job, Lane, Price, Turn},
        time::Millis,
    },
    queue::place::Place,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// What a channel wants to be done.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// When it was read: from then on its caller waits.
    pub asked_at: Instant,
    /// Who pays.
    pub account: AccountId,
    /// What they had left when last looked at.
    pub balance: MicroCredits,
    /// Whether they have endpoints that are told of events.
    pub notifies: bool,
    /// With which key.
    pub key: KeyId,
    /// Who is to answer.
    pub agent: AgentId,
    /// In which version.
    pub agent_version: i32,
    /// What its tokens cost.
    pub price: Price,
    /// The way in.
    pub channel: Channel,
    /// The conversation; the last turn is the caller's.
    pub turns: Vec<Turn>,
    /// Whether the caller marked the beginning of a conversation.
    pub new_chat: bool,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// Where the end is to be told.
    pub callback: Option<Callback>,
    /// What the caller wants to find again with the message.
    pub metadata: Option<Map<String, Value>>,
    /// The message that this one runs again.
    pub retry_of: Option<MessageId>,
    /// Whether it came with an `Idempotency-Key`: whoever was not sure that it is accepted can come again for it.
    pub is_keyed: bool,
}

/// How long a caller waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until the deadline. Who has waited so long and is gone has no use for a job that is begun much later.
    Deadline,
    /// For this time, but not beyond the deadline; then the job goes on as if nobody had waited.
    AtMost(Duration),
}

/// How a job stands on the queue.
pub(super) struct Terms {
    /// Its id.
    pub(super) id: MessageId,
    /// The lane it stands in.
    pub(super) lane: Lane,
    /// Where in it.
    pub(super) place: Place,
    /// The gateway whose caller waits.
    pub(super) reply_to: Option<GatewayId>,
    /// Whether that caller wants the text as it is made.
    pub(super) stream: bool,
    /// How long the caller waits, when the job is of little use afterwards.
    pub(super) wait: Option<Duration>,
    /// How long it may take to the stream, unless it has a key; later it was answered as refused.
    pub(super) publish_within: Duration,
    /// How long it may take until a worker begins it.
    pub(super) start_within: Duration,
}

impl Prompt {
    /// The job that does it, accepted now.
    pub(super) fn job(self, terms: Terms) -> Job {
        let created_at = Millis::now();
        // Who comes again with the key comes for this very job, however late it reached the stream: it must not have
        // been ended as a late one by then.
        let publish_within = if self.is_keyed { terms.start_within } else { terms.publish_within };
        Job {
            v: JOB_VERSION,
            id: terms.id,
            account: self.account,
            key: self.key,
            agent: self.agent,
            agent_version: self.agent_version,
            channel: self.channel,
            lane: terms.lane,
            turns: self.turns,
            new_chat: self.new_chat,
            created_at,
            publish_by: created_at.plus(publish_within),
            start_by: created_at.plus(terms.start_within),
            wait_until: terms.wait.map(|wait| created_at.plus(wait)),
            reply_to: terms.reply_to,
            stream: terms.stream,
            price: self.price,
            balance: self.balance,
            callback: self.callback,
            notifies: self.notifies,
            metadata: self.metadata,
            retry_of: self.retry_of,
            batch: None,
            again: false,
        }
    }
}
