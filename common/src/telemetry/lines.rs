//! Lines of the log on their way out: gathered for a moment and written together, since each write is a call of the
//! system during which all other threads wait with theirs.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// More than this does not wait, in bytes: whoever writes one more line writes all.
const MOST: usize = 1 << 20;

type Out = Box<dyn Write + Send>;

/// Takes lines. Warnings and errors leave at once, with all that came before them.
#[derive(Clone)]
pub(super) struct Lines(Arc<Inner>);

struct Inner {
    waiting: Mutex<Waiting>,
    some: Condvar,
    /// Held while writing, so that lines stay in their order; with the space of what was written last.
    out: Mutex<(Out, Vec<u8>)>,
}

struct Waiting {
    text: Vec<u8>,
    /// Whether every line leaves at once.
    is_direct: bool,
}

/// One line's way out.
pub(super) struct Line<'a> {
    lines: &'a Inner,
    is_urgent: bool,
}

/// When it is dropped, all that waits is written; each further line leaves at once.
#[must_use]
pub struct LastLines(Lines);

impl Lines {
    /// Gathers for `gather` what goes to `out`; with zero nothing waits.
    pub(super) fn new(out: impl Write + Send + 'static, gather: Duration) -> Self {
        let waiting = Mutex::new(Waiting { text: Vec::new(), is_direct: gather.is_zero() });
        let out: Mutex<(Out, _)> = Mutex::new((Box::new(out), Vec::new()));
        let lines = Self(Arc::new(Inner { waiting, some: Condvar::new(), out }));
        let inner = lines.0.clone();
        if !gather.is_zero() && thread::Builder::new().name("log".to_owned()).spawn(move || inner.run(gather)).is_err()
        {
            lines.0.waiting().is_direct = true;
        }
        lines
    }

    /// To be dropped last of all.
    pub(super) fn last(&self) -> LastLines {
        LastLines(self.clone())
    }
}

impl Inner {
    fn run(&self, gather: Duration) {
        loop {
            let waiting = self.some.wait_while(self.waiting(), |waiting| waiting.text.is_empty());
            drop(waiting.unwrap_or_else(PoisonError::into_inner));
            thread::sleep(gather);
            self.write_out();
        }
    }

    fn take(&self, line: &[u8], is_urgent: bool) {
        let mut waiting = self.waiting();
        let is_first = waiting.text.is_empty();
        waiting.text.extend_from_slice(line);
        let leaves = is_urgent || waiting.is_direct || waiting.text.len() > MOST;
        drop(waiting);
        if leaves {
            self.write_out();
        } else if is_first {
            self.some.notify_one();
        }
    }

    fn write_out(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let (out, text) = &mut *out;
        mem::swap(text, &mut self.waiting().text);
        // A log that cannot be written cannot be complained of either.
        let _ = out.write_all(text);
        text.clear();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: &self.0, is_urgent: false }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line { lines: &self.0, is_urgent: *about.level() <= Level::WARN }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.take(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        let Self(Lines(lines)) = self;
        lines.waiting().is_direct = true;
        lines.write_out();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Sends on each write.
    struct Page(mpsc::Sender<String>);

    impl Write for Page {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(text).into_owned());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(gather: Duration) -> (Lines, mpsc::Receiver<String>) {
        let (tx, rx) = mpsc::channel();
        (Lines::new(Page(tx), gather), rx)
    }

    #[test]
    fn lines_leave_together_and_in_their_order() {
        let (lines, page) = lines(Duration::from_millis(1));
        let mut sent = String::new();
        for number in 0..2_000 {
            let line = format!("{number}\n");
            lines.0.take(line.as_bytes(), number % 700 == 699);
            sent += &line;
        }
        let mut read = String::new();
        while read.len() < sent.len() {
            read += &page.recv_timeout(LONG).expect("the rest");
        }
        assert_eq!(read, sent);
    }

    #[test]
    fn an_urgent_line_leaves_at_once_with_those_before_it() {
        let (lines, page) = lines(LONG);
        lines.0.take(b"a\n", false);
        assert!(page.try_recv().is_err());
        lines.0.take(b"b\n", true);
        assert_eq!(page.try_recv().expect("both"), "a\nb\n");
    }

    #[test]
    fn what_is_too_much_does_not_wait() {
        let (lines, page) = lines(LONG);
        for _ in 0..3 {
            lines.0.take(&vec![b'x'; MOST / 2], false);
        }
        assert_eq!(page.try_recv().expect("all").len(), MOST / 2 * 3);
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let (lines, page) = lines(LONG);
        lines.0.take(b"a\n", false);
        drop(lines.last());
        assert_eq!(page.try_recv().expect("the last line"), "a\n");
        lines.0.take(b"b\n", false);
        assert_eq!(page.try_recv().expect("a late line"), "b\n");
    }
}
