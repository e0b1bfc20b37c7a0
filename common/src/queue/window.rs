//! How many publishes of a batch may be under way: as many as keep the server busy, and not so many that others wait.

use std::time::Duration;

/// The server has more to do than it needs when an acknowledgement takes longer.
const LONG: Duration = Duration::from_millis(10);
/// It may have less to do than it can when one takes no longer.
const SHORT: Duration = Duration::from_millis(5);
/// Never fewer.
const LEAST: f64 = 8.0;
/// Never more: beyond this many the server is not any faster.
const MOST: f64 = 1_024.0;
/// By how much one acknowledgement changes the number.
const STEP: f64 = 0.5;

/// A number that follows what the server acknowledges within some milliseconds. Whoever publishes one job meanwhile
/// waits behind no more than that. Measured with `sync_interval: always`, at the same throughput: 512 at any time made
/// the others wait 50 ms on a disk that was free and 500 to 1,900 ms on a busy one; this way it was 4 and 12 ms.
#[derive(Debug)]
pub(super) struct Window(f64);

impl Window {
    /// A small one, which grows fast.
    pub(super) fn new() -> Self {
        Self(64.0)
    }

    /// How many may be under way.
    pub(super) fn size(&self) -> usize {
        self.0 as usize
    }

    /// An acknowledgement came after so long.
    pub(super) fn acknowledged(&mut self, after: Duration) {
        if after > LONG {
            self.0 = (self.0 - STEP).max(LEAST);
        } else if after <= SHORT {
            self.0 = (self.0 + STEP).min(MOST);
        }
    }

    /// The queue did not take one.
    pub(super) fn refused(&mut self) {
        self.0 = LEAST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_the_server_is_quick_and_shrinks_when_it_is_not() {
        let mut window = Window::new();
        for _ in 0..10_000 {
            window.acknowledged(Duration::from_millis(1));
        }
        assert_eq!(window.size(), 1_024);
        window.acknowledged(Duration::from_millis(7));
        assert_eq!(window.size(), 1_024);
        for _ in 0..10_000 {
            window.acknowledged(Duration::from_millis(100));
        }
        assert_eq!(window.size(), 8);
        window.acknowledged(SHORT);
        window.acknowledged(SHORT);
        assert_eq!(window.size(), 9);
        window.refused();
        assert_eq!(window.size(), 8);
    }
}
