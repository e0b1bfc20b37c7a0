//! The demo provider: needs no key, echoes the prompt word by word and obeys directives in it.
//!
//! A directive stands on a line of its own in the last user turn. Lines are taken in order: what stands before a
//! `/fail` has already left when it fails. A line that is no directive, or whose value is out of range, is echoed.
//!
//! | directive | what it does |
//! |---|---|
//! | `/sleep 2s` | waits, at most an hour |
//! | `/pace 20ms` | from here on waits before every fragment, at most a minute |
//! | `/tokens 500` | answers `tok1 tok2 …`, at most 100,000 of them |
//! | `/fail 429 retry-after=3` | fails; also `400`, `401`, `503`, `quota`, `context`, `timeout`, `truncated` |

mod script;

use std::time::Duration;

use async_trait::async_trait;
use common::domain::{job::Role, message::Usage};

use self::script::Step;
use super::provider::{Completion, ModelRequest, Provider, ProviderError, TextSink};

/// The name of the only model that it has, whatever the agent asks for.
const MODEL: &str = "demo";

/// Answers without a model.
#[derive(Debug, Default)]
pub struct Demo;

#[async_trait]
impl Provider for Demo {
    fn name(&self) -> &'static str {
        "demo"
    }

    async fn complete(&self, request: ModelRequest<'_>, text: &mut TextSink<'_>) -> Result<Completion, ProviderError> {
        let prompt = request.turns.iter().rfind(|turn| turn.role == Role::User).map_or("", |turn| turn.content);
        let mut voice = Voice { text, pace: Duration::ZERO, begun: false, words: 0 };
        for line in prompt.split('\n') {
            match script::read(line) {
                None => voice.echo(line).await,
                Some(Step::Sleep(length)) => tokio::time::sleep(length).await,
                Some(Step::Pace(length)) => voice.pace = length,
                Some(Step::Tokens(count)) => voice.count(count).await,
                Some(Step::Fail { kind, status, retry_after }) => {
                    return Err(ProviderError { status, retry_after, ..ProviderError::new(kind) });
                }
            }
        }
        let input_tokens = request.turns.iter().map(|turn| words(turn.content)).sum();
        let usage = Usage { input_tokens, output_tokens: voice.words, estimated: false };
        Ok(Completion { model: MODEL.to_owned(), usage: Some(usage) })
    }
}

/// Says fragments at a pace, and counts their words.
struct Voice<'a, 'b> {
    text: &'a mut TextSink<'b>,
    pace: Duration,
    begun: bool,
    words: u32,
}

impl Voice<'_, '_> {
    /// Says `line` word by word, each with the white space after it, so that the pieces add up to the line.
    async fn echo(&mut self, line: &str) {
        self.begin_line();
        let mut rest = line;
        while !rest.is_empty() {
            let word = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
            let gap = rest[word..].find(char::is_whitespace).map_or(rest.len(), |at| word + at);
            let next = rest[gap..].find(|c: char| !c.is_whitespace()).map_or(rest.len(), |at| gap + at);
            self.say(&rest[..next]).await;
            rest = &rest[next..];
        }
    }

    async fn count(&mut self, count: u32) {
        self.begin_line();
        for number in 1..=count {
            let gap = if number < count { " " } else { "" };
            self.say(&format!("tok{number}{gap}")).await;
        }
    }

    fn begin_line(&mut self) {
        if self.begun {
            (self.text)("\n");
        }
        self.begun = true;
    }

    async fn say(&mut self, fragment: &str) {
        if self.pace > Duration::ZERO {
            tokio::time::sleep(self.pace).await;
        }
        // Many fragments without a pause must not keep the thread from other jobs.
        tokio::task::coop::consume_budget().await;
        self.words = self.words.saturating_add(words(fragment));
        (self.text)(fragment);
    }
}

fn words(text: &str) -> u32 {
    u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::providers::provider::{ErrorKind, ModelTurn};

    async fn ask(prompt: &str) -> (Vec<String>, Result<Completion, ProviderError>) {
        let turns = [
            ModelTurn { role: Role::System, content: "be kind\n/fail 401" },
            ModelTurn { role: Role::User, content: prompt },
        ];
        let request = ModelRequest { model: "any", turns: &turns, temperature: None, max_output_tokens: None };
        let mut said = Vec::new();
        let end = Demo.complete(request, &mut |fragment: &str| said.push(fragment.to_owned())).await;
        (said, end)
    }

    #[tokio::test]
    async fn the_prompt_comes_back_word_by_word() {
        let (said, end) = ask("hello  my\tworld ").await;
        assert_eq!(said, ["hello  ", "my\t", "world "]);
        let completion = end.expect("an echo never fails");
        assert_eq!(completion.model, "demo");
        let usage = completion.usage.expect("demo counts");
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (7, 3, false));
    }

    #[tokio::test]
    async fn every_text_without_directives_is_echoed_exactly() {
        for text in
            ["", " ", "\n", "a\n\nb\n", "  a\r\n b ", "ä ö\u{2003}ü", "/help\n/sleepy 3s\n/sleep -1s\n/tokens 0"]
        {
            assert_eq!(ask(text).await.0.concat(), text);
        }
    }

    #[tokio::test]
    async fn directives_are_not_echoed() {
        assert_eq!(ask("a\n/pace 0ms\nb").await.0.concat(), "a\nb");
        let (said, end) = ask("/tokens 3").await;
        assert_eq!(said, ["tok1 ", "tok2 ", "tok3"]);
        assert_eq!(end.expect("tokens").usage.expect("demo counts").output_tokens, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_and_keeps_its_pace() {
        let (began, real) = (tokio::time::Instant::now(), Instant::now());
        assert_eq!(ask("/sleep 2s\n/pace 100ms\none two three").await.0.concat(), "one two three");
        assert_eq!(began.elapsed(), Duration::from_millis(2_300));
        assert!(real.elapsed() < Duration::from_secs(1), "the time was to be paused");
    }

    #[tokio::test]
    async fn it_fails_as_told_after_what_stands_before() {
        let (said, end) = ask("two words\n/fail 429 retry-after=3\nnever said").await;
        assert_eq!(said.concat(), "two words");
        let error = end.expect_err("told to fail");
        assert_eq!((error.kind, error.status), (ErrorKind::RateLimited, Some(429)));
        assert_eq!(error.retry_after, Some(Duration::from_secs(3)));
    }
}
