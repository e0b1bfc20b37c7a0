//! What a provider means by an error: its kind, from a status, a code or, where there is nothing better, its words.

use std::time::Duration;

use common::domain::time::Millis;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::{
    providers::provider::{ErrorKind, ProviderError},
    retry_after,
};

/// The longest word that passes for a provider's code.
const LONGEST_CODE: usize = 48;
/// A provider that asks for a longer pause is asked again after this one.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

const QUOTA_CODES: &[&str] =
    &["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"];
const QUOTA_WORDS: &[&str] = &["credit balance is too low", "insufficient balance"];
const CONTEXT_CODES: &[&str] =
    &["context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"];
/// OpenAI and vLLM; llama.cpp; Anthropic; xAI; Gemini; Ollama and others.
const CONTEXT_WORDS: &[&str] = &[
    "maximum context length",
    "available context size",
    "prompt is too long",
    "maximum prompt length",
    "input token count",
    "context window",
    "context length",
];

/// The error behind an answer whose status is not 2xx.
pub(super) fn of_status(status: u16, headers: &HeaderMap, page: &[u8]) -> ProviderError {
    let said = Said::read(&String::from_utf8_lossy(page));
    let kind = said.special(status).unwrap_or_else(|| kind_of_status(status));
    let retry_after = if kind.retryable() { retry_after::read(headers, Millis::now(), LONGEST_WAIT) } else { None };
    ProviderError { status: Some(status), provider_code: said.plain_code(), retry_after, ..ProviderError::new(kind) }
}

/// The error in an event, or in a body with a good status: what it says itself is all there is.
pub(super) fn of_event(data: &str) -> ProviderError {
    let said = Said::read(data);
    let kind = said
        .special(said.status.unwrap_or(400))
        .or(said.status.map(kind_of_status))
        .or_else(|| said.codes.iter().find_map(|code| kind_of_code(code)))
        .unwrap_or(if said.is_error { ErrorKind::Unavailable } else { ErrorKind::Protocol });
    ProviderError { status: said.status, provider_code: said.plain_code(), ..ProviderError::new(kind) }
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Auth,
        402 => ErrorKind::Quota,
        408 => ErrorKind::Timeout,
        409 | 425 | 499 => ErrorKind::Unavailable,
        429 => ErrorKind::RateLimited,
        400..=498 => ErrorKind::BadRequest,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}

fn kind_of_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "invalid_api_key" | "authentication_error" | "permission_error" | "unauthenticated" => ErrorKind::Auth,
        "rate_limit_exceeded" | "rate_limit_error" | "resource_exhausted" => ErrorKind::RateLimited,
        "invalid_request_error" | "invalid_argument" | "not_found_error" | "model_not_found" => ErrorKind::BadRequest,
        "timeout" | "timeout_error" | "deadline_exceeded" => ErrorKind::Timeout,
        _ => return None,
    })
}

/// What an error says, in the shapes that are about: `{"error":{…}}`, `{"error":"…"}`, a list of either, or
/// the same without `error` around it. Not kept.
#[derive(Debug, Default)]
struct Said {
    is_error: bool,
    /// A numeric code, where it is an HTTP status.
    status: Option<u16>,
    /// Codes and types, in lower case.
    codes: Vec<String>,
    /// Everything said, in lower case.
    words: String,
}

impl Said {
    fn read(text: &str) -> Self {
        let Ok(whole) = serde_json::from_str::<Value>(text) else {
            // A page or plain text: nothing in it is a code, and words in a page mean little.
            let words = if text.trim_start().starts_with('<') { String::new() } else { text.to_lowercase() };
            return Self { words, ..Self::default() };
        };
        let first = whole.get(0).unwrap_or(&whole);
        let error = first.get("error").unwrap_or(first);
        let names = ["code", "type", "status"].into_iter().filter_map(|name| error.get(name));
        let codes: Vec<String> = names.clone().filter_map(Value::as_str).map(str::to_lowercase).collect();
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let status = names.filter_map(number).find_map(|number| u16::try_from(number).ok().filter(|n| is_error(*n)));
        let message = error.get("message").or(error.get("detail")).unwrap_or(error).as_str().unwrap_or_default();
        Self {
            is_error: first.get("error").is_some() || status.is_some() || codes.iter().any(|code| code == "error"),
            status,
            codes,
            words: message.to_lowercase(),
        }
    }

