//! A line of a batch as it is sent: a request in our own form, or in the form of OpenAI's batches.

use common::domain::job::Turn;

use super::{conversation, message_request::MessageRequest};
use crate::{
    batches::line::LineRequest,
    directory::roster::Named,
    fields::{FieldFault, Fields},
};

/// The request of the line in `fields`.
pub fn request(mut fields: Fields) -> Result<LineRequest, FieldFault> {
    if !fields.has("url") && !fields.has("body") {
        return message(fields);
    }
    if fields.text("method")? != "POST" {
        return Err(fields.fault("method", "has to be POST"));
    }
    let url = fields.text("url")?;
    let read = match url.as_str() {
        "/api/v1/chat" => message,
        "/api/agents/chat" => agent_chat,
        "/v1/chat/completions" => completion,
        _ => {
            return Err(fields.fault("url", "has to be /api/v1/chat, /api/agents/chat or /v1/chat/completions"));
        }
    };
    read(fields.object("body")?)
}

/// As for `/api/v1/chat`.
fn message(mut fields: Fields) -> Result<LineRequest, FieldFault> {
    let callback = ["callback_url", "callback_events"].into_iter().find(|name| fields.has(name));
    if let Some(name) = callback {
        return Err(fields.fault(name, "is not for lines of a batch; a webhook endpoint is told of their ends"));
    }
    let MessageRequest { employee_id, prompt, metadata, .. } = MessageRequest::read(&mut fields)?;
    Ok(LineRequest { agent: Named::Id(employee_id), turns: vec![Turn::user(prompt)], new_chat: false, metadata })
}

/// As for `/api/agents/chat`.
fn agent_chat(mut fields: Fields) -> Result<LineRequest, FieldFault> {
    let agent = Named::Id(fields.id("agentId")?);
    let turns = conversation::turns(&mut fields)?;
    Ok(LineRequest { agent, turns, new_chat: fields.flag("newChat")?, metadata: None })
}

/// As OpenAI's chat completions, with an agent for the model.
fn completion(mut fields: Fields) -> Result<LineRequest, FieldFault> {
    let model = fields.words("model")?;
    let agent = model.parse().map_or_else(|_| Named::Name(model), Named::Id);
    Ok(LineRequest { agent, turns: conversation::messages(&mut fields)?, new_chat: false, metadata: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = "01a20041-b6d5-7731-bd55-c170ed7731b2";

    fn parsed(line: &str) -> Result<LineRequest, FieldFault> {
        Fields::parse_line(line.as_bytes()).and_then(request)
    }

    fn read(line: &str) -> LineRequest {
        parsed(line).expect("a request")
    }

    fn fault(line: &str) -> String {
        parsed(line).expect_err("a fault").to_string()
    }

    fn wrapped(url: &str, body: &str) -> String {
        format!(r#"{{"custom_id":"a","method":"POST","url":"{url}","body":{body}}}"#)
    }

    #[test]
    fn a_line_is_a_request_in_one_of_four_forms() {
        let id = Named::Id(AGENT.parse().expect("an id"));
        let asked = |agent: &Named| LineRequest {
            agent: agent.clone(),
            turns: vec![Turn::user("hi")],
            new_chat: false,
            metadata: None,
        };
        let own = format!(r#"{{"custom_id":"a","employee_id":"{AGENT}","prompt":"hi","unknown":1,"url":null}}"#);
        assert_eq!(read(&own), asked(&id));
        let chat = format!(r#"{{"employee_id":"{AGENT}","prompt":"hi"}}"#);
        assert_eq!(read(&wrapped("/api/v1/chat", &chat)), asked(&id));
        let agents = format!(r#"{{"agentId":"{AGENT}","message":"hi","newChat":true,"stream":true}}"#);
        assert_eq!(read(&wrapped("/api/agents/chat", &agents)), LineRequest { new_chat: true, ..asked(&id) });
        let messages = r#"[{"role":"user","content":"hi"}]"#;
        let completion = |model: &str| format!(r#"{{"model":"{model}","messages":{messages},"temperature":1}}"#);
        assert_eq!(read(&wrapped("/v1/chat/completions", &completion(AGENT))), asked(&id));
        let ada = Named::Name("Ada".to_owned());
        assert_eq!(read(&wrapped("/v1/chat/completions", &completion("Ada"))), asked(&ada));
    }

    #[test]
    fn faults_name_their_field_as_in_single_requests() {
        let own = |rest: &str| fault(&format!(r#"{{"custom_id":"a",{rest}}}"#));
        assert_eq!(own(r#""prompt":"hi""#), "`employee_id` is missing");
        assert_eq!(own(r#""employee_id":"x","prompt":"hi""#), "`employee_id` is not a UUID");
        assert_eq!(own(&format!(r#""employee_id":"{AGENT}""#)), "`prompt` is missing");
        assert_eq!(own(&format!(r#""employee_id":"{AGENT}","prompt":" ""#)), "`prompt` must not be empty");
        let callback = format!(r#""employee_id":"{AGENT}","prompt":"hi","callback_url":"https://example.com""#);
        assert!(own(&callback).starts_with("`callback_url` is not for lines of a batch"));
        assert_eq!(own(r#""url":"/api/v1/chat","body":{}"#), "`method` is missing");
        assert_eq!(own(r#""method":"GET","url":"/api/v1/chat","body":{}"#), "`method` has to be POST");
        assert_eq!(own(r#""method":"POST","body":{}"#), "`url` is missing");
        assert!(
            own(r#""method":"POST","url":"/v1/embeddings","body":{}"#).starts_with("`url` has to be /api/v1/chat,")
        );
        assert_eq!(own(r#""method":"POST","url":"/api/v1/chat""#), "`body` is missing");
        assert_eq!(fault(&wrapped("/api/v1/chat", "{}")), "`body.employee_id` is missing");
        let agents = |rest: &str| fault(&wrapped("/api/agents/chat", &format!(r#"{{"agentId":"{AGENT}"{rest}}}"#)));
        assert_eq!(agents(""), "`body.message` is missing, and `messages` or `history` too");
        assert_eq!(agents(r#","messages":[],"history":[]"#), "`body.messages` and `history` exclude each other");
        let completions = |body: &str| fault(&wrapped("/v1/chat/completions", body));
        assert_eq!(completions("{}"), "`body.model` is missing");
        assert_eq!(completions(r#"{"model":"m"}"#), "`body.messages` is missing");
        assert_eq!(completions(r#"{"model":"m","messages":[]}"#), "`body.messages` must not be empty");
        assert_eq!(
            completions(r#"{"model":"m","messages":[{"role":"tool","content":"x"}]}"#),
            "`body.messages[0].role` has to be user, assistant or system"
        );
    }
}
