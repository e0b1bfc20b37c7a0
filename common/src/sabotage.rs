//! Bugs that can be planted and places at which a process can die, so that the checks of `chaos/` are seen to find them.
//!
//! Only with the feature `sabotage`, which no shipped build has: without it [`has`] is a constant `false`, and
//! [`reach`] nothing. With it, `PLANTED_BUG` chooses one bug, `CRASH_AT` (`point` or `point:n`) the place at which the process
//! aborts when it comes there for the `n`th time, and `POISON` what prompts begin with whose runs panic.

/// Whether this is a build in which bugs can be planted.
pub const IS_BUILT_IN: bool = cfg!(feature = "sabotage");

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$what:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$what])* $variant,)+ }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What it is called in the environment.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

named! {
    /// A bug that a change could bring in.
    Bug {
        /// A job leaves the queue before its end is stored.
        AckBeforeCommit = "ack-before-commit",
        /// A running job does not say that it is alive.
        NoHeartbeat = "no-heartbeat",
        /// A later end takes the place of the first one, and is charged, too.
        NoFence = "no-fence",
        /// A caller is told of an end before it is stored.
        ReplyBeforeCommit = "reply-before-commit",
        /// Jobs are published without the id by which the queue knows them again.
        NoMessageId = "no-message-id",
        /// Nobody looks into the store for an end whose reply was lost.
        NoReread = "no-reread",
        /// Who waited stays registered when the request is gone.
        LeakedWaiter = "leaked-waiter",
        /// Webhooks follow redirects.
        RedirectFollowed = "redirect-followed",
        /// A change of keys and accounts is confirmed, and what was read before is used on.
        CacheKept = "cache-kept",
        /// The left-most hop of `X-Forwarded-For` is taken for the client.
        LeftMostHop = "left-most-hop",
        /// A worker that has to drop its jobs does not hand them back.
        NakForgotten = "nak-forgotten",
        /// A piece of an old run is passed on to who has heard of a newer one, and the other way about.
        OldDelta = "old-delta",
        /// A job is begun again however often its worker was lost.
        EndlessStarts = "endless-starts",
        /// An `Idempotency-Key` is taken for a new one every time.
        KeyForgotten = "key-forgotten",
        /// Each try of a webhook has an id of its own.
        NewWebhookId = "new-webhook-id",
        /// A job is called accepted before the queue has said so.
        AcceptedUnpublished = "accepted-unpublished",
        /// A gateway that is told to stop drops who waits.
        WaitersDropped = "waiters-dropped",
        /// A line that was handed out twice counts twice in its batch.
        LineCountedTwice = "line-counted-twice",
    }
}

named! {
    /// A place before or after a step that lasts.
    Point {
        /// A gateway: before a key is written.
        BeforeKey = "before-key",
        /// A gateway: after it.
        AfterKey = "after-key",
        /// A gateway: before a job is on the queue.
        BeforePublish = "before-publish",
        /// A gateway: after it.
        AfterPublish = "after-publish",
        /// A gateway: before the rows of queued jobs are written.
        BeforeRows = "before-rows",
        /// A gateway: after it.
        AfterRows = "after-rows",
        /// A gateway: before a portion of a batch is on the queue.
        BeforePortion = "before-portion",
        /// A gateway: after it, and before that is noted.
        AfterPortion = "after-portion",
        /// A worker: before a start is counted.
        BeforeStart = "before-start",
        /// A worker: after it, and before the run.
        AfterStart = "after-start",
        /// A worker: after the run, before its end is stored.
        BeforeCommit = "before-commit",
        /// A worker: after it, before anybody is told.
        AfterCommit = "after-commit",
        /// A worker: after the caller was told, before the queue is.
        BeforeAck = "before-ack",
        /// A worker: after the queue was told.
        AfterAck = "after-ack",
        /// A worker: before a webhook leaves.
        BeforePost = "before-post",
        /// A worker: after it, before that is noted.
        AfterPost = "after-post",
    }
}

#[cfg(feature = "sabotage")]
mod chosen {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use super::{Bug, Point};
    use crate::env;

    static BUG: LazyLock<Option<Bug>> = LazyLock::new(|| {
        let name = env::text("PLANTED_BUG")?;
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    });

    static CRASH: LazyLock<Option<(Point, u64)>> = LazyLock::new(|| {
        let text = env::text("CRASH_AT")?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        let point = Point::ALL.iter().copied().find(|point| point.name() == name)?;
        Some((point, times.parse().ok()?))
    });

    static REACHED: AtomicU64 = AtomicU64::new(0);

    /// Whether the bug is planted in this process.
    pub fn has(bug: Bug) -> bool {
        *BUG == Some(bug)
    }

    /// Ends this process, as a crash would, when it was to die here.
    pub fn reach(point: Point) {
        let Some((chosen, times)) = *CRASH else { return };
        if chosen == point && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == times {
            std::process::abort();
        }
    }

    /// Panics when `text` is poison: when it begins with the value of `POISON`.
    pub fn swallow(text: &str) {
        static POISON: LazyLock<Option<String>> = LazyLock::new(|| env::text("POISON"));
        let is_poison = POISON.as_deref().is_some_and(|poison| text.starts_with(poison));
        assert!(!is_poison, "poison was swallowed");
    }
}

#[cfg(feature = "sabotage")]
pub use chosen::{has, reach, swallow};

#[cfg(not(feature = "sabotage"))]
mod none {
    use super::{Bug, Point};

    /// Whether the bug is planted in this process: never in this build.
    pub const fn has(_: Bug) -> bool {
        false
    }

    /// Nothing in this build.
    pub const fn reach(_: Point) {}

    /// Nothing in this build.
    pub const fn swallow(_: &str) {}
}

#[cfg(not(feature = "sabotage"))]
pub use none::{has, reach, swallow};
