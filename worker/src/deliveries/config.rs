//! The settings of webhooks out.

use common::{
    env::{self, EnvError},
    outbound::guard::Guard,
};

/// Where webhooks may go, and how many at a time.
#[derive(Clone, Debug)]
pub struct DeliveriesConfig {
    /// Judges addresses.
    pub guard: Guard,
    /// Receivers that this worker serves at a time, half of them never tried before; a quarter as many more whose last
    /// try failed.
    pub receivers: usize,
}

impl DeliveriesConfig {
    /// `FRONTDESK_ALLOW_LOOPBACK_TARGETS` and `FRONTDESK_WEBHOOK_RECEIVERS` (1,024; 1 to 100,000).
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            guard: Guard::from_environment()?,
            receivers: env::within("FRONTDESK_WEBHOOK_RECEIVERS", 1_024, 1..=100_000)?,
        })
    }
}
