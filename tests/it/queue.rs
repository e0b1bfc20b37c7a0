//! What is done with single jobs on the queue, as the users of the shipped `nats.conf` who do it.

use std::time::Duration;

use common::{
    domain::{
        ids::{AccountId, BatchId, GatewayId, MessageId},
        job::{Job, Lane},
        message::{MessageStatus, Usage},
        reply::{Attempt, Frame, FrameBody, Outcome},
        time::Millis,
    },
    queue::{
        attach::Attachment,
        backlog::BacklogGauge,
        cancel::{CancelReceiver, CancelSender},
        config::QueueRole,
        connection::Connection,
        dead, events, jobs,
        lines::{Line, Lines},
        place::Place,
        replies::{ReplyReceiver, ReplySender},
        signals::{DeliveryWakes, wake_deliveries},
        streams, subjects,
    },
};
use tests::queue::{Queue, job, limits, publish, publisher, puller, wakes};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it does not come")
}

fn frame(job: &Job, n: u32, body: FrameBody) -> Frame {
    Frame { id: job.id, attempt: Attempt { seq: 1, delivery: 1, restart: 0 }, n, body }
}

fn delta(job: &Job, n: u32) -> Frame {
    frame(job, n, FrameBody::Delta { at: 2 * n as usize, text: format!("{:02}", n % 100) })
}

fn end(status: MessageStatus) -> Outcome {
    Outcome {
        status,
        content: None,
        model: None,
        usage: Usage::default(),
        credits_charged: 0,
        failure: None,
        attempts: 1,
        started_at: None,
        completed_at: Millis::now(),
    }
}

/// Waits until the worker's frames have reached the server: it handles a connection's lines in order.
async fn settled(worker: &Connection) {
    streams::faults(worker, 0).await.expect("an answer");
}

#[tokio::test]
async fn a_job_is_found_in_every_lane_by_its_own_account_and_taken_back_once() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    for lane in Lane::ALL {
        let job = job(lane);
        publish(&gateway, &job).await;
        let find = async |account| jobs::find(&gateway, account, job.id).await.expect("an answer");
        assert!(find(AccountId::new()).await.is_none(), "it belongs to another account");
        let (found, place) = find(job.account).await.expect("the job");
        assert_eq!((found.id, found.lane, found.turns), (job.id, lane, job.turns.clone()));
        assert!(jobs::delete(&gateway, place).await.expect("an answer"));
        assert!(!jobs::delete(&gateway, place).await.expect("an answer"), "it is gone");
        assert!(find(job.account).await.is_none());
    }
}

#[tokio::test]
async fn lines_that_are_sent_again_are_not_doubled_also_when_the_queue_was_away() {
    let mut queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let all: Vec<Job> = (0..2_000).map(|_| job(Lane::Batch)).collect();
    let send = async |jobs: &[Job], again| {
        let mut lines = Lines::new(gateway.clone(), wakes(&gateway), None, again, PATIENCE);
        for job in jobs {
            lines.push(Line::of(job, 0).expect("JSON")).await.expect("to send");
        }
        lines.finish().await.expect("to be stored")
    };
    assert_eq!(send(&all[..500], false).await, 500);
    let (new, restarted) = tokio::join!(send(&all, true), async {
        queue.nats.process().kill();
        queue.nats.restart().await
    });
    restarted.expect("NATS comes back");
    // Those of before that were in doubt when the server died are taken for new ones.
    assert!((1_500..=2_000).contains(&new), "{new}");
    let backlog = BacklogGauge::new(gateway.clone()).read().await.expect("an answer");
    assert_eq!(backlog.unfinished(), 2_000);
    for job in &all {
        let (found, _) = jobs::find(&gateway, job.account, job.id).await.expect("an answer").expect("the job");
        assert_eq!(found.id, job.id);
    }
}

#[tokio::test]
async fn who_attaches_late_hears_all_from_the_first_word() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let other = queue.connect(QueueRole::Gateway).await;
    let worker = queue.connect(QueueRole::Worker).await;
    let sender = ReplySender::new(worker.clone());
    for reply_to in [None, Some(GatewayId::new())] {
        for stream in [false, true] {
            let job = Job { reply_to, stream, ..job(Lane::Interactive) };
            publish(&gateway, &job).await;
            for n in 0..1_100 {
                sender.progress(&job, &delta(&job, n)).await;
            }
            settled(&worker).await;
            let mut late = soon(Attachment::open(&other, job.account, job.id)).await.expect("an attachment");
            sender.progress(&job, &delta(&job, 1_100)).await;
            let outcome = end(MessageStatus::Completed);
            sender.terminal(job.reply_to, frame(&job, 1_101, FrameBody::Terminal { outcome: outcome.clone() })).await;
            for n in 0..=1_100 {
                assert_eq!(soon(late.next()).await, Some(delta(&job, n)));
            }
            assert_eq!(soon(late.next()).await.expect("a frame").body, FrameBody::Terminal { outcome });
        }
    }
}

