//! How often one key may call, and how often one address may fail to say who it is.

pub mod window;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use common::{
    domain::ids::KeyId,
    env::{self, EnvError},
};
use tokio::time::Instant;

use self::window::{Standing, Window};

/// The most addresses whose failures are told apart within a minute. Beyond it, failures of further addresses are
/// answered as if those were over their limit; valid keys pass all the same.
const ADDRESSES: usize = 100_000;
/// The most entries, between two tellings, beside which failures are still told: with them all it fits a message.
const TOLD: usize = 4_096;

/// What a request counts as: a poller does not starve its own submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Whatever makes or asks for work.
    Requests,
    /// Reading, following and stopping what was submitted.
    Reads,
}

impl Bucket {
    /// The name of its policy in answers, and of its refusals in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "key",
            Self::Reads => "read",
        }
    }
}

/// How many are allowed within any minute.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Requests of one key.
    pub key: u32,
    /// Reads of one key.
    pub reads: u32,
    /// Failed authentications of one address.
    pub failures: u32,
}

impl Quotas {
    /// `FRONTDESK_KEY_LIMIT`, `FRONTDESK_READ_LIMIT` and `FRONTDESK_AUTH_FAILURE_LIMIT`.
    pub fn from_environment() -> Result<Self, EnvError> {
        Ok(Self {
            key: env::within("FRONTDESK_KEY_LIMIT", 120, 1..=1_000_000)?,
            reads: env::within("FRONTDESK_READ_LIMIT", 600, 1..=1_000_000)?,
            failures: env::within("FRONTDESK_AUTH_FAILURE_LIMIT", 10, 1..=1_000_000)?,
        })
    }
}

/// The limits of this gateway, and what it has not yet told the others.
#[derive(Debug)]
pub struct RateLimiter {
    requests: Window<KeyId>,
    reads: Window<KeyId>,
    failures: Window<IpAddr>,
    untold: Mutex<HashMap<Counted, u32>>,
}

/// What other gateways are told the counts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Key(Bucket, KeyId),
    Failures(IpAddr),
}

impl RateLimiter {
    /// Nothing counted yet.
    pub fn new(quotas: Quotas) -> Self {
        let now = Instant::now();
        Self {
            requests: Window::new(quotas.key, usize::MAX, now),
            reads: Window::new(quotas.reads, usize::MAX, now),
            failures: Window::new(quotas.failures, ADDRESSES, now),
            untold: Mutex::default(),
        }
    }

    /// Counts a request of `key`.
    ///
    /// # Errors
    /// When the key is at its limit; the request is not counted then.
    pub fn request(&self, bucket: Bucket, key: KeyId) -> Result<Standing, Standing> {
        let standing = self.window(bucket).take(key, Instant::now())?;
        *self.untold().entry(Counted::Key(bucket, key)).or_default() += 1;
        Ok(standing)
    }

    /// Where `key` stands, without counting anything.
    pub fn standing(&self, bucket: Bucket, key: KeyId) -> Standing {
        self.window(bucket).look(&key, Instant::now())
    }

    /// Counts a failed authentication from `address`. Whether it may still be answered as such.
    pub fn failure(&self, address: IpAddr) -> bool {
        let address = neighbourhood(address);
        let may_be_answered = self.failures.take(address, Instant::now()).is_ok();
        let mut untold = self.untold();
        let counted = Counted::Failures(address);
        if may_be_answered && (untold.len() < TOLD || untold.contains_key(&counted)) {
            *untold.entry(counted).or_default() += 1;
        }
        may_be_answered
    }

    /// What this gateway has counted since the last call, by bucket and key or by address: for the other gateways.
    pub fn take_counts(&self) -> Vec<(String, u32)> {
        let untold = std::mem::take(&mut *self.untold());
        untold.into_iter().map(|(counted, count)| (counted.written(), count)).collect()
    }

