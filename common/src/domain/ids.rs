//! Typed identifiers: a UUIDv7 (RFC 9562) for everything that has a row or a job.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new identifier; later ones sort after earlier ones of the same process.
            #[expect(clippy::new_without_default, reason = "a default id would hide that each one is different")]
            #[expect(clippy::disallowed_methods, reason = "this is the constructor that the ban points to")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// Who owns agents and keys, and who pays.
    AccountId
}
id! {
    /// An agent ("employee" in the first API) that answers prompts.
    AgentId
}
id! {
    /// An API key; never the secret itself.
    KeyId
}
id! {
    /// One exchange with an agent, and the job that carries it: they share the id.
    MessageId
}
id! {
    /// Many messages that came in one request.
    BatchId
}
id! {
    /// One start of one gateway process: where replies for its callers go.
    GatewayId
}
id! {
    /// One HTTP request, as answers and logs name it.
    RequestId
}
id! {
    /// An entry in the ledger; a charge has the id of its message.
    EntryId
}
id! {
    /// An address that an account registered for events.
    EndpointId
}
id! {
    /// One event on its way to one receiver.
    DeliveryId
}
