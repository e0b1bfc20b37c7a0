//! Which account has which slot queue, and how full they are, as far as this gateway knows. Pure bookkeeping.

use std::{collections::HashMap, time::Duration};

use common::{
    domain::{ids::AccountId, job::Lane},
    queue::{
        depths::Depth,
        place::{MOST_SLOTS, Place},
        placed::Placed,
    },
};
use tokio::time::Instant;

/// How long a queue that was given to an account counts as taken when nothing stands there yet.
const CLAIM: Duration = Duration::from_secs(2);
/// How many jobs an account that has just been given a queue may bring: others rather go where fewer stand.
const CLAIM_WEIGHT: u64 = 64;
/// How long it is remembered where an account was that does not come back.
const REMEMBER: Duration = Duration::from_secs(600);
/// So many are remembered before it is looked who has not come back.
const PRUNED_FROM: usize = 10_000;
const LANES: usize = Lane::ALL.len();

/// Where an account is.
#[derive(Clone, Copy, Debug)]
struct Home {
    slot: u8,
    /// Until when that needs no second look.
    sure_until: Instant,
}

/// What is known of one slot queue.
#[derive(Clone, Debug, Default)]
struct SlotState {
    /// What stood there at the last look, and what this gateway has put there since.
    depth: u64,
    /// Who was given it lately.
    claims: Vec<(AccountId, Instant)>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Board {
    /// How many there are in each lane.
    count: u8,
    homes: HashMap<(AccountId, Lane), Home>,
    slots: [Vec<SlotState>; LANES],
    looked_at: Option<Instant>,
}

impl Board {
    /// Nothing is known of `count` slot queues a lane.
    pub(super) fn new(count: u8) -> Self {
        let none = vec![SlotState::default(); usize::from(MOST_SLOTS)];
        let slots = [none.clone(), none.clone(), none];
        Self { count, homes: HashMap::new(), slots, looked_at: None }
    }

    /// Where one more job of `account` goes; `None` when that needs a look.
    pub(super) fn place(&mut self, account: AccountId, lane: Lane, now: Instant) -> Option<u8> {
        let home = self.homes.get(&(account, lane)).filter(|home| now <= home.sure_until)?;
        let slot = home.slot;
        self.state(lane, slot).depth += 1;
        Some(slot)
    }

    /// Where `account` was, or else belongs when nobody else is there.
    pub(super) fn likely(&self, account: AccountId, lane: Lane) -> u8 {
        match self.homes.get(&(account, lane)) {
            Some(home) => home.slot,
            None => self.ranked(account, lane).next().unwrap_or_default(),
        }
    }

    /// Gives a slot queue to an account, which needs no second look for `sure_for`. Whether that is news.
    pub(super) fn give(&mut self, placed: Placed, sure_for: Duration, now: Instant) -> bool {
        let Placed { account, lane, slot } = placed;
        self.forget_old(now);
        let before = self.homes.insert((account, lane), Home { slot, sure_until: now + sure_for });
        for state in &mut self.slots[lane.index()] {
            state.claims.retain(|(of, at)| *of != account && now.duration_since(*at) <= CLAIM);
        }
        self.state(lane, slot).claims.push((account, now));
        before.is_none_or(|home| home.slot != slot)
    }

    /// Whether another account was given the same queue lately. Of two gateways that do so at once, at least one hears
    /// of it before it has decided.
    pub(super) fn is_contested(&self, placed: Placed, now: Instant) -> bool {
        self.claims_of_others(placed.account, placed.lane, placed.slot, now) > 0
    }

    fn claims_of_others(&self, account: AccountId, lane: Lane, slot: u8, now: Instant) -> u64 {
        let claims = &self.slots[lane.index()][usize::from(slot % MOST_SLOTS)].claims;
        claims.iter().filter(|(of, at)| *of != account && now.duration_since(*at) <= CLAIM).count() as u64
    }

    /// Whether the last look at all queues is older than `age`.
    pub(super) fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        self.looked_at.is_none_or(|at| now.duration_since(at) > age)
    }

    /// Takes note of what was found.
    pub(super) fn learn(&mut self, found: &[Depth], now: Instant) {
        self.looked_at = Some(now);
        for depth in found {
            if let Place::Slot(slot) = depth.queue.place
                && let Some(state) = self.slots[depth.queue.lane.index()].get_mut(usize::from(slot))
            {
                state.depth = depth.unfinished();
            }
        }
    }

    /// The queue with the least in it, of several the one where `account` belongs rather than elsewhere.
    pub(super) fn emptiest(&self, account: AccountId, lane: Lane, now: Instant) -> u8 {
        let depth = |slot: u8| self.slots[lane.index()][usize::from(slot)].depth;
        let load = |slot: &u8| depth(*slot) + CLAIM_WEIGHT * self.claims_of_others(account, lane, *slot, now);
        self.ranked(account, lane).min_by_key(load).unwrap_or_default()
    }

