//! `gateway dead`: jobs that were given up.

use clap::Subcommand;
use common::{
    domain::{
        channel::Channel,
        ids::{AccountId, AgentId, KeyId, MessageId},
        job::{Job, Lane, Role, Turn},
    },
    queue::{config::QueueConfig, control::Control, dead::DeadLetter},
};
use serde::{Deserialize, Serialize};

use super::{
    error::AdminError,
    output::{Output, View},
};

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List the jobs that were given up in the last 14 days, oldest first.
    List {
        /// The most that are listed.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// Show one of them with its conversation.
    Show {
        /// The message.
        message_id: MessageId,
    },
}

/// As much of a payload as every version of the envelope has.
#[derive(Deserialize)]
struct Envelope {
    id: MessageId,
}

#[derive(Debug, Serialize)]
struct LetterView {
    /// Absent when the payload is no job's.
    message_id: Option<MessageId>,
    reason: String,
    given_up_at: String,
    job: Option<JobView>,
}

#[derive(Debug, Serialize)]
struct JobView {
    account_id: AccountId,
    key_id: KeyId,
    agent_id: AgentId,
    agent_version: i32,
    channel: Channel,
    lane: Lane,
    created_at: String,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            account_id: job.account,
            key_id: job.key,
            agent_id: job.agent,
            agent_version: job.agent_version,
            channel: job.channel,
            lane: job.lane,
            created_at: job.created_at.to_string(),
        }
    }
}

impl LetterView {
    fn new(letter: &DeadLetter) -> Self {
        let job = serde_json::from_str::<Job>(&letter.payload).ok();
        Self {
            message_id: message_id(letter),
            reason: letter.reason.clone(),
            given_up_at: letter.at.to_string(),
            job: job.map(Into::into),
        }
    }
}

impl View for LetterView {
    const COLUMNS: &'static [&'static str] = &["message", "given up", "reason", "account", "agent", "channel"];

    fn cells(&self) -> Vec<String> {
        let of_job = |text: fn(&JobView) -> String| self.job.as_ref().map(text).unwrap_or_default();
        vec![
            self.message_id.map_or_else(|| "unreadable".to_owned(), |id| id.to_string()),
            self.given_up_at.clone(),
            self.reason.clone(),
            of_job(|job| job.account_id.to_string()),
            of_job(|job| job.agent_id.to_string()),
            of_job(|job| job.channel.to_string()),
        ]
    }
}

#[derive(Debug, Serialize)]
struct FullView {
    #[serde(flatten)]
    letter: LetterView,
    turns: Vec<TurnView>,
    /// What stood on the queue, where it could not be read as a job.
    payload: Option<String>,
}

#[derive(Debug, Serialize)]
struct TurnView {
    role: Role,
    content: String,
}

impl From<Turn> for TurnView {
    fn from(turn: Turn) -> Self {
        Self { role: turn.role, content: turn.content }
    }
}

impl FullView {
    fn new(letter: DeadLetter) -> Self {
        let view = LetterView::new(&letter);
        match serde_json::from_str::<Job>(&letter.payload) {
            Ok(job) => Self { letter: view, turns: job.turns.into_iter().map(Into::into).collect(), payload: None },
            Err(_) => Self { letter: view, turns: Vec::new(), payload: Some(letter.payload) },
        }
    }
}

impl View for FullView {
    const COLUMNS: &'static [&'static str] = LetterView::COLUMNS;

    fn cells(&self) -> Vec<String> {
        self.letter.cells()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.letter.fields();
        if let Some(job) = &self.letter.job {
            fields.push(("key", job.key_id.to_string()));
            fields.push(("agent version", job.agent_version.to_string()));
            fields.push(("lane", job.lane.to_string()));
            fields.push(("accepted", job.created_at.clone()));
        }
        fields.extend(self.turns.iter().map(|turn| (speaker(turn.role), turn.content.clone())));
        fields.extend(self.payload.iter().map(|payload| ("payload", payload.clone())));
        fields
    }
}

fn speaker(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn message_id(letter: &DeadLetter) -> Option<MessageId> {
    serde_json::from_str::<Envelope>(&letter.payload).ok().map(|envelope| envelope.id)
}

/// Carries out one of the commands.
pub async fn run(command: DeadCommand, queue: &QueueConfig, output: &Output) -> Result<(), AdminError> {
    match command {
        DeadCommand::List { limit } => list(limit, queue, output).await,
        DeadCommand::Show { message_id } => show(message_id, queue, output).await,
    }
}

async fn list(limit: usize, queue: &QueueConfig, output: &Output) -> Result<(), AdminError> {
    let letters = read(queue, limit).await?;
    if letters.len() >= limit {
        output.note(&format!("There may be more than these {limit}: see --limit."));
    }
    let views: Vec<_> = letters.iter().map(LetterView::new).collect();
    Ok(output.list(&views)?)
}

async fn show(id: MessageId, queue: &QueueConfig, output: &Output) -> Result<(), AdminError> {
    let letters = read(queue, usize::MAX).await?;
    let letter = letters.into_iter().find(|letter| message_id(letter) == Some(id));
    let letter = letter.ok_or_else(|| AdminError::no_such("dead letter of message", id))?;
    Ok(output.one(&FullView::new(letter))?)
}

async fn read(queue: &QueueConfig, limit: usize) -> Result<Vec<DeadLetter>, AdminError> {
    let control = Control::connect(queue).await?;
    let letters = control.dead_letters(limit).await;
    control.close().await;
    Ok(letters?)
}

#[cfg(test)]
mod tests {
    use common::domain::{job::JOB_VERSION, time::Millis};
    use serde_json::json;

    use super::*;

    fn letter(payload: String) -> DeadLetter {
        DeadLetter { reason: "worker_lost".to_owned(), at: Millis(0), payload }
    }

    fn job() -> Job {
        let envelope = json!({
            "v": JOB_VERSION, "id": MessageId::new(), "account": AccountId::new(), "key": KeyId::new(),
            "agent": AgentId::new(), "agent_version": 2, "channel": "api", "lane": "interactive",
            "turns": [{ "role": "user", "content": "hello" }], "created_at": 0, "publish_by": 0, "start_by": 0,
        });
        serde_json::from_value(envelope).expect("an envelope")
    }

    #[test]
    fn a_listed_letter_keeps_the_conversation_to_itself() {
        let job = job();
        let view = LetterView::new(&letter(serde_json::to_string(&job).expect("json")));
        let json = serde_json::to_value(&view).expect("json");
        assert_eq!(json["message_id"], json!(job.id));
        assert_eq!(json["job"]["account_id"], json!(job.account));
        assert!(!json.to_string().contains("hello"));
        assert_eq!(view.cells().len(), LetterView::COLUMNS.len());
    }

    #[test]
    fn a_shown_letter_has_the_conversation() {
        let view = FullView::new(letter(serde_json::to_string(&job()).expect("json")));
        let json = serde_json::to_value(&view).expect("json");
        assert_eq!(json["turns"], json!([{ "role": "user", "content": "hello" }]));
        assert_eq!(view.fields().last(), Some(&("user", "hello".to_owned())));
    }

    #[test]
    fn a_letter_of_another_version_is_found_and_shown_as_it_is() {
        let id = MessageId::new();
        let payload = json!({ "v": 9, "id": id, "shape": "new" }).to_string();
        let view = FullView::new(letter(payload.clone()));
        assert_eq!((view.letter.message_id, view.payload), (Some(id), Some(payload)));
        assert_eq!(LetterView::new(&letter("junk".to_owned())).message_id, None);
    }
}
