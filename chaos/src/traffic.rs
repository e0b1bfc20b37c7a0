//! Callers of all manners at once, in an order that a seed gives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::lifecycle::Lifecycle;
use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Semaphore, task::JoinHandle, time::sleep};

use crate::{calls::Manner, desk::Desk, drivers};

/// How often it is looked whether all have come to their end.
const LOOK: Duration = Duration::from_millis(200);

/// What callers do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many calls there are, unless they are enough before; a batch is one.
    pub calls: usize,
    /// How many of them are under way at most.
    pub at_once: usize,
    /// Who comes; each as often as it stands here.
    pub manners: Vec<Manner>,
    /// How many lines a batch has.
    pub lines: usize,
    /// The time between two calls.
    pub pause: Duration,
}

/// Callers under way.
pub struct Traffic {
    task: JoinHandle<()>,
    is_enough: Arc<AtomicBool>,
}

impl Traffic {
    /// Begins to call.
    pub fn start(desk: Desk, plan: Plan, seed: u64, tasks: &Lifecycle) -> Self {
        let is_enough = Arc::new(AtomicBool::new(false));
        let task = tasks.spawn(run(desk, plan, seed, tasks.clone(), is_enough.clone()));
        Self { task, is_enough }
    }

    /// No more callers come.
    pub fn enough(&self) {
        self.is_enough.store(true, Ordering::Relaxed);
    }

    /// Whether all callers have come to their end.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until they have.
    pub async fn ended(&self) {
        while !self.is_over() {
            sleep(LOOK).await;
        }
    }

    /// Waits for them, and for what went wrong with them.
    pub async fn over(self) {
        if let Err(error) = self.task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn run(desk: Desk, plan: Plan, seed: u64, tasks: Lifecycle, is_enough: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let places = Arc::new(Semaphore::new(plan.at_once));
    let mut calls = Vec::new();
    for number in 0..plan.calls {
        if is_enough.load(Ordering::Relaxed) {
            break;
        }
        let manner = plan.manners[random.random_range(0..plan.manners.len())];
        // Where all want the same, each gateway has half of them.
        let gateway = if plan.manners.len() == 1 { number % 2 } else { random.random_range(0..2) };
        let place = places.clone().acquire_owned().await;
        let (key, lines, desk) = (format!("nonce-{}-{number}", desk.name), plan.lines, desk.clone());
        calls.push(tasks.spawn(async move {
            drivers::call(&desk, manner, &key, lines, gateway).await;
            drop(place);
        }));
        if !plan.pause.is_zero() {
            sleep(plan.pause.mul_f64(random.random_range(0.5..1.5))).await;
        }
    }
    join_all(calls).await;
}
