//! What every way in of `/api/v1` takes: a prompt for an employee, and what is to become of its end.

use std::sync::Arc;

use common::domain::{
    agent::Agent,
    channel::Channel,
    event::{Callback, EventKind},
    ids::AgentId,
    job::Turn,
};
use serde_json::{Map, Value};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    auth::caller::Caller,
    context::RequestContext,
    desk::Desk,
    dispatcher::prompt::Prompt,
    error::ApiError,
    extract::FromFields,
    fields::{FieldFault, Fields},
    openapi::{samples, shapes},
};

/// The most bytes of `metadata`, as compact JSON.
const METADATA_LIMIT: usize = 16 * 1024;

/// The body of a submission as it is sent.
#[derive(ToSchema)]
#[schema(as = MessageRequest, example = json!({ "employee_id": samples::AGENT, "prompt": "Hello!" }))]
#[expect(dead_code, reason = "the body is read field by field; this is its shape for the document")]
pub struct MessageBody {
    /// The employee who is asked.
    #[schema(value_type = String, format = "uuid")]
    employee_id: AgentId,
    /// What is said to it; not blank, and without U+0000.
    #[schema(pattern = r"^[^\u0000]*\S[^\u0000]*$")]
    prompt: String,
    /// Where the end of the message is told, as a webhook.
    #[schema(format = "uri", max_length = 2048)]
    callback_url: Option<String>,
    /// Which ends are told there; absent: all.
    #[schema(schema_with = shapes::message_events)]
    callback_events: Option<Vec<String>>,
    /// Whatever the caller wants to find again with the message, up to 16,384 bytes of JSON.
    metadata: Option<Map<String, Value>>,
}

/// A message as it is asked for.
#[derive(Debug, PartialEq)]
pub struct MessageRequest {
    /// Who is to answer.
    pub employee_id: AgentId,
    /// What.
    pub prompt: String,
    /// Where the end is to be told.
    pub callback: Option<Callback>,
    /// What the caller wants to find again with the message.
    pub metadata: Option<Map<String, Value>>,
}

impl FromFields for MessageRequest {
    fn from_fields(mut fields: Fields) -> Result<Self, FieldFault> {
        Self::read(&mut fields)
    }
}

impl MessageRequest {
    /// Reads its fields, and leaves the others.
    pub fn read(fields: &mut Fields) -> Result<Self, FieldFault> {
        Ok(Self {
            employee_id: fields.id("employee_id")?,
            prompt: fields.words("prompt")?,
            callback: callback(fields)?,
            metadata: metadata(fields)?,
        })
    }

    /// The agent that is to answer, and a prompt for it through `channel`.
    ///
    /// # Errors
    /// When the callback leads where we do not go, or `caller` may not use the agent.
    pub async fn prompt(
        self,
        desk: &Desk,
        caller: &Caller,
        channel: Channel,
        context: &RequestContext,
    ) -> Result<(Arc<Agent>, Prompt), ApiError> {
        let asked_at = Instant::now();
        if let Some(callback) = &self.callback {
            desk.check(callback).await?;
        }
        let turns = vec![Turn::user(self.prompt)];
        let (agent, prompt) = desk.prompt(caller, channel, self.employee_id, turns, context).await?;
        Ok((agent, Prompt { asked_at, callback: self.callback, metadata: self.metadata, ..prompt }))
    }
}

/// Whether the message is to be cancelled when its caller hangs up: the field `on_disconnect`.
pub fn cancels_on_disconnect(fields: &mut Fields) -> Result<bool, FieldFault> {
    Ok(fields.optional_choice("on_disconnect", &["continue", "cancel"])? == Some("cancel"))
}

fn callback(fields: &mut Fields) -> Result<Option<Callback>, FieldFault> {
    let (url, names) = (fields.optional_text("callback_url")?, fields.optional_texts("callback_events")?);
    let Some(url) = url else {
        return match names {
            None => Ok(None),
            Some(_) => Err(fields.fault("callback_events", "needs a `callback_url`")),
        };
    };
    let mut events = Vec::new();
    for (index, name) in names.iter().flatten().enumerate() {
        let known = name.parse().ok().filter(|event: &EventKind| event.is_of_message());
        let event = known.ok_or_else(|| {
            let what = "has to be message.completed, message.failed, message.cancelled or message.expired";
            fields.fault(&format!("callback_events[{index}]"), what)
        })?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    match names {
        Some(names) if names.is_empty() => Err(fields.fault("callback_events", "must not be empty")),
        _ => Ok(Some(Callback { url, events })),
    }
}

fn metadata(fields: &mut Fields) -> Result<Option<Map<String, Value>>, FieldFault> {
    let Some(metadata) = fields.optional_object("metadata")? else { return Ok(None) };
    let size = serde_json::to_vec(&metadata).map_or(usize::MAX, |json| json.len());
    if size > METADATA_LIMIT {
        return Err(fields.fault("metadata", &format!("is larger than {METADATA_LIMIT} bytes of JSON")));
    }
    Ok(Some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(rest: &str) -> Result<MessageRequest, FieldFault> {
        let body = format!(r#"{{"employee_id":"{}","prompt":"hi"{rest}}}"#, AgentId::new());
        Fields::parse(body.as_bytes()).and_then(MessageRequest::from_fields)
    }

    fn fault(rest: &str) -> String {
        parsed(rest).expect_err("a fault").to_string()
    }

    #[test]
    fn a_callback_is_told_of_every_end_or_of_those_that_are_named() {
        assert_eq!(parsed("").expect("a request").callback, None);
        let url = r#","callback_url":"https://example.com/hook""#;
        let callback = |rest: &str| parsed(&format!("{url}{rest}")).expect("a request").callback.expect("a callback");
        assert_eq!(callback("").events, []);
        assert_eq!(callback(r#","callback_events":null"#).events, []);
        let twice = r#","callback_events":["message.failed","message.completed","message.failed"]"#;
        assert_eq!(callback(twice).events, [EventKind::MessageFailed, EventKind::MessageCompleted]);
    }

    #[test]
    fn faults_of_callbacks_name_their_field() {
        let url = r#","callback_url":"https://example.com/hook""#;
        assert_eq!(fault(r#","callback_url":7"#), "`callback_url` has to be a string, not a number");
        assert_eq!(fault(r#","callback_events":["message.failed"]"#), "`callback_events` needs a `callback_url`");
        assert_eq!(fault(&format!(r#"{url},"callback_events":[]"#)), "`callback_events` must not be empty");
        assert_eq!(
            fault(&format!(r#"{url},"callback_events":"message.failed""#)),
            "`callback_events` has to be a list, not a string"
        );
        for wrong in ["batch.completed", "webhook.test", "", "message", "MESSAGE.FAILED"] {
            let sentence = fault(&format!(r#"{url},"callback_events":["message.failed","{wrong}"]"#));
            assert!(sentence.starts_with("`callback_events[1]` has to be message.completed, "), "{sentence}");
        }
    }

    #[test]
    fn metadata_is_an_object_of_up_to_16_kib() {
        let of = |text: usize| format!(r#","metadata":{{ "k" : "{}" }}"#, "x".repeat(text));
        let brackets = r#"{"k":""}"#.len();
        assert!(parsed(&of(METADATA_LIMIT - brackets)).is_ok());
        assert_eq!(fault(&of(METADATA_LIMIT - brackets + 1)), "`metadata` is larger than 16384 bytes of JSON");
        assert_eq!(fault(r#","metadata":"text""#), "`metadata` has to be an object, not a string");
        assert_eq!(parsed(r#","metadata":{}"#).expect("a request").metadata, Some(Map::new()));
    }
}
