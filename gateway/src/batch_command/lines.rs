//! JSON lines: they are sent as they are, but for an agent where one is missing.

use std::{fmt::Write as _, io::BufRead};

use common::domain::ids::AgentId;
use serde_json::{Map, Value};

use super::{body::Body, faults::InputError};

const MARK: &[u8] = "\u{feff}".as_bytes();

/// Writes every line of `reader` to `body`.
pub fn copy(mut reader: impl BufRead, agent: Option<AgentId>, body: &mut Body<'_>) -> Result<(), InputError> {
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(|cause| body.unreadable(cause))? > 0 {
        match agent.and_then(|agent| with_agent(&line, agent)) {
            Some(changed) => body.push(&changed)?,
            None => body.push(&line)?,
        }
        line.clear();
    }
    Ok(())
}

/// The line with `agent` as its employee_id; `None` when it has one, is of another form, or is nothing that could have
/// one.
fn with_agent(line: &[u8], agent: AgentId) -> Option<Vec<u8>> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line.strip_prefix(MARK).unwrap_or(line)).ok()?;
    let names_one = fields.get("employee_id").is_some_and(|id| !id.is_null());
    if names_one || fields.contains_key("url") {
        return None;
    }
    fields.insert("employee_id".to_owned(), agent.to_string().into());
    let mut changed = serde_json::to_string(&fields).ok()?;
    writeln!(changed).ok()?;
    Some(changed.into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::batch_command::faults::Numbering;

    fn copied(text: &str, agent: Option<AgentId>) -> Result<String, InputError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("body");
        let mut body = Body::create("prompts".to_owned(), Numbering::Lines, &path)?;
        copy(text.as_bytes(), agent, &mut body)?;
        body.finish()?;
        Ok(std::fs::read_to_string(&path).expect("the body"))
    }

    #[test]
    fn lines_are_sent_as_they_are() {
        for text in ["\u{feff}{\"a\":1}\r\n\r\n  {\"b\" : 2}\nnonsense\n{\"no\":\"end\"}", "x"] {
            assert_eq!(copied(text, None).expect("prompts"), text);
        }
    }

    #[test]
    fn an_agent_is_for_lines_that_name_none() {
        let (agent, other) = (AgentId::new(), AgentId::new());
        let lines = [
            json!({ "custom_id": "none", "prompt": "a\nb" }),
            json!({ "custom_id": "null", "employee_id": null, "prompt": "c" }),
            json!({ "custom_id": "other", "employee_id": other, "prompt": "d" }),
            json!({ "custom_id": "form", "method": "POST", "url": "/api/v1/chat", "body": {} }),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let body = copied(&format!("\u{feff}{text}\nnonsense\n[1]"), Some(agent)).expect("prompts");
        let body: Vec<_> = body.lines().collect();
        let line = |index: usize| serde_json::from_str::<Value>(body[index]).expect("JSON");
        assert_eq!(line(0), json!({ "custom_id": "none", "employee_id": agent, "prompt": "a\nb" }));
        assert_eq!(line(1), json!({ "custom_id": "null", "employee_id": agent, "prompt": "c" }));
        assert_eq!((line(2), line(3)), (lines[2].clone(), lines[3].clone()));
        assert_eq!(body[4..], ["", "nonsense", "[1]"]);
    }

    #[test]
    fn nothing_is_no_batch() {
        for text in ["", "\n", " \r\n\n"] {
            assert!(matches!(copied(text, None), Err(InputError::Empty(_))), "{text:?}");
        }
    }
}
