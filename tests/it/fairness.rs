//! How a worker shares itself between queues: on a real server, with a test in the place of agents.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use async_nats::jetstream::consumer::pull;
use common::{
    domain::{
        ids::AccountId,
        job::{Job, Lane},
    },
    lifecycle::Lifecycle,
    queue::{
        config::{QueueRole, StreamLimits},
        connection::Connection,
        consumer::Puller,
        delivery::Delivery,
        depths,
        place::{Place, Queue as Slots},
        publisher::Publisher,
        streams, subjects,
        wakes::Wakes,
    },
};
use futures_util::future::join_all;
use tests::{
    patience::until,
    queue::{Queue, job, limits, publisher, puller},
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a worker that has something to get needs for it.
const A_WHILE: Duration = Duration::from_millis(500);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it does not come")
}

/// Puts `count` jobs of one account at `place`, one after the other as far as the stream is concerned.
async fn enqueue(publisher: &Publisher, lane: Lane, place: Place, count: usize) -> AccountId {
    let account = AccountId::new();
    let jobs = (0..count).map(|_| Job { account, ..job(lane) });
    let published = join_all(jobs.map(|job| publisher.publish(job, place, None))).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    account
}

/// The next `count` jobs.
async fn next(puller: &mut Puller, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(soon(puller.next()).await);
    }
    deliveries
}

fn account_of(delivery: &Delivery) -> AccountId {
    delivery.job().expect("a job").account
}

/// How many of `deliveries` came through each lane.
fn by_lane(deliveries: &[Delivery]) -> [usize; 3] {
    Lane::ALL.map(|lane| deliveries.iter().filter(|delivery| delivery.lane() == lane).count())
}

/// A connection of each side.
async fn ends(queue: &Queue) -> (Connection, Connection) {
    (queue.connect(QueueRole::Gateway).await, queue.connect(QueueRole::Worker).await)
}

#[tokio::test]
async fn ten_backlogs_have_equal_shares_whichever_came_first() {
    for lane in Lane::ALL {
        let queue = Queue::within(StreamLimits { slots: 10, ..limits() }).await;
        let (gateway, worker) = ends(&queue).await;
        let publisher = publisher(&gateway, PATIENCE);
        for slot in 0..10 {
            enqueue(&publisher, lane, Place::Slot(slot), 60).await;
        }
        let mut puller = puller(&worker, 64);
        let (mut running, mut shares) = (VecDeque::new(), HashMap::<AccountId, usize>::new());
        // Each job runs for as long as 39 others are begun.
        for _ in 0..300 {
            let delivery = soon(puller.next()).await;
            *shares.entry(account_of(&delivery)).or_default() += 1;
            running.push_back(delivery);
            if running.len() == 40 {
                running.pop_front().expect("the oldest").ack().await;
            }
        }
        assert!(shares.len() == 10 && shares.values().all(|share| (24..=36).contains(share)), "{lane}: {shares:?}");
    }
}

#[tokio::test]
async fn a_single_job_begins_beside_a_backlog_that_has_all_it_can_get() {
    let queue = Queue::start().await;
    let (gateway, worker) = ends(&queue).await;
    let publisher = publisher(&gateway, PATIENCE);
    for (lane, place) in [
        (Lane::Interactive, Place::Front),
        (Lane::Interactive, Place::Slot(2)),
        (Lane::Background, Place::Slot(2)),
        (Lane::Batch, Place::Slot(2)),
    ] {
        enqueue(&publisher, lane, Place::Slot(1), 60).await;
        let mut puller = puller(&worker, 64);
        // All but four slots for each other lane, and two.
        let running = next(&mut puller, 54).await;
        assert!(timeout(A_WHILE, puller.next()).await.is_err(), "{lane}: it has more than it can get");
        let newcomer = enqueue(&publisher, lane, place, 1).await;
        let begun = soon(puller.next()).await;
        assert_eq!(account_of(&begun), newcomer, "{lane} {place}");
        for delivery in running.iter().chain([&begun]) {
            delivery.ack().await;
        }
        drop((running, begun));
        for rest in next(&mut puller, 6).await {
            rest.ack().await;
        }
        puller.give_up().await;
    }
}