    /// Adds what another gateway has counted.
    pub fn add_counts(&self, counts: &[(String, u32)]) {
        let now = Instant::now();
        for (name, count) in counts {
            match Counted::read(name) {
                Some(Counted::Key(bucket, key)) => self.window(bucket).add(key, *count, now),
                Some(Counted::Failures(address)) => self.failures.add(address, *count, now),
                None => {}
            }
        }
    }

    fn window(&self, bucket: Bucket) -> &Window<KeyId> {
        match bucket {
            Bucket::Requests => &self.requests,
            Bucket::Reads => &self.reads,
        }
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, HashMap<Counted, u32>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands before the key of a read that another gateway is told of.
const READ: &str = "read:";
/// What stands before an address that failed.
const FAILED: &str = "failed:";

impl Counted {
    fn written(self) -> String {
        match self {
            Self::Key(Bucket::Requests, key) => key.to_string(),
            Self::Key(Bucket::Reads, key) => format!("{READ}{key}"),
            Self::Failures(address) => format!("{FAILED}{address}"),
        }
    }

    /// `None` for what a newer gateway tells of.
    fn read(name: &str) -> Option<Self> {
        if let Some(address) = name.strip_prefix(FAILED) {
            return Some(Self::Failures(neighbourhood(address.parse().ok()?)));
        }
        let (bucket, key) = match name.strip_prefix(READ) {
            Some(key) => (Bucket::Reads, key),
            None => (Bucket::Requests, name),
        };
        Some(Self::Key(bucket, key.parse().ok()?))
    }
}

/// What counts as one address. Of IPv6, whoever has one has its whole /64.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_gateway_counts_another_adds() {
        let (one, other) = (limiter(), limiter());
        let key = KeyId::new();
        for _ in 0..3 {
            one.request(Bucket::Requests, key).expect("below the limit");
        }
        one.request(Bucket::Reads, key).expect("below the limit");
        other.add_counts(&one.take_counts());
        other.add_counts(&[("not-a-key".to_owned(), 9)]);
        assert_eq!(other.standing(Bucket::Requests, key).remaining, 1);
        assert_eq!(other.standing(Bucket::Reads, key).remaining, 5);
        assert!(one.take_counts().is_empty(), "told twice");
        assert!(other.take_counts().is_empty(), "told on");
    }

    #[test]
    fn failures_are_counted_by_neighbourhood() {
        let limiter = limiter();
        for text in ["2001:db8::1", "2001:db8::2"] {
            assert!(limiter.failure(text.parse().expect("an address")));
        }
        assert!(!limiter.failure("2001:db8::ffff:3".parse().expect("an address")));
        assert!(limiter.failure("2001:db8:0:1::1".parse().expect("an address")));
        assert!(limiter.failure("10.0.0.1".parse().expect("an address")));
        assert!(limiter.failure("::ffff:10.0.0.1".parse().expect("an address")));
        assert!(!limiter.failure("10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn failures_at_one_gateway_count_at_another() {
        let (one, other) = (limiter(), limiter());
        let addresses: [IpAddr; 2] = ["2001:db8::1", "192.0.2.1"].map(|text| text.parse().expect("an address"));
        for address in addresses {
            assert!(one.failure(address) && one.failure(address) && !one.failure(address));
        }
        let counts = one.take_counts();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u32>(), 4, "refused ones are not told: {counts:?}");
        other.add_counts(&counts);
        other.add_counts(&[("failed:nowhere".to_owned(), 9)]);
        assert!(addresses.iter().all(|address| !other.failure(*address)));
        assert!(other.take_counts().is_empty(), "told on");
    }

    #[test]
    fn a_flood_of_addresses_leaves_room_for_keys() {
        let (limiter, key) = (limiter(), KeyId::new());
        for n in 0..10_000 {
            limiter.failure(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)));
        }
        limiter.request(Bucket::Requests, key).expect("below the limit");
        let counts = limiter.take_counts();
        assert_eq!(counts.len(), TOLD + 1);
        assert!(counts.contains(&(key.to_string(), 1)));
    }

    fn limiter() -> RateLimiter {
        RateLimiter::new(Quotas { key: 4, reads: 6, failures: 2 })
    }
}
