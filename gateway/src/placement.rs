//! Where jobs are put: the calls of who has few in front, and each account's backlog into a slot queue of its own, as
//! long as there are enough.
//!
//! Nothing depends on it but fairness: two accounts that share a queue are served in the order in which they came.

mod board;
mod fronts;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    domain::{
        ids::{AccountId, GatewayId},
        job::Lane,
    },
    env::{self, EnvError},
    lifecycle::Lifecycle,
    queue::{
        connection::Connection,
        depths,
        error::QueueError,
        jobs,
        place::{Place, Queue},
        placed::{self, Placed, PlacedReceiver},
    },
};
use tokio::time::{Instant, timeout};
use tracing::debug;

use self::{board::Board, fronts::Fronts};

/// How long it stands where an account is: so long a backlog of another that has come there meanwhile is in its way.
const SURE: Duration = Duration::from_secs(3);
/// The same for each job that stands there, when these are its own: it will be there for a while.
const SURE_PER_JOB: Duration = Duration::from_millis(1);
const SURE_AT_MOST: Duration = Duration::from_secs(60);
/// How long a look at all queues stands.
const FRESH: Duration = Duration::from_secs(1);
/// How long one look may take; then it is guessed.
const PATIENCE: Duration = Duration::from_millis(250);
/// New places are looked for by so many at a time.
const STRIPES: usize = 16;

/// How jobs are placed.
#[derive(Clone, Copy, Debug)]
pub struct PlacementConfig {
    /// How many of an account's calls stand in front at a time.
    pub front: usize,
    /// How many slot queues each lane has.
    pub slots: u8,
}

impl PlacementConfig {
    /// `FRONTDESK_ACCOUNT_FRONT`; 0 when it is limited how many jobs of an account may run: the front has no such limit.
    pub fn from_environment(slots: u8, account_running: Option<u32>) -> Result<Self, EnvError> {
        let front = env::within("FRONTDESK_ACCOUNT_FRONT", 64, 0..=1_000_000)?;
        Ok(Self { front: if account_running.is_some() { 0 } else { front }, slots })
    }
}

/// Knows where to put jobs. Cheap to clone.
#[derive(Clone)]
pub struct Placement(Arc<Inner>);

struct Inner {
    connection: Connection,
    gateway: GatewayId,
    fronts: Fronts,
    board: Mutex<Board>,
    /// Of many jobs of one account, one looks.
    looking: [tokio::sync::Mutex<()>; STRIPES],
    looking_at_all: tokio::sync::Mutex<()>,
    hasher: RandomState,
}

impl Placement {
    /// Subscribes to what other gateways do, in the name of `gateway`.
    ///
    /// # Errors
    /// When the client does not take the subscription in time.
    pub async fn start(
        connection: Connection,
        gateway: GatewayId,
        config: PlacementConfig,
        lifecycle: &Lifecycle,
    ) -> Result<Self, QueueError> {
        let mut others = PlacedReceiver::subscribe(&connection, gateway).await?;
        let placement = Self(Arc::new(Inner {
            connection,
            gateway,
            fronts: Fronts::new(config.front),
            board: Mutex::new(Board::new(config.slots)),
            looking: Default::default(),
            looking_at_all: tokio::sync::Mutex::default(),
            hasher: RandomState::new(),
        }));
        let (hears, inner) = (placement.clone(), lifecycle.clone());
        lifecycle.spawn_background(async move {
            let hear = async {
                while let Some(placed) = others.next().await {
                    hears.board().give(placed, SURE, Instant::now());
                }
            };
            tokio::select! {
                () = hear => {}
                () = inner.aborting() => {}
            }
        });
        Ok(placement)
    }

    /// Counts a call of `account` until the returned value is dropped.
    pub fn call(&self, account: AccountId) -> UnderWay {
        let is_in_front = self.0.fronts.begin(account, Instant::now());
        UnderWay { placement: self.clone(), account, is_in_front, is_heard: false }
    }

