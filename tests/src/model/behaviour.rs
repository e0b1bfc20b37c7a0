//! What a model server does with a request: answers, refusals and mischief.

use std::time::Duration;

use serde_json::{Value, json};

use super::gate::Gate;

/// The name under which the scripted model answers.
const MODEL: &str = "scripted-1";

/// What is done with one request.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub(super) form: Form,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    /// A stream of these pieces of text.
    Answer(Answer),
    /// A stream of the words of the last turn.
    Echo(Answer),
    /// A whole document.
    Page { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// These very bytes, head and all; then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing is ever sent.
    HangBeforeHead,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) texts: Vec<String>,
    usage: Option<(u32, u32)>,
    finish_reason: bool,
    done: bool,
    pub(super) pace: Duration,
    pub(super) gate: Option<(usize, Gate)>,
    keep_alives: bool,
    line_end: &'static str,
    byte_order_mark: bool,
    pub(super) cuts: Cuts,
    pub(super) ending: Ending,
    pub(super) is_numbered: bool,
    pub(super) content_type: &'static str,
}

/// Where a stream is cut into pieces that are sent apart.
#[derive(Clone, Debug)]
pub(super) enum Cuts {
    /// One piece an event.
    Events,
    /// Pieces of so many bytes.
    Every(usize),
    /// Two pieces.
    At(usize),
}

/// What comes after the pieces of text.
#[derive(Clone, Debug)]
pub enum Ending {
    /// The marks and the usage, and an orderly end.
    Orderly,
    /// Nothing more, on a connection that stays open.
    Hang,
    /// The connection is closed in the middle of the next event.
    Cut,
    /// An event with this error, then an orderly end without marks.
    Error(Value),
}

impl Behaviour {
    /// A good answer in these pieces, with usage, one event a piece.
    pub fn answer<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        Self { form: Form::Answer(Answer::of(texts)) }
    }

    /// A good answer that repeats the last turn word by word.
    pub fn echo() -> Self {
        Self { form: Form::Echo(Answer::of(Vec::new())) }
    }

    /// A plain completion, although a stream was asked for.
    pub fn plain(text: &str) -> Self {
        let message = json!({"role": "assistant", "content": text});
        let body = json!({
            "object": "chat.completion", "model": MODEL, "usage": usage((7, 3)),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        });
        Self::json(200, &body)
    }

    /// Any JSON with any status.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::page(status, "application/json", body.to_string())
    }

    /// 200 with this text, called JSON.
    pub fn json_text(text: &str) -> Self {
        Self::page(200, "application/json", text)
    }

    /// Any document with any status.
    pub fn page(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { form: Form::Page { status, headers, body: body.into() } }
    }

    /// 429, with `Retry-After` if it is given.
    pub fn rate_limited(retry_after: Option<&str>) -> Self {
        let page = Self::json(429, &error("slow down", "requests", json!("rate_limit_exceeded")));
        retry_after.iter().fold(page, |page, value| page.with_header("retry-after", value))
    }

    /// 429 because the money is used up.
    pub fn quota() -> Self {
        Self::json(429, &error("you exceeded your quota", "insufficient_quota", json!("insufficient_quota")))
    }

    /// 401; quotes the key, as OpenAI does.
    pub fn wrong_key() -> Self {
        let message = "Incorrect API key provided: sk-quoted";
        Self::json(401, &error(message, "invalid_request_error", json!("invalid_api_key")))
    }

    /// 400 because the conversation is too long.
    pub fn context_length() -> Self {
        let message = "This model's maximum context length is 16 tokens";
        Self::json(400, &error(message, "invalid_request_error", json!("context_length_exceeded")))
    }

    /// 400 for another reason; quotes the prompt.
    pub fn bad_request() -> Self {
        Self::json(400, &error("cannot use `the prompt, quoted`", "invalid_request_error", Value::Null))
    }

    /// 503 with a number for a code, as llama.cpp answers while it loads.
    pub fn unavailable() -> Self {
        Self::json(503, &error("Loading model", "unavailable_error", json!(503)))
    }

    /// A proxy's page instead of an answer.
    pub fn web_page(status: u16) -> Self {
        Self::page(status, "text/html", "<!doctype html><title>Bad gateway</title><p>maximum context length</p>")
    }

    /// These bytes, head and all, and then a closed connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { form: Form::Raw(bytes.into()) }
    }

    /// Takes the request and says nothing.
    pub fn hang_before_head() -> Self {
        Self { form: Form::HangBeforeHead }
    }

    /// A good head, and then nothing.
    pub fn hang_after_head() -> Self {
        Self::answer::<String>([]).ending(Ending::Hang)
    }

    /// With one more header; only for documents.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Form::Page { headers, .. } = &mut self.form {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// With these prompt and completion tokens; without any for `None`.
    #[must_use]
    pub fn usage(self, usage: Option<(u32, u32)>) -> Self {
        self.with(|answer| answer.usage = usage)
    }

    /// Which finish marks are sent: a `finish_reason`, and `[DONE]`.
    #[must_use]
    pub fn marks(self, finish_reason: bool, done: bool) -> Self {
        self.with(|answer| (answer.finish_reason, answer.done) = (finish_reason, done))
    }

    /// With a pause before every piece.
    #[must_use]
    pub fn paced(self, pace: Duration) -> Self {
        self.with(|answer| answer.pace = pace)
    }

    /// An echo that begins with `#n `, where this is the `n`th request: no two answers are alike.
    #[must_use]
    pub fn numbered(self) -> Self {
        self.with(|answer| answer.is_numbered = true)
    }

    /// Held back by `gate` after so many pieces: those of text, unless the stream is cut otherwise.
    #[must_use]
    pub fn held_after(self, pieces: usize, gate: &Gate) -> Self {
        self.with(|answer| answer.gate = Some((pieces, gate.clone())))
    }

    /// With a comment before every event.
    #[must_use]
    pub fn with_keep_alives(self) -> Self {
        self.with(|answer| answer.keep_alives = true)
    }

    /// With lines that end like this.
    #[must_use]
    pub fn line_ends(self, line_end: &'static str) -> Self {
        self.with(|answer| answer.line_end = line_end)
    }

    /// With a byte order mark in front.
    #[must_use]
    pub fn with_byte_order_mark(self) -> Self {
        self.with(|answer| answer.byte_order_mark = true)
    }

    /// Sent in pieces of so many bytes, whatever the events.
    #[must_use]
    pub fn in_pieces(self, bytes: usize) -> Self {
        self.with(|answer| answer.cuts = Cuts::Every(bytes.max(1)))
    }

    /// Sent in two pieces, the first of so many bytes.
    #[must_use]
    pub fn split_at(self, bytes: usize) -> Self {
        self.with(|answer| answer.cuts = Cuts::At(bytes))
    }

    /// With this after the text.
    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        self.with(|answer| answer.ending = ending)
    }

    /// With this content type, whatever comes.
    #[must_use]
    pub fn content_type(self, content_type: &'static str) -> Self {
        self.with(|answer| answer.content_type = content_type)
    }

    /// The bytes of a stream's body: what [`Behaviour::split_at`] counts in.
    pub fn stream_len(&self) -> usize {
        match &self.form {
            Form::Answer(answer) => answer.pieces().concat().len(),
            _ => 0,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        if let Form::Answer(answer) | Form::Echo(answer) = &mut self.form {
            change(answer);
        }
        self
    }
}

