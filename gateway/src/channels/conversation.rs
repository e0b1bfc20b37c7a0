//! A conversation in a body: what was said before, and what is said now.

use common::domain::job::{Role, Turn};
use utoipa::ToSchema;

use crate::{
    fields::{FieldFault, Fields, is_blank},
    openapi::shapes,
};

/// One message of a conversation.
#[derive(ToSchema)]
#[schema(as = Turn, example = json!({ "role": "user", "content": "Hello!" }))]
#[expect(dead_code, reason = "the body is read field by field; this is its shape for the document")]
pub struct SaidBefore {
    /// Who said it.
    #[schema(schema_with = shapes::role)]
    role: Role,
    /// What was said.
    #[schema(pattern = r"^[^\u0000]*$")]
    content: String,
}

/// `history` (or `messages`), then `message`.
pub fn turns(fields: &mut Fields) -> Result<Vec<Turn>, FieldFault> {
    let (messages, history) = (fields.objects("messages")?, fields.objects("history")?);
    if messages.is_some() && history.is_some() {
        return Err(fields.fault("messages", "and `history` exclude each other"));
    }
    let list = if history.is_some() { "history" } else { "messages" };
    let earlier = messages.or(history).unwrap_or_default();
    let mut turns = earlier.into_iter().map(turn).collect::<Result<Vec<_>, _>>()?;
    let message = fields.optional_text("message")?;
    let last = if message.is_some() { "message" } else { list };
    turns.extend(message.map(Turn::user));
    if turns.is_empty() {
        return Err(fields.fault("message", "is missing, and `messages` or `history` too"));
    }
    ending_with_the_caller(fields, last, turns)
}

/// `messages` alone: the whole conversation.
pub fn messages(fields: &mut Fields) -> Result<Vec<Turn>, FieldFault> {
    let list = fields.objects("messages")?.ok_or_else(|| fields.fault("messages", "is missing"))?;
    let turns = list.into_iter().map(turn).collect::<Result<Vec<_>, _>>()?;
    ending_with_the_caller(fields, "messages", turns)
}

fn ending_with_the_caller(fields: &Fields, last: &str, turns: Vec<Turn>) -> Result<Vec<Turn>, FieldFault> {
    match turns.last() {
        Some(turn) if turn.role != Role::User => Err(fields.fault(last, "has to end with a message of the role user")),
        Some(turn) if is_blank(&turn.content) => Err(fields.fault(last, "must not end with an empty message")),
        Some(_) => Ok(turns),
        None => Err(fields.fault(last, "must not be empty")),
    }
}

fn turn(mut fields: Fields) -> Result<Turn, FieldFault> {
    let role = match fields.text("role")?.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(fields.fault("role", "has to be user, assistant or system")),
    };
    Ok(Turn { role, content: fields.text("content")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<Vec<Turn>, FieldFault> {
        Fields::parse(body.as_bytes()).and_then(|mut fields| turns(&mut fields))
    }

    fn said(body: &str) -> Vec<String> {
        parsed(body).expect("a conversation").into_iter().map(|turn| turn.content).collect()
    }

    fn fault(body: &str) -> String {
        parsed(body).expect_err("a fault").to_string()
    }

    #[test]
    fn a_message_comes_after_what_was_said_before() {
        assert_eq!(said(r#"{"message":"hi"}"#), ["hi"]);
        let list = r#"[{"role":"system","content":"s"},{"role":"user","content":"u"}]"#;
        assert_eq!(said(&format!(r#"{{"messages":{list}}}"#)), ["s", "u"]);
        assert_eq!(said(&format!(r#"{{"history":{list},"message":"hi"}}"#)), ["s", "u", "hi"]);
        assert_eq!(said(r#"{"history":[{"role":"assistant","content":""}],"message":"hi"}"#), ["", "hi"]);
    }

    #[test]
    fn a_conversation_has_to_end_with_the_caller() {
        assert_eq!(fault("{}"), "`message` is missing, and `messages` or `history` too");
        assert_eq!(fault(r#"{"history":[]}"#), "`message` is missing, and `messages` or `history` too");
        assert_eq!(fault(r#"{"message":""}"#), "`message` must not end with an empty message");
        assert_eq!(fault(r#"{"history":[],"messages":[]}"#), "`messages` and `history` exclude each other");
        let last = r#"{"history":[{"role":"assistant","content":"x"}]}"#;
        assert_eq!(fault(last), "`history` has to end with a message of the role user");
    }

    #[test]
    fn faults_name_their_field() {
        let role = fault(r#"{"messages":[{"role":"tool","content":"x"}]}"#);
        assert_eq!(role, "`messages[0].role` has to be user, assistant or system");
        assert_eq!(fault(r#"{"messages":["x"]}"#), "`messages[0]` has to be an object, not a string");
        assert_eq!(fault(r#"{"message":{}}"#), "`message` has to be a string, not an object");
    }
}