#[tokio::test]
async fn interactive_comes_first_and_each_other_lane_has_its_share() {
    let queue = Queue::start().await;
    let (gateway, worker) = ends(&queue).await;
    let publisher = publisher(&gateway, PATIENCE);
    for lane in Lane::ALL {
        enqueue(&publisher, lane, Place::Slot(1), 100).await;
    }
    let mut puller = puller(&worker, 64);
    let mut running = next(&mut puller, 62).await;
    assert_eq!(by_lane(&running), [54, 4, 4]);
    // What ends makes room for the same again, for as long as there is some.
    for _ in 0..3 {
        let ended = running.extract_if(.., |delivery| delivery.lane() != Lane::Interactive);
        for delivery in ended.collect::<Vec<_>>() {
            delivery.ack().await;
        }
        running.extend(next(&mut puller, 8).await);
        assert_eq!(by_lane(&running), [54, 4, 4]);
        for delivery in running.drain(..10) {
            assert_eq!(delivery.lane(), Lane::Interactive);
            delivery.ack().await;
        }
        running.extend(next(&mut puller, 10).await);
        assert_eq!(by_lane(&running), [54, 4, 4]);
        running.sort_by_key(|delivery| delivery.lane().index());
    }
}

#[tokio::test]
async fn no_more_jobs_of_an_account_run_than_may_over_all_workers() {
    let queue = Queue::within(StreamLimits { account_running: Some(3), ..limits() }).await;
    let (gateway, worker) = ends(&queue).await;
    let publisher = publisher(&gateway, PATIENCE);
    for lane in Lane::ALL {
        enqueue(&publisher, lane, Place::Slot(1), 12).await;
        let (mut one, mut other) = (puller(&worker, 64), puller(&worker, 64));
        let mut running = VecDeque::new();
        let mut next = async || {
            tokio::select! {
                delivery = one.next() => delivery,
                delivery = other.next() => delivery,
            }
        };
        for _ in 0..12 {
            if running.len() == 3 {
                assert!(timeout(A_WHILE / 5, next()).await.is_err(), "{lane}: more than may");
                running.pop_front().map(async |ended: Delivery| ended.ack().await).expect("one").await;
            }
            running.push_back(soon(next()).await);
        }
        for delivery in running {
            delivery.ack().await;
        }
        one.give_up().await;
        other.give_up().await;
    }
}

/// Tells nobody.
fn silence(connection: &Connection) -> Wakes {
    let lifecycle = Lifecycle::new();
    lifecycle.abort();
    Wakes::start(connection.clone(), &lifecycle)
}

#[tokio::test]
async fn a_job_that_nobody_was_told_of_is_found() {
    let queue = Queue::start().await;
    let (gateway, worker) = ends(&queue).await;
    let mut puller = puller(&worker, 64);
    assert!(timeout(A_WHILE, puller.next()).await.is_err(), "nothing is there yet");
    let quiet = Publisher::new(gateway.clone(), silence(&gateway), PATIENCE);
    let quietly = enqueue(&quiet, Lane::Batch, Place::Slot(3), 1).await;
    assert_eq!(account_of(&soon(puller.next()).await), quietly);
}

#[tokio::test]
async fn jobs_of_a_worker_that_was_killed_come_back() {
    let queue = Queue::within(StreamLimits { ack_wait: Duration::from_secs(1), ..limits() }).await;
    let (gateway, worker) = ends(&queue).await;
    let publisher = publisher(&gateway, PATIENCE);
    let account = enqueue(&publisher, Lane::Background, Place::Slot(0), 3).await;
    let lost = next(&mut puller(&worker, 64), 3).await;
    let mut heir = puller(&queue.connect(QueueRole::Worker).await, 64);
    for delivery in next(&mut heir, 3).await {
        assert_eq!((account_of(&delivery), delivery.info().attempt.delivery), (account, 2));
        delivery.ack().await;
    }
    drop(lost);
}

