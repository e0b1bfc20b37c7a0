//! What a run has used, call by call; readable at any moment, also after the run was dropped.

use common::domain::{message::Usage, time::Millis};

use crate::providers::provider::ModelTurn;

/// English text has about four bytes a token in the common vocabularies; where nothing better is known, that is taken.
const BYTES_PER_TOKEN: usize = 4;

/// The meter of one run. Every call counts, also those that broke off: the provider was made to work.
///
/// A call's usage is the provider's own report. Where there is none it is estimated from the texts, a token for every
/// four bytes begun, and the whole is marked as estimated. A call that failed before it made any text counts nothing.
#[derive(Debug, Default)]
pub struct Meter {
    starts: u32,
    started_at: Option<Millis>,
    model: Option<String>,
    ended: Usage,
    open: Option<Call>,
}

#[derive(Debug)]
struct Call {
    input_bytes: usize,
    output_bytes: usize,
}

impl Meter {
    /// The run begins now, for the `starts`th time.
    pub fn start(&mut self, starts: u32, now: Millis) {
        (self.starts, self.started_at) = (starts, Some(now));
    }

    /// How often its job was begun, this time included; 0 before that.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// When it began.
    pub fn started_at(&self) -> Option<Millis> {
        self.started_at
    }

    /// What has been used so far.
    pub fn usage(&self) -> Usage {
        self.open.as_ref().map_or(self.ended, |call| sum(self.ended, call.broken_off()))
    }

    /// The model of the last call, as its agent names it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// A call of `model` begins with this prompt.
    pub(super) fn begin(&mut self, model: &str, prompt: &[ModelTurn<'_>]) {
        self.model = Some(model.to_owned());
        let input_bytes = prompt.iter().map(|turn| turn.content.len()).sum();
        self.open = Some(Call { input_bytes, output_bytes: 0 });
    }

    /// The call has made so much text.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if let Some(call) = &mut self.open {
            call.output_bytes += bytes;
        }
    }

    /// The call succeeded; returns what it used.
    pub(super) fn succeed(&mut self, reported: Option<Usage>) -> Usage {
        self.end(|call| reported.unwrap_or_else(|| call.estimate()))
    }

    /// The call failed; returns what it used.
    pub(super) fn fail(&mut self) -> Usage {
        self.end(Call::broken_off)
    }

    fn end(&mut self, used: impl FnOnce(&Call) -> Usage) -> Usage {
        let Some(call) = self.open.take() else { return Usage::default() };
        let usage = used(&call);
        self.ended = sum(self.ended, usage);
        usage
    }
}

impl Call {
    fn estimate(&self) -> Usage {
        let tokens = |bytes: usize| u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX);
        Usage { input_tokens: tokens(self.input_bytes), output_tokens: tokens(self.output_bytes), estimated: true }
    }

    fn broken_off(&self) -> Usage {
        if self.output_bytes == 0 { Usage::default() } else { self.estimate() }
    }
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        input_tokens: a.input_tokens.saturating_add(b.input_tokens),
        output_tokens: a.output_tokens.saturating_add(b.output_tokens),
        estimated: a.estimated || b.estimated,
    }
}

#[cfg(test)]
mod tests {
    use common::domain::job::Role;

    use super::*;

    const PROMPT: [ModelTurn<'_>; 2] =
        [ModelTurn { role: Role::System, content: "be kind" }, ModelTurn { role: Role::User, content: "hi" }];

    fn usage(input_tokens: u32, output_tokens: u32, estimated: bool) -> Usage {
        Usage { input_tokens, output_tokens, estimated }
    }

    #[test]
    fn a_report_is_taken_and_its_absence_estimated() {
        let mut meter = Meter::default();
        meter.begin("demo", &PROMPT);
        meter.wrote(5);
        assert_eq!(meter.succeed(Some(usage(7, 1, false))), usage(7, 1, false));
        meter.begin("demo", &PROMPT);
        meter.wrote(5);
        assert_eq!(meter.succeed(None), usage(3, 2, true));
        assert_eq!(meter.usage(), usage(10, 3, true));
    }

    #[test]
    fn a_call_that_made_no_text_counts_nothing() {
        let mut meter = Meter::default();
        meter.begin("demo", &PROMPT);
        assert_eq!(meter.usage(), Usage::default());
        assert_eq!(meter.fail(), Usage::default());
        meter.begin("demo", &PROMPT);
        meter.wrote(1);
        assert_eq!(meter.usage(), usage(3, 1, true), "an open call shows what it has made");
        assert_eq!(meter.model(), Some("demo"));
        assert_eq!(meter.fail(), usage(3, 1, true));
    }
}