    /// The slot queue of `lane` where one more job of `account` goes: where it has a backlog, else an empty one, else the
    /// one with the fewest jobs.
    pub async fn slot(&self, account: AccountId, lane: Lane) -> u8 {
        if let Some(slot) = self.board().place(account, lane, Instant::now()) {
            return slot;
        }
        let stripe = self.0.hasher.hash_one((account, lane)) as usize % STRIPES;
        let _turn = self.0.looking[stripe].lock().await;
        if let Some(slot) = self.board().place(account, lane, Instant::now()) {
            return slot;
        }
        // Boxed: it is large, and whoever waits for an answer would keep room for it.
        let slot = Box::pin(self.find(account, lane)).await;
        self.board().place(account, lane, Instant::now()).unwrap_or(slot)
    }

    /// Looks where `account` has to go. The usual case is the first one: nobody is where it belongs.
    async fn find(&self, account: AccountId, lane: Lane) -> u8 {
        let likely = self.board().likely(account, lane);
        if !self.0.connection.is_up() {
            return likely;
        }
        // Told before the look: of two gateways that choose the same at once, both hear of it in time.
        let at_home = Placed { account, lane, slot: likely };
        self.give(at_home, Duration::ZERO).await;
        let (slot, sure_for) = self.decide(at_home).await;
        self.give(Placed { slot, ..at_home }, sure_for).await;
        slot
    }

    /// Where `at_home`'s account goes, and how long that stands: at home when nobody else is there, or nothing can be
    /// learned.
    async fn decide(&self, at_home: Placed) -> (u8, Duration) {
        let Placed { account, lane, slot } = at_home;
        let Some(depth) = self.look(depths::one(&self.0.connection, Queue::slot(lane, slot))).await else {
            return (slot, SURE);
        };
        if depth.unfinished() == 0 && !self.board().is_contested(at_home, Instant::now()) {
            return (slot, SURE);
        }
        let backlog = self.look(jobs::last_queue(&self.0.connection, account, lane)).await.flatten();
        if let Some(Queue { place: Place::Slot(slot), .. }) = backlog {
            let jobs = u32::try_from(depth.unfinished()).unwrap_or(u32::MAX);
            return (slot, SURE_PER_JOB.saturating_mul(jobs).clamp(SURE, SURE_AT_MOST));
        }
        self.look_at_all().await;
        (self.board().emptiest(account, lane, Instant::now()), SURE)
    }

    /// Of many who want to know, one looks.
    async fn look_at_all(&self) {
        let _turn = self.0.looking_at_all.lock().await;
        if !self.board().is_older_than(FRESH, Instant::now()) {
            return;
        }
        let asked_at = Instant::now();
        if let Some(found) = self.look(depths::all(&self.0.connection)).await {
            self.board().learn(&found, asked_at);
        }
    }

    async fn look<T>(&self, look: impl Future<Output = Result<T, QueueError>>) -> Option<T> {
        let found = timeout(PATIENCE, look).await.ok()?;
        found.inspect_err(|error| debug!(%error, "could not look where jobs stand")).ok()
    }

    async fn give(&self, placed: Placed, sure_for: Duration) {
        if self.board().give(placed, sure_for, Instant::now()) {
            placed::tell(&self.0.connection, self.0.gateway, placed).await;
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way.
pub struct UnderWay {
    placement: Placement,
    account: AccountId,
    is_in_front: bool,
    is_heard: bool,
}

impl UnderWay {
    /// Where its job goes.
    pub async fn place(&self) -> Place {
        if self.is_in_front {
            return Place::Front;
        }
        Place::Slot(self.placement.slot(self.account, Lane::Interactive).await)
    }

    /// Something of it was heard: its job has begun, at least.
    pub fn heard(&mut self) {
        self.is_heard = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.placement.0.fronts.end(self.account, self.is_heard, Instant::now());
    }
}
