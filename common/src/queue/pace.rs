//! How fast jobs leave the queue, from counts that are taken now and then.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How far back a rate looks.
const WINDOW: Duration = Duration::from_secs(60);

/// What was counted at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    /// When.
    pub(super) at: Instant,
    /// Jobs that have left the queue since it was made.
    pub(super) ended: u64,
    /// Jobs that workers have.
    pub(super) running: u64,
    /// Jobs that are there.
    pub(super) unfinished: u64,
}

/// The counts of the last minute, and what a running job achieved when one last ended.
#[derive(Debug, Default)]
pub(super) struct Pace {
    counts: VecDeque<Count>,
    /// Ends a second for each running job: one over the mean time of a run.
    ends_per_running: Option<f64>,
}

impl Pace {
    /// Notes one more count, and estimates how long all that is unfinished will take:
    ///
    /// - nothing, when nothing is there;
    /// - unfinished ÷ rate, when jobs have ended within the window: rate = ended ÷ time, from its first count to this;
    /// - else unfinished ÷ (running × what one running job achieved a second when jobs last ended), that is
    ///   unfinished ÷ busy slots × the mean time of a run;
    /// - unknown when no end was ever seen, or nothing runs.
    pub(super) fn drain(&mut self, now: Count) -> Option<Duration> {
        self.note(now);
        if now.unfinished == 0 {
            return Some(Duration::ZERO);
        }
        if let Some(rate) = self.rate() {
            self.ends_per_running = Some(rate / self.mean_running().max(1.0));
            return seconds(now.unfinished, rate);
        }
        seconds(now.unfinished, self.ends_per_running? * float(now.running))
    }

    fn note(&mut self, now: Count) {
        // The stream was made anew.
        if self.counts.back().is_some_and(|last| now.ended < last.ended) {
            self.counts.clear();
        }
        self.counts.push_back(now);
        // One count from before the window stays, so that there are two to compare also when hardly anybody asks.
        while self.counts.get(1).is_some_and(|second| now.at - second.at >= WINDOW) {
            self.counts.pop_front();
        }
    }

    /// Ends a second; `None` when there was none.
    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.counts.front()?, self.counts.back()?);
        let ended = last.ended - first.ended;
        (ended > 0).then(|| float(ended) / (last.at - first.at).as_secs_f64().max(0.001))
    }

    fn mean_running(&self) -> f64 {
        let sum: u64 = self.counts.iter().map(|count| count.running).sum();
        float(sum) / float(self.counts.len() as u64).max(1.0)
    }
}

/// How long so many jobs take at `rate`; `None` when that is for ever.
fn seconds(jobs: u64, rate: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(float(jobs) / rate).ok()
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(begun: Instant, at: u64, ended: u64, running: u64, unfinished: u64) -> Count {
        Count { at: begun + Duration::from_secs(at), ended, running, unfinished }
    }

    fn drains(counts: &[(u64, u64, u64, u64)]) -> Vec<Option<u64>> {
        let (begun, mut pace) = (Instant::now(), Pace::default());
        let drain = |&(at, ended, running, unfinished)| pace.drain(count(begun, at, ended, running, unfinished));
        counts.iter().map(drain).map(|drain| Some(drain?.as_secs())).collect()
    }

    #[test]
    fn what_is_left_takes_as_long_as_the_last_minute_says() {
        // 10 a second, then 5.
        let seen = [(0, 0, 8, 1_000), (10, 100, 8, 900), (20, 200, 8, 800), (80, 500, 8, 500)];
        assert_eq!(drains(&seen), [None, Some(90), Some(80), Some(100)]);
    }

    #[test]
    fn without_an_end_lately_busy_slots_and_the_mean_run_tell() {
        // 4 slots end 40 jobs in 40 s: 4 s a run. Then 2 slots have 10 left and end none.
        let seen = [(0, 0, 4, 100), (40, 40, 4, 60), (110, 40, 2, 10), (180, 40, 2, 10), (190, 40, 0, 10)];
        assert_eq!(drains(&seen)[2..], [Some(20), Some(20), None]);
    }

    #[test]
    fn nothing_takes_no_time_and_the_unknown_is_not_guessed() {
        assert_eq!(drains(&[(0, 7, 0, 0), (5, 7, 3, 9), (90, 7, 3, 9)]), [Some(0), None, None]);
    }

    #[test]
    fn a_stream_that_was_made_anew_begins_anew() {
        assert_eq!(drains(&[(0, 0, 1, 9), (10, 500, 1, 9), (20, 3, 1, 9), (30, 4, 1, 9)])[2..], [Some(0), Some(90)]);
    }
}