#[tokio::test]
async fn who_waits_for_the_end_alone_hears_no_text_until_it_is_asked_for() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let worker = queue.connect(QueueRole::Worker).await;
    let sender = ReplySender::new(worker.clone());
    let job = job(Lane::Interactive);
    publish(&gateway, &job).await;
    let open = async || soon(Attachment::open_for_end(&gateway, job.account, job.id)).await.expect("an attachment");
    let (mut waits, mut reads) = (open().await, open().await);
    sender.progress(&job, &delta(&job, 0)).await;
    settled(&worker).await;
    reads.hear_text().await.expect("to hear");
    sender.progress(&job, &delta(&job, 1)).await;
    for n in 0..2 {
        assert_eq!(soon(reads.next()).await, Some(delta(&job, n)));
    }
    let last = frame(&job, 2, FrameBody::Terminal { outcome: end(MessageStatus::Completed) });
    sender.terminal(None, last.clone()).await;
    assert_eq!(soon(waits.next()).await.as_ref(), Some(&last));
    assert_eq!(soon(reads.next()).await, Some(last));
}

#[tokio::test]
async fn what_was_said_is_forgotten_when_it_is_purged_or_the_server_forgets() {
    let mut queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let worker = queue.connect(QueueRole::Worker).await;
    let (one, other) = (job(Lane::Batch), job(Lane::Batch));
    let sender = ReplySender::new(worker.clone());
    for job in [&one, &other] {
        publish(&gateway, job).await;
        sender.progress(job, &delta(job, 0)).await;
    }
    settled(&worker).await;
    events::purge(&gateway, one.id).await.expect("to purge");
    events::purge(&gateway, MessageId::new()).await.expect("nothing to purge");
    assert_eq!(events::read(&gateway, &subjects::event(&one)).await.expect("frames"), []);
    assert_eq!(events::read(&gateway, &subjects::event(&other)).await.expect("frames"), [delta(&other, 0)]);

    queue.nats.restart().await.expect("the server comes back");
    let gateway = queue.connect(QueueRole::Gateway).await;
    assert_eq!(events::read(&gateway, &subjects::event(&other)).await.expect("EVENTS is gone"), []);
    events::purge(&gateway, other.id).await.expect("EVENTS is gone");
    streams::ensure_events(&gateway, &limits()).await.expect("EVENTS again");
    assert_eq!(events::read(&gateway, &subjects::event(&other)).await.expect("frames"), []);
}

#[tokio::test]
async fn a_dead_letter_is_removed_and_no_other() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let worker = queue.connect(QueueRole::Worker).await;
    let admin = queue.connect(QueueRole::Admin).await;
    let (one, other) = (MessageId::new(), MessageId::new());
    for id in [one, other] {
        dead::bury(&worker, id, "poisoned", b"payload").await.expect("to bury");
    }
    dead::purge(&gateway, one).await.expect("to purge");
    dead::purge(&gateway, one).await.expect("nothing to purge");
    assert_eq!(dead::list(&admin, 10).await.expect("letters").len(), 1);
    dead::purge(&gateway, other).await.expect("to purge");
    assert!(dead::list(&admin, 10).await.expect("letters").is_empty());
}

