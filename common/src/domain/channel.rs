//! The ways in to an agent that an account can switch on and off one by one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One inbound channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// The REST API.
    Api,
    /// Submission without waiting.
    Webhooks,
    /// The Model Context Protocol server.
    Mcp,
    /// Agent to agent.
    A2a,
    /// SMTP submission.
    Email,
}

/// A channel's name that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("unknown channel `{0}` (known: api, webhooks, mcp, a2a, email)")]
pub struct UnknownChannel(String);

impl Channel {
    /// Every channel, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Api, Self::Webhooks, Self::Mcp, Self::A2a, Self::Email];

    /// The name that commands, rows and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Webhooks => "webhooks",
            Self::Mcp => "mcp",
            Self::A2a => "a2a",
            Self::Email => "email",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|channel| channel.name() == text).ok_or_else(|| UnknownChannel(text.to_owned()))
    }
}

/// The channels that are switched on; none of them for a new account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelSet(u8);

impl ChannelSet {
    /// Whether `channel` is on.
    pub fn contains(self, channel: Channel) -> bool {
        self.0 & channel.bit() != 0
    }

    /// The same set with `channel` on or off.
    #[must_use]
    pub fn with(self, channel: Channel, on: bool) -> Self {
        if on { Self(self.0 | channel.bit()) } else { Self(self.0 & !channel.bit()) }
    }
}

impl fmt::Display for ChannelSet {
    /// The names of those that are on, separated by commas: the stored form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = Channel::ALL.into_iter().filter(|c| self.contains(*c)).map(Channel::name).collect();
        f.write_str(&on.join(","))
    }
}

impl FromStr for ChannelSet {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').filter(|name| !name.is_empty());
        names.into_iter().try_fold(Self::default(), |set, name| Ok(set.with(name.parse()?, true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_stored_form() {
        let set = ChannelSet::default().with(Channel::Api, true).with(Channel::Email, true);
        assert_eq!(set.to_string(), "api,email");
        assert_eq!(set.to_string().parse::<ChannelSet>().expect("own form"), set);
        assert!(!set.with(Channel::Api, false).contains(Channel::Api));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!("api,fax".parse::<ChannelSet>().is_err());
    }
}
