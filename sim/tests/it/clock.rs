//! Time that passes only when a case says so.

use std::future::Future;

use tokio::runtime::Builder;

/// Runs `case` on a clock of its own: it stands while anything can go on, and then jumps to the next moment at which
/// something is due.
pub fn on_paused_clock<T>(case: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(case)
}