#[tokio::test]
async fn what_is_handed_back_goes_to_another_worker() {
    let queue = Queue::start().await;
    let (gateway, worker) = ends(&queue).await;
    let mut first = puller(&worker, 2);
    enqueue(&publisher(&gateway, PATIENCE), Lane::Batch, Place::Slot(0), 2).await;
    let running = next(&mut first, 2).await;
    let mut second = puller(&queue.connect(QueueRole::Worker).await, 2);
    assert!(timeout(A_WHILE, second.next()).await.is_err(), "both run");
    first.give_up().await;
    for delivery in &running {
        delivery.retry_after(None).await;
    }
    let taken = next(&mut second, 2).await;
    assert!(taken.iter().all(|delivery| delivery.info().attempt.delivery == 2));
}

#[tokio::test]
async fn a_worker_goes_on_after_the_server_was_away() {
    let mut queue = Queue::start().await;
    let (gateway, worker) = ends(&queue).await;
    let publisher = publisher(&gateway, PATIENCE);
    let mut puller = puller(&worker, 64);
    for place in [Place::Front, Place::Slot(1)] {
        enqueue(&publisher, Lane::Interactive, place, 1).await;
        soon(puller.next()).await.ack().await;
    }
    until("the server has heard that both are done", async || {
        let depths = depths::all(&gateway).await.expect("queues");
        depths.iter().all(|depth| depth.unfinished() == 0).then_some(())
    })
    .await;
    queue.nats.restart().await.expect("the server comes back");
    for place in [Place::Slot(1), Place::Front, Place::Slot(2)] {
        let account = enqueue(&publisher, Lane::Interactive, place, 1).await;
        let delivery = soon(puller.next()).await;
        assert_eq!(account_of(&delivery), account);
        delivery.ack().await;
    }
}

#[tokio::test]
async fn a_queue_of_an_earlier_version_is_brought_up_to_date_with_its_jobs() {
    let queue = Queue::start().await;
    let (gateway, worker) = ends(&queue).await;
    let admin = queue.admin().await;
    for depth in depths::all(&gateway).await.expect("queues") {
        let name = subjects::consumer(depth.queue);
        admin.delete_consumer_from_stream(name, subjects::JOBS).await.expect("to delete");
    }
    for lane in Lane::ALL {
        let config = pull::Config {
            durable_name: Some(format!("workers-{lane}")),
            filter_subject: format!("jobs.{lane}.>"),
            ..pull::Config::default()
        };
        admin.create_consumer_on_stream(config, subjects::JOBS).await.expect("to make");
    }
    assert!(!streams::faults(&gateway, 4).await.expect("an answer").is_empty());
    // Earlier versions spread accounts over 64 tokens, whatever queues there are now.
    let publisher = publisher(&gateway, PATIENCE);
    let mut accounts = Vec::new();
    for (lane, slot) in [(Lane::Interactive, 63), (Lane::Background, 0), (Lane::Batch, 17)] {
        accounts.push(enqueue(&publisher, lane, Place::Slot(slot), 1).await);
    }
    queue.migrate(limits()).await;
    assert_eq!(streams::faults(&gateway, 4).await.expect("an answer"), Vec::<String>::new());
    assert_eq!(streams::faults(&gateway, 5).await.expect("an answer").len(), 1, "there are only four");
    let queues: Vec<Slots> = depths::all(&gateway).await.expect("queues").iter().map(|depth| depth.queue).collect();
    assert_eq!(queues.len(), 1 + 3 * 4 + 2, "{queues:?}");
    let mut begun: Vec<_> = next(&mut puller(&worker, 64), 3).await.iter().map(account_of).collect();
    begun.sort_unstable();
    accounts.sort_unstable();
    assert_eq!(begun, accounts);
}
