//! What people see while they wait: a bar with rate and time left, or a plain line now and then.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{
    DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use crate::admin::output::{Output, with_causes};

const TICK: Duration = Duration::from_millis(100);
/// How often a plain line is written where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);
const QUEUING: &str = "all is sent; the server checks it and puts it on its queue";

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// A bar on a terminal.
    Bar,
    /// Lines, as for logs.
    Lines,
    /// Not at all.
    Nothing,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing that can be counted.
    Preparing,
    /// Bytes of the body leave.
    Uploading,
    /// All of it has left, and the server has not answered.
    Queuing,
    /// Prompts end.
    Running,
}

/// Shows on stderr how far a run is.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    manner: Manner,
    phase: Cell<Phase>,
    bar: RefCell<ProgressBar>,
    last_line: Cell<Instant>,
}

impl Progress {
    /// A bar where stderr is a terminal, else lines; nothing at all when it is to be `quiet`.
    pub fn new(output: Output, quiet: bool) -> Self {
        let manner = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Manner::Nothing,
            (false, true) => Manner::Bar,
            (false, false) => Manner::Lines,
        };
        Self {
            output,
            manner,
            phase: Cell::new(Phase::Preparing),
            bar: RefCell::new(ProgressBar::hidden()),
            last_line: Cell::new(Instant::now()),
        }
    }

    /// A body of `bytes` bytes is about to leave. Whoever sends it moves the bar that is returned.
    pub fn uploading(&self, bytes: u64) -> ProgressBar {
        let counts = "{decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {left}";
        self.begin(Phase::Uploading, bytes, 0, &format!("sending [{{wide_bar}}] {counts}"));
        self.bar.borrow().clone()
    }

    /// The body has left; the server has yet to say that it has taken it.
    pub fn uploaded(&self) {
        if self.phase.replace(Phase::Queuing) != Phase::Queuing {
            self.bar.borrow().set_style(style(&format!("{{spinner}} {QUEUING}, {{elapsed_precise}}")));
        }
    }

    /// `done` of `total` prompts have ended.
    pub fn running(&self, total: u64, done: u64) {
        self.begin(Phase::Running, total, done, "running [{wide_bar}] {human_pos} of {human_len}, {rate}, {left}{msg}");
    }

    /// So many have ended by now, and so many of them were not answered.
    pub fn moved(&self, done: u64, not_answered: u64) {
        let bar = self.bar.borrow();
        bar.set_position(done);
        if not_answered > 0 {
            bar.set_message(format!(", {} failed", HumanCount(not_answered)));
        }
        drop(bar);
        self.line_if_due();
    }

    /// Writes the plain line, where one is written and it is time for it.
    pub fn line_if_due(&self) {
        if self.manner == Manner::Lines && self.last_line.get().elapsed() >= LINE_EVERY {
            self.last_line.set(Instant::now());
            let text = self.line();
            if !text.is_empty() {
                self.output.note(&text);
            }
        }
    }

    /// Says something that is worth a line of its own.
    pub fn note(&self, text: &str) {
        if self.manner != Manner::Nothing {
            self.bar.borrow().suspend(|| self.output.note(text));
        }
    }

    /// Says that something went wrong that may pass, and for how long it is borne.
    pub fn trouble(&self, error: &dyn Error, limit: Duration) {
        self.note(&format!("{}; trying again for {}", with_causes(error), HumanDuration(limit)));
    }

    /// Says that it has passed.
    pub fn trouble_is_over(&self) {
        self.note("going on");
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.borrow().finish_and_clear();
        self.phase.set(Phase::Preparing);
    }

    fn begin(&self, phase: Phase, length: u64, done: u64, template: &str) {
        self.clear();
        let target = match self.manner {
            Manner::Bar => ProgressDrawTarget::stderr(),
            Manner::Lines | Manner::Nothing => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style(template)).with_position(done);
        // What was done before says nothing of how fast it goes now.
        bar.tick();
        bar.reset_eta();
        if self.manner == Manner::Bar {
            bar.enable_steady_tick(TICK);
        }
        self.bar.replace(bar);
        self.phase.set(phase);
    }

    fn line(&self) -> String {
        let bar = self.bar.borrow();
        let (done, all) = (bar.position(), bar.length().unwrap_or_default());
        let percent = done * 100 / all.max(1);
        match self.phase.get() {
            Phase::Preparing => String::new(),
            Phase::Uploading => format!("sent {} of {} ({percent} %)", DecimalBytes(done), DecimalBytes(all)),
            Phase::Queuing => format!("{QUEUING}, for {} by now", HumanDuration(bar.elapsed())),
            Phase::Running => {
                let (rate, left) = (Rate(bar.per_sec()), Left::new(done, all, bar.eta()));
                format!("{} of {} ({percent} %), {rate}, {left}{}", HumanCount(done), HumanCount(all), bar.message())
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").with_key("rate", write_rate).with_key("left", write_left)
}

fn write_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    // A bar that cannot be drawn is no loss.
    let _ = write!(out, "{}", Rate(state.per_sec()));
}

fn write_left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let left = Left::new(state.pos(), state.len().unwrap_or_default(), state.eta());
    let _ = write!(out, "{left}");
}

/// Prompts a second.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10.0 { write!(f, "{:.1}/s", self.0) } else { write!(f, "{:.0}/s", self.0) }
    }
}

/// How long it will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Unknown,
    Seconds(u64),
}

impl Left {
    /// Nothing is known before anything has moved.
    fn new(done: u64, all: u64, left: Duration) -> Self {
        match left {
            _ if done >= all => Self::Nothing,
            Duration::ZERO => Self::Unknown,
            left => Self::Seconds(left.as_secs() + 1),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("done"),
            Self::Unknown => f.write_str("eta unknown"),
            Self::Seconds(left) => write!(f, "eta {:#}", HumanDuration(Duration::from_secs(*left))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let progress = Progress::new(Output::new(false), false);
        Progress { manner: Manner::Lines, ..progress }
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let progress = progress();
        assert_eq!(progress.line(), "");
        let bar = progress.uploading(4_000_000);
        bar.inc(1_000_000);
        assert_eq!(progress.line(), "sent 1.00 MB of 4.00 MB (25 %)");
        progress.uploaded();
        assert_eq!(progress.line(), format!("{QUEUING}, for 0 seconds by now"));
        progress.running(50_000, 10_000);
        progress.moved(12_000, 1_200);
        let line = progress.line();
        assert!(line.starts_with("12,000 of 50,000 (24 %), "), "{line}");
        assert!(line.ends_with(", 1,200 failed"), "{line}");
        progress.clear();
        assert_eq!(progress.line(), "");
    }

    #[test]
    fn rates_are_short() {
        assert_eq!([Rate(0.25), Rate(9.94), Rate(1_234.5)].map(|rate| rate.to_string()), ["0.2/s", "9.9/s", "1234/s"]);
        let left = |done, millis| Left::new(done, 2, Duration::from_millis(millis)).to_string();
        assert_eq!(
            [left(2, 0), left(1, 0), left(1, 20), left(1, 44_500)],
            ["done", "eta unknown", "eta 1s", "eta 45s"]
        );
    }
}
