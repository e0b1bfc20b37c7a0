//! How often one key may call, and how often one address may fail to say who it is.

pub mod window;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use common::{
    domain::ids::KeyId,
    env::{self, EnvError},
};

use self::window::{Standing, Window};

/// The most addresses whose failures are told apart within a minute. Beyond it, failures of further addresses are
/// answered as if those were over their limit; valid keys pass all the same.
const ADDRESSES: usize = 100_000;

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
    untold: Mutex<HashMap<(Bucket, KeyId), u32>>,
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
        *self.untold().entry((bucket, key)).or_default() += 1;
        Ok(standing)
    }

    /// Where `key` stands, without counting anything.
    pub fn standing(&self, bucket: Bucket, key: KeyId) -> Standing {
        self.window(bucket).look(&key, Instant::now())
    }

    /// Counts a failed authentication from `address`. Whether it may still be answered as such.
    pub fn failure(&self, address: IpAddr) -> bool {
        self.failures.take(neighbourhood(address), Instant::now()).is_ok()
    }

    /// What this gateway has counted since the last call, by bucket and key: for the other gateways.
    pub fn take_counts(&self) -> Vec<(String, u32)> {
        let untold = std::mem::take(&mut *self.untold());
        untold.into_iter().map(|((bucket, key), count)| (written(bucket, key), count)).collect()
    }

    /// Adds what another gateway has counted.
    pub fn add_counts(&self, counts: &[(String, u32)]) {
        let now = Instant::now();
        for (name, count) in counts {
            if let Some((bucket, key)) = read(name) {
                self.window(bucket).add(key, *count, now);
            }
        }
    }

    fn window(&self, bucket: Bucket) -> &Window<KeyId> {
        match bucket {
            Bucket::Requests => &self.requests,
            Bucket::Reads => &self.reads,
        }
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, HashMap<(Bucket, KeyId), u32>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands before the key of a read that another gateway is told of.
const READ: &str = "read:";

fn written(bucket: Bucket, key: KeyId) -> String {
    match bucket {
        Bucket::Requests => key.to_string(),
        Bucket::Reads => format!("{READ}{key}"),
    }
}

fn read(name: &str) -> Option<(Bucket, KeyId)> {
    let (bucket, key) = match name.strip_prefix(READ) {
        Some(key) => (Bucket::Reads, key),
        None => (Bucket::Requests, name),
    };
    Some((bucket, key.parse().ok()?))
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

    fn limiter() -> RateLimiter {
        RateLimiter::new(Quotas { key: 4, reads: 6, failures: 2 })
    }
}