    /// The lane's slots in the order in which `account` takes them: each account has its own, the same for all gateways.
    fn ranked(&self, account: AccountId, lane: Lane) -> impl Iterator<Item = u8> {
        let seed = account.0.as_u128() as u64 ^ (lane.index() as u64) << 56;
        let mut slots: Vec<u8> = (0..self.count).collect();
        slots.sort_by_cached_key(|slot| mixed(seed ^ u64::from(*slot).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        slots.into_iter()
    }

    fn state(&mut self, lane: Lane, slot: u8) -> &mut SlotState {
        &mut self.slots[lane.index()][usize::from(slot % MOST_SLOTS)]
    }

    fn forget_old(&mut self, now: Instant) {
        if self.homes.len() >= PRUNED_FROM && self.homes.len().is_multiple_of(PRUNED_FROM / 10) {
            self.homes.retain(|_, home| home.sure_until + REMEMBER > now);
        }
    }
}

/// Spreads numbers that differ little (splitmix64's finalizer).
fn mixed(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use common::queue::{place::Queue, queues::MAX_ACK_PENDING};

    use super::*;

    const LANE: Lane = Lane::Batch;
    const SURE: Duration = Duration::from_secs(3);

    fn give(board: &mut Board, account: AccountId, slot: u8, now: Instant) -> bool {
        board.give(Placed { account, lane: LANE, slot }, SURE, now)
    }

    fn learn(board: &mut Board, slot: u8, pending: u64, now: Instant) {
        let queue = Queue::slot(LANE, slot);
        board.learn(&[Depth { queue, pending, running: 0, most_running: MAX_ACK_PENDING }], now);
    }

    /// The queue that `account` gets as things stand.
    fn settle(board: &mut Board, account: AccountId, now: Instant) -> u8 {
        let slot = board.emptiest(account, LANE, now);
        give(board, account, slot, now);
        slot
    }

    #[test]
    fn accounts_spread_over_the_slots_alike_on_every_gateway() {
        let (one, other) = (Board::new(32), Board::new(32));
        let mut used = [0; 32];
        for _ in 0..3_200 {
            let account = AccountId::new();
            let slot = one.likely(account, LANE);
            assert_eq!(slot, other.likely(account, LANE));
            used[usize::from(slot)] += 1;
        }
        assert!(used.iter().all(|accounts| (50..200).contains(accounts)), "{used:?}");
    }

    #[test]
    fn backlogs_that_begin_at_once_do_not_share_a_queue_as_long_as_there_are_some() {
        let (mut board, now) = (Board::new(16), Instant::now());
        let mut slots: Vec<u8> = (0..16).map(|_| settle(&mut board, AccountId::new(), now)).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn further_ones_go_where_the_fewest_jobs_stand() {
        let (mut board, now) = (Board::new(4), Instant::now());
        let later = now + CLAIM + SURE;
        for slot in 0..4 {
            learn(&mut board, slot, if slot == 2 { 50 } else { 1_000 }, later);
        }
        assert_eq!(settle(&mut board, AccountId::new(), later), 2);
        let third = settle(&mut board, AccountId::new(), later);
        assert_eq!(third, 2, "one that is just given counts {CLAIM_WEIGHT}");
        let account = AccountId::new();
        give(&mut board, account, 2, later);
        for _ in 0..1_000 {
            assert_eq!(board.place(account, LANE, later), Some(2));
        }
        assert_ne!(settle(&mut board, AccountId::new(), later), 2, "what was put there since is known");
    }

    #[test]
    fn an_account_stays_until_a_second_look_is_due() {
        let (mut board, now) = (Board::new(8), Instant::now());
        let account = AccountId::new();
        assert_eq!(board.place(account, LANE, now), None);
        assert!(give(&mut board, account, 5, now));
        assert_eq!(board.place(account, LANE, now + SURE), Some(5));
        assert_eq!(board.place(account, LANE, now + 2 * SURE), None);
        assert_eq!(board.place(account, Lane::Background, now), None, "each lane has queues of its own");
        assert_eq!(board.likely(account, LANE), 5);
        assert!(!give(&mut board, account, 5, now + 2 * SURE), "no news");
        assert!(give(&mut board, account, 6, now + 2 * SURE));
        assert_eq!(board.place(account, LANE, now + 2 * SURE), Some(6));
    }

    #[test]
    fn a_queue_that_was_just_given_to_another_is_contested_for_a_while() {
        let (mut board, now) = (Board::new(8), Instant::now());
        let (one, other) = (AccountId::new(), AccountId::new());
        let placed = |account| Placed { account, lane: LANE, slot: 3 };
        give(&mut board, one, 3, now);
        assert!(!board.is_contested(placed(one), now));
        assert!(board.is_contested(placed(other), now + CLAIM));
        assert!(!board.is_contested(placed(other), now + CLAIM + SURE), "it has nothing there");
    }

    #[test]
    fn who_goes_elsewhere_leaves_room() {
        let (mut board, now) = (Board::new(8), Instant::now());
        let (one, other) = (AccountId::new(), AccountId::new());
        give(&mut board, one, 3, now);
        assert!(board.is_contested(Placed { account: other, lane: LANE, slot: 3 }, now));
        give(&mut board, one, 4, now);
        assert!(!board.is_contested(Placed { account: other, lane: LANE, slot: 3 }, now));
    }

    #[test]
    fn accounts_that_do_not_come_back_are_forgotten() {
        let (mut board, now) = (Board::new(8), Instant::now());
        for n in 0..PRUNED_FROM {
            give(&mut board, AccountId::new(), (n % 8) as u8, now + Duration::from_millis(n as u64));
        }
        let later = now + REMEMBER + Duration::from_secs(60);
        give(&mut board, AccountId::new(), 1, later);
        assert_eq!(board.homes.len(), 1);
    }
}
