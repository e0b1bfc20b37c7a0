//! Who owns agents and keys, and what they may spend.

use super::{channel::ChannelSet, ids::AccountId, time::Millis};

/// A millionth of a credit: the unit of every price, charge and balance.
pub type MicroCredits = i64;

/// One tenant.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its identifier.
    pub id: AccountId,
    /// A name for people; unique, so that commands can use it.
    pub name: String,
    /// The address that has to be verified before any call is served.
    pub email: String,
    /// Whether it is verified.
    pub email_verified: bool,
    /// The channels that are on.
    pub channels: ChannelSet,
    /// What is left; may fall below zero by what had been accepted before.
    pub balance: MicroCredits,
    /// Whether it has endpoints that are told of events.
    pub has_endpoints: bool,
    /// When it was made.
    pub created_at: Millis,
}
