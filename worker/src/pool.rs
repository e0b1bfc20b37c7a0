//! Pulls jobs as slots come free and runs each in a task of its own; hands back what has not begun when it stops.

use std::sync::Arc;

use common::{lifecycle::Lifecycle, queue::consumer::Puller};
use tracing::info;

use crate::pipeline::Pipeline;

/// Runs until the worker is told to stop.
pub async fn run(mut puller: Puller, pipeline: Arc<Pipeline>, lifecycle: Lifecycle) {
    loop {
        tokio::select! {
            () = lifecycle.stopping() => break,
            delivery = puller.next() => {
                // Boxed: a task is moved several times until it runs, and this one is large.
                lifecycle.spawn(Box::pin(pipeline.clone().process(delivery)));
            }
        }
    }
    info!(running = puller.running(), "pulling no more jobs");
    puller.give_up().await;
}