impl Answer {
    fn of(texts: Vec<String>) -> Self {
        Self {
            texts,
            usage: Some((7, 3)),
            finish_reason: true,
            done: true,
            pace: Duration::ZERO,
            gate: None,
            keep_alives: false,
            line_end: "\n",
            byte_order_mark: false,
            cuts: Cuts::Events,
            ending: Ending::Orderly,
            is_numbered: false,
            content_type: "text/event-stream",
        }
    }

    /// The stream in the pieces in which it is sent.
    pub(super) fn pieces(&self) -> Vec<Vec<u8>> {
        let mut events: Vec<Vec<u8>> = self.events().into_iter().map(String::into_bytes).collect();
        if self.byte_order_mark {
            events.insert(0, "\u{feff}".into());
        }
        match self.cuts {
            Cuts::Events => events,
            Cuts::Every(bytes) => events.concat().chunks(bytes).map(<[u8]>::to_vec).collect(),
            Cuts::At(bytes) => {
                let whole = events.concat();
                let (first, second) = whole.split_at(bytes.min(whole.len()));
                vec![first.to_vec(), second.to_vec()]
            }
        }
    }

    fn events(&self) -> Vec<String> {
        let piece = |text: &String| chunk(json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}]));
        let mut events: Vec<String> = self.texts.iter().map(|text| self.event(&piece(text).to_string())).collect();
        match &self.ending {
            Ending::Hang => {}
            Ending::Cut => events.push("data: {\"choices\":[{\"ind".to_owned()),
            Ending::Error(error) => events.push(self.event(&error.to_string())),
            Ending::Orderly => {
                if self.finish_reason {
                    let last = chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]));
                    events.push(self.event(&last.to_string()));
                }
                if let Some(tokens) = self.usage {
                    let mut last = chunk(json!([]));
                    last["usage"] = usage(tokens);
                    events.push(self.event(&last.to_string()));
                }
                if self.done {
                    events.push(self.event("[DONE]"));
                }
            }
        }
        events
    }

    fn event(&self, data: &str) -> String {
        let end = self.line_end;
        let comment = if self.keep_alives { format!(": keep-alive{end}{end}") } else { String::new() };
        format!("{comment}data: {data}{end}{end}")
    }
}

fn chunk(choices: Value) -> Value {
    json!({"object": "chat.completion.chunk", "model": MODEL, "choices": choices})
}

fn usage((input, output): (u32, u32)) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

fn error(message: &str, kind: &str, code: Value) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}
