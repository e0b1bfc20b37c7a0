//! What an endpoint sends: the pieces of a stream, or a whole completion. Everything may be missing.

use common::domain::message::Usage;
use serde::Deserialize;
use serde_json::Value;

/// One event of a stream, or a whole completion.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<Value>,
}

/// One of the answers that were asked for; we ask for one, and take the first.
#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    index: Option<u32>,
    /// In a stream.
    #[serde(default)]
    delta: Option<Said>,
    /// In a whole completion.
    #[serde(default)]
    message: Option<Said>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

/// What was said. Reasoning, tool calls and the like are not part of the answer.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of an answer in the list form that some endpoints use; only its text counts.
#[derive(Debug, Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl Chunk {
    /// Its usage, unless it is missing, incomplete or an obvious placeholder.
    pub(super) fn usage(&self) -> Option<Usage> {
        let usage = self.usage.as_ref()?;
        let tokens = |name: &str| u32::try_from(usage.get(name)?.as_u64()?).ok();
        let (input_tokens, output_tokens) = (tokens("prompt_tokens")?, tokens("completion_tokens")?);
        (input_tokens > 0 || output_tokens > 0).then_some(Usage { input_tokens, output_tokens, estimated: false })
    }

    /// The first answer's share of it.
    pub(super) fn choice(&self) -> Option<&Choice> {
        self.choices.as_ref()?.iter().find(|choice| choice.index.unwrap_or(0) == 0)
    }
}

impl Choice {
    /// The text in it, in pieces.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let content = self.delta.as_ref().or(self.message.as_ref()).and_then(|said| said.content.as_ref());
        let (whole, parts) = match content {
            None => (None, [].as_slice()),
            Some(Content::Text(text)) => (Some(text.as_str()), [].as_slice()),
            Some(Content::Parts(parts)) => (None, parts.as_slice()),
        };
        whole.into_iter().chain(parts.iter().filter_map(|part| part.text.as_deref())).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(json: &str) -> Vec<String> {
        let chunk: Chunk = serde_json::from_str(json).expect("a chunk");
        chunk.choice().map(|choice| choice.texts().map(str::to_owned).collect()).unwrap_or_default()
    }

    #[test]
    fn only_the_first_answers_text_counts() {
        assert_eq!(texts(r#"{"choices":[{"delta":{"content":"a"}}]}"#), ["a"]);
        assert_eq!(
            texts(r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#),
            ["a"]
        );
        assert_eq!(texts(r#"{"choices":[{"message":{"content":"whole"},"finish_reason":"stop"}]}"#), ["whole"]);
        let parts = r#"{"choices":[{"delta":{"content":[{"type":"thinking"},{"type":"text","text":"a"}]}}]}"#;
        assert_eq!(texts(parts), ["a"]);
        for silent in [
            r#"{}"#,
            r#"{"choices":null}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"role":"assistant","reasoning":"hm"}}]}"#,
        ] {
            assert!(texts(silent).is_empty(), "{silent}");
        }
    }

    #[test]
    fn usage_is_taken_only_when_it_says_something() {
        let usage = |json: &str| serde_json::from_str::<Chunk>(json).expect("a chunk").usage();
        let whole = usage(r#"{"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#).expect("usage");
        assert_eq!((whole.input_tokens, whole.output_tokens, whole.estimated), (3, 2, false));
        for nothing in [
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":{"prompt_tokens":null,"completion_tokens":2}}"#,
            r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":2.5}}"#,
        ] {
            assert_eq!(usage(nothing), None, "{nothing}");
        }
    }
}
