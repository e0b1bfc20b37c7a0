//! The answer of a run as it grows, and begins anew when it must.

use std::borrow::Cow;

use common::domain::message::Usage;

use super::{Event, EventSink, Run};
use crate::{
    agent::meter::Meter,
    providers::provider::{Completion, ModelRequest, Provider, ProviderError},
};

/// What has been said, who hears it, and what it costs.
pub(super) struct Draft<'a, 'b> {
    content: String,
    events: &'a mut EventSink<'b>,
    meter: &'a mut Meter,
}

impl<'a, 'b> Draft<'a, 'b> {
    /// Nothing said yet.
    pub(super) fn new(events: &'a mut EventSink<'b>, meter: &'a mut Meter) -> Self {
        Self { content: String::new(), events, meter }
    }

    /// Makes one call; also says what it used.
    pub(super) async fn call(
        &mut self,
        provider: &dyn Provider,
        request: ModelRequest<'_>,
    ) -> Result<(Completion, Usage), (ProviderError, Usage)> {
        self.meter.begin(request.model, request.turns);
        match provider.complete(request, &mut |fragment: &str| self.say(fragment)).await {
            Ok(completion) => {
                let used = self.meter.succeed(completion.usage);
                Ok((completion, used))
            }
            Err(error) => Err((error, self.meter.fail())),
        }
    }

    /// Takes back what has been said, if anything has.
    pub(super) fn restart(&mut self) {
        if !self.content.is_empty() {
            self.content.clear();
            (self.events)(Event::Restarted);
        }
    }

    /// What all calls have used so far.
    pub(super) fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// The run that this has become.
    pub(super) fn into_run(self, model: String) -> Run {
        Run { usage: self.meter.usage(), content: self.content, model }
    }

    fn say(&mut self, fragment: &str) {
        if fragment.is_empty() {
            return;
        }
        let text = storable(fragment);
        self.meter.wrote(text.len());
        self.content.push_str(&text);
        (self.events)(Event::Text(&text));
    }
}

/// `text` without NUL characters, which PostgreSQL cannot store.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}
