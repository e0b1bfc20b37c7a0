//! The caller: the holder of a valid key.

use common::domain::{account::Account, key::ApiKey};

/// An account, and the key with which it calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who pays.
    pub account: Account,
    /// With which key.
    pub key: ApiKey,
}