    /// Quota and context length, which have no status of their own.
    fn special(&self, status: u16) -> Option<ErrorKind> {
        let code_in = |known: &[&str]| self.codes.iter().any(|code| known.contains(&code.as_str()));
        let words_in = |known: &[&str]| known.iter().any(|words| self.words.contains(words));
        if code_in(QUOTA_CODES) || (matches!(status, 400..=499) && words_in(QUOTA_WORDS)) {
            return Some(ErrorKind::Quota);
        }
        // Words decide only where the status leaves it open: llama.cpp has answered 500 for it.
        let open = matches!(status, 400 | 413 | 422 | 500);
        (code_in(CONTEXT_CODES) || (open && words_in(CONTEXT_WORDS))).then_some(ErrorKind::ContextLength)
    }

    /// The first code that is a plain word, and so cannot be a key or a part of a prompt worth hiding.
    fn plain_code(&self) -> Option<String> {
        let plain = |code: &&String| {
            let letters = code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            letters && (1..=LONGEST_CODE).contains(&code.len())
        };
        self.codes.iter().find(plain).cloned()
    }
}

fn is_error(status: u16) -> bool {
    (400..600).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::*;

    fn status(status: u16, page: &str) -> ProviderError {
        of_status(status, &HeaderMap::new(), page.as_bytes())
    }

    #[test]
    fn statuses_have_kinds_whatever_the_page_says() {
        let kinds = [
            (400, BadRequest),
            (401, Auth),
            (402, Quota),
            (403, Auth),
            (404, BadRequest),
            (408, Timeout),
            (413, BadRequest),
            (422, BadRequest),
            (429, RateLimited),
            (499, Unavailable),
            (500, Unavailable),
            (503, Unavailable),
            (529, Unavailable),
            (301, Protocol),
            (307, Protocol),
        ];
        for (number, kind) in kinds {
            for page in ["", "<html>maximum context length</html>", "{}", "null", r#"{"error":null}"#, "[", "\u{0}"] {
                assert_eq!(status(number, page).kind, kind, "{number} {page}");
            }
        }
    }

    #[test]
    fn a_used_up_quota_is_no_rate_limit() {
        let openai = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        assert_eq!(status(429, openai).kind, Quota);
        assert_eq!(status(429, r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#).kind, RateLimited);
        assert_eq!(status(400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#).kind, Quota);
    }

    #[test]
    fn a_conversation_that_is_too_long_has_many_spellings() {
        for (number, page) in [
            (400, r#"{"error":{"message":"…","code":"context_length_exceeded"}}"#),
            (400, r#"{"error":{"message":"This model's maximum context length is 4096 tokens.","code":400}}"#),
            (
                400,
                r#"{"object":"error","message":"maximum context length is 2048","type":"BadRequestError","code":400}"#,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_ctx":4096}}"#,
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"the request exceeds the available context size","type":"server_error"}}"#,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            ),
            (
                400,
                r#"[{"error":{"code":400,"message":"The input token count (9) exceeds the maximum","status":"INVALID_ARGUMENT"}}]"#,
            ),
            (413, r#"{"error":"the input exceeds the context window"}"#),
        ] {
            assert_eq!(status(number, page).kind, ContextLength, "{page}");
        }
    }

    #[test]
    fn an_error_in_an_event_speaks_for_itself() {
        for (data, kind, number) in [
            (r#"{"error":{"code":503,"message":"loading model","type":"unavailable_error"}}"#, Unavailable, Some(503)),
            (r#"{"error":{"code":"429","message":"slow"}}"#, RateLimited, Some(429)),
            (r#"{"error":{"type":"overloaded_error","message":"Overloaded"},"type":"error"}"#, Unavailable, None),
            (r#"{"error":{"type":"rate_limit_error","message":"…"}}"#, RateLimited, None),
            (r#"{"error":{"code":"context_length_exceeded"}}"#, ContextLength, None),
            (r#"{"error":{"message":"prompt is too long"}}"#, ContextLength, None),
            (r#"{"error":"boom"}"#, Unavailable, None),
            (r#"{"type":"error","message":"boom"}"#, Unavailable, None),
            (r#"["not an error"]"#, Protocol, None),
            ("boom", Protocol, None),
        ] {
            let error = of_event(data);
            assert_eq!((error.kind, error.status), (kind, number), "{data}");
        }
    }

    #[test]
    fn nothing_that_a_provider_says_is_shown_but_a_plain_code() {
        let page = r#"{"error":{"message":"Incorrect API key provided: sk-abc123. Prompt: secret","type":"sk-abc123","code":"invalid_api_key"}}"#;
        let error = status(401, page);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("invalid_api_key") && shown.contains("401"), "{shown}");
        assert!(!shown.contains("sk-abc") && !shown.contains("secret") && !shown.contains("Incorrect"), "{shown}");
    }
}