#[tokio::test]
async fn a_stopped_job_leaves_the_queue_and_everybody_hears_of_it() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let worker = queue.connect(QueueRole::Worker).await;
    let waiting = GatewayId::new();
    let mut replies = ReplyReceiver::subscribe(&gateway, waiting).await.expect("a subscription");
    let mut cancels = CancelReceiver::subscribe(&worker).await.expect("a subscription");
    settled(&worker).await;
    let sender = CancelSender::new(gateway.clone());
    for reply_to in [None, Some(waiting)] {
        let job = Job { reply_to, ..job(Lane::Interactive) };
        publish(&gateway, &job).await;
        let mut attached = Attachment::open(&gateway, job.account, job.id).await.expect("an attachment");
        let outcome = end(MessageStatus::Cancelled);
        sender.tell(job.account, job.id, outcome.clone()).await;
        assert_eq!(soon(cancels.next()).await, Some(job.id.0));
        let told = soon(attached.next()).await.expect("a frame");
        assert_eq!((told.attempt, told.body), (Attempt::LAST, FrameBody::Terminal { outcome }));
        assert!(jobs::find(&gateway, job.account, job.id).await.expect("an answer").is_none());
        if reply_to.is_some() {
            assert_eq!(soon(replies.next()).await.expect("a frame").0, job.id);
        }
    }
    let batch = BatchId::new();
    sender.tell_batch(batch).await;
    assert_eq!(soon(cancels.next()).await, Some(batch.0));
    let mut puller = puller(&worker, 4);
    let left = job(Lane::Interactive);
    publish(&gateway, &left).await;
    let pulled = soon(puller.next()).await.job().expect("a job");
    assert_eq!(pulled.id, left.id, "no worker gets what was stopped");
}

#[tokio::test]
async fn a_wake_up_reaches_every_worker_from_both_sides() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let workers = [queue.connect(QueueRole::Worker).await, queue.connect(QueueRole::Worker).await];
    let mut wakes = Vec::new();
    for worker in &workers {
        wakes.push(DeliveryWakes::subscribe(worker).await.expect("a subscription"));
        settled(worker).await;
    }
    for from in [&gateway, &workers[0]] {
        wake_deliveries(from).await;
        for wakes in &mut wakes {
            assert_eq!(soon(wakes.next()).await, Some(()));
        }
    }
}

#[tokio::test]
async fn a_user_may_do_its_own_acts_and_no_others() {
    let queue = Queue::start().await;
    let gateway = queue.connect(QueueRole::Gateway).await;
    let worker = queue.connect(QueueRole::Worker).await;
    let job = job(Lane::Interactive);
    publish(&gateway, &job).await;
    let (_, place) = jobs::find(&gateway, job.account, job.id).await.expect("an answer").expect("the job");
    let by_worker = publisher(&worker, Duration::from_millis(500));
    // What is refused is not answered; all wait at the same time.
    let refused = tokio::join!(
        async { by_worker.publish(self::job(Lane::Batch), Place::Slot(0), None).await.is_err() },
        async { jobs::find(&worker, job.account, job.id).await.is_err() },
        async { jobs::delete(&worker, place).await.is_err() },
        async { dead::purge(&worker, job.id).await.is_err() },
        async { events::read(&worker, &subjects::event(&job)).await.is_err() },
        async { streams::migrate(&worker, &limits()).await.is_err() },
        async { streams::migrate(&gateway, &limits()).await.is_err() },
        async { dead::bury(&gateway, job.id, "reason", b"payload").await.is_err() },
        async { dead::list(&gateway, 10).await.is_err() },
        async { BacklogGauge::new(worker.clone()).read().await.is_none() },
    );
    assert_eq!(refused, (true, true, true, true, true, true, true, true, true, true));
    let backlog = BacklogGauge::new(gateway.clone()).read().await.expect("an answer");
    assert_eq!((backlog.pending(), backlog.running()), (1, 0));

    let mut cancels = CancelReceiver::subscribe(&worker).await.expect("a subscription");
    settled(&worker).await;
    let other = MessageId::new();
    CancelSender::new(worker.clone()).tell(job.account, job.id, end(MessageStatus::Cancelled)).await;
    settled(&worker).await;
    CancelSender::new(gateway.clone()).tell(job.account, other, end(MessageStatus::Cancelled)).await;
    assert_eq!(soon(cancels.next()).await, Some(other.0), "a worker cannot stop another's jobs");

    ReplySender::new(gateway.clone()).progress(&job, &delta(&job, 0)).await;
    settled(&gateway).await;
    let said = events::read(&gateway, &subjects::event(&job)).await.expect("frames");
    assert_eq!(said, [], "a gateway cannot speak for a worker");
    let mut by_gateway = puller(&gateway, 4);
    assert!(timeout(Duration::from_secs(1), by_gateway.next()).await.is_err(), "a gateway cannot pull");
    let mut by_worker = puller(&worker, 4);
    assert_eq!(soon(by_worker.next()).await.info().attempt.delivery, 1);
}
