//! Endpoints: addresses that an account registered to be told of events.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    event::EventKind,
    ids::{AccountId, EndpointId},
    signing::SigningSecret,
    time::Millis,
};

/// How long the secret before a rotation signs too.
pub const OLD_SECRET_LIFE: Duration = Duration::from_hours(24);

/// Why an endpoint was switched off without its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// It was tried for days without a success.
    Failing,
}

/// A reason that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("unknown reason `{0}`")]
pub struct UnknownReason(String);

impl DisabledReason {
    /// The name that bodies and rows use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

impl fmt::Display for DisabledReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DisabledReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Gone, Self::Failing];
        known.into_iter().find(|reason| reason.name() == text).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

/// The secrets of one receiver: the one that counts, and after a rotation for a while those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// The newest.
    pub current: SigningSecret,
    /// Those before, the newest first, and until when they sign too.
    pub previous: Vec<(SigningSecret, Millis)>,
}

impl Secrets {
    /// Those that sign at `now`, the newest first.
    pub fn valid_at(&self, now: Millis) -> impl Iterator<Item = &SigningSecret> {
        let previous = self.previous.iter().filter(move |(_, until)| now < *until).map(|(secret, _)| secret);
        std::iter::once(&self.current).chain(previous)
    }

    /// Until when the one before the newest signs too, if it still does at `now`.
    pub fn previous_until(&self, now: Millis) -> Option<Millis> {
        self.previous.first().map(|(_, until)| *until).filter(|until| now < *until)
    }
}

/// An address that is told of events.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its identifier.
    pub id: EndpointId,
    /// Whose it is.
    pub account: AccountId,
    /// The address.
    pub url: String,
    /// The events that it is told of; empty: every event.
    pub events: Vec<EventKind>,
    /// Whether it is told of anything.
    pub enabled: bool,
    /// Why it is not, when its owner did not switch it off.
    pub disabled_reason: Option<DisabledReason>,
    /// What signs its webhooks.
    pub secrets: Secrets,
    /// When it was made.
    pub created_at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_before_sign_until_their_time_is_over() {
        let [new, old, older] = std::array::from_fn(|_| SigningSecret::generate());
        let previous = vec![(old.clone(), Millis(100)), (older.clone(), Millis(50))];
        let secrets = Secrets { current: new.clone(), previous };
        assert_eq!(secrets.valid_at(Millis(49)).collect::<Vec<_>>(), [&new, &old, &older]);
        assert_eq!(secrets.valid_at(Millis(99)).collect::<Vec<_>>(), [&new, &old]);
        assert_eq!(secrets.valid_at(Millis(100)).collect::<Vec<_>>(), [&new]);
        assert_eq!(secrets.previous_until(Millis(99)), Some(Millis(100)));
        assert_eq!(secrets.previous_until(Millis(100)), None);
    }
}
