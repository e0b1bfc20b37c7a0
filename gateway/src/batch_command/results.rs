//! The results on disk: which there are, and where the next ones go.
//!
//! The files themselves say what is there. However a run ended, what it had not written whole is read again from the
//! server, and what is there already is not written again.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use common::domain::message::MessageStatus;

use super::{
    error::BatchError,
    paths::{self, Paths},
    wire::{ResultHead, ResultLine},
};

/// The answers and the failures of one batch. Nobody else writes to them as long as this is there.
#[derive(Debug)]
pub struct ResultFiles {
    answers: File,
    answers_path: PathBuf,
    /// There only once there are any.
    failures: Option<File>,
    failures_path: PathBuf,
    seen: HashSet<u64>,
    tally: Tally,
}

/// How the prompts ended whose results are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered.
    pub completed: u64,
    /// Ended without an answer.
    pub failed: u64,
    /// Not begun in time.
    pub expired: u64,
    /// Stopped.
    pub cancelled: u64,
}

impl Tally {
    /// Those that were not answered.
    pub fn not_answered(self) -> u64 {
        self.failed + self.expired + self.cancelled
    }

    /// All of them.
    pub fn all(self) -> u64 {
        self.completed + self.not_answered()
    }

    fn add(&mut self, status: MessageStatus) {
        match status {
            MessageStatus::Completed => self.completed += 1,
            MessageStatus::Expired => self.expired += 1,
            MessageStatus::Cancelled => self.cancelled += 1,
            MessageStatus::Queued | MessageStatus::InProgress | MessageStatus::Failed => self.failed += 1,
        }
    }
}

impl ResultFiles {
    /// Opens the files, and makes the one for answers if it is not there. What they hold is not looked at.
    ///
    /// # Errors
    /// When another process has them open, or they are no files.
    pub fn open(paths: &Paths) -> Result<Self, BatchError> {
        let at_results = BatchError::file("could not open", &paths.results);
        let answers = options().create(true).open(&paths.results).map_err(at_results)?;
        if !answers.metadata().is_ok_and(|about| about.is_file()) {
            return Err(BatchError::Usage(format!("{} is no file to write results to", paths.results.display())));
        }
        match answers.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let busy = format!("{} is being written by another `gateway batch`", paths.results.display());
                return Err(BatchError::Refused(busy));
            }
            Err(TryLockError::Error(cause)) => return Err(BatchError::file("could not lock", &paths.results)(cause)),
        }
        let failures = match options().open(&paths.failures) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(BatchError::file("could not open", &paths.failures))?),
        };
        let (answers_path, failures_path) = (paths.results.clone(), paths.failures.clone());
        let (seen, tally) = (HashSet::new(), Tally::default());
        Ok(Self { answers, answers_path, failures, failures_path, seen, tally })
    }

    /// Whether they hold nothing at all.
    pub fn are_empty(&self) -> bool {
        let is_empty = |file: &File| file.metadata().is_ok_and(|about| about.len() == 0);
        is_empty(&self.answers) && self.failures.as_ref().is_none_or(is_empty)
    }

    /// Removes all that they hold.
    pub fn clear(&mut self) -> Result<(), BatchError> {
        self.answers.set_len(0).map_err(BatchError::file("could not empty", &self.answers_path))?;
        self.failures = None;
        (self.seen, self.tally) = (HashSet::new(), Tally::default());
        paths::remove(&self.failures_path)
    }

    /// Removes the file for answers if nothing came to stand in it.
    pub fn remove_if_empty(&self) -> Result<(), BatchError> {
        if self.are_empty() { paths::remove(&self.answers_path) } else { Ok(()) }
    }

    /// Takes up what they hold. A last line that was not written whole is cut off.
    ///
    /// # Errors
    /// When they cannot be read, or hold something else than results.
    pub fn take_up(&mut self) -> Result<(), BatchError> {
        let Self { answers, answers_path, failures, failures_path, .. } = self;
        let mut heads = read(answers, answers_path)?;
        if let Some(failures) = failures {
            heads.extend(read(failures, failures_path)?);
        }
        heads.into_iter().filter(|head| self.seen.insert(head.seq)).for_each(|head| self.tally.add(head.status));
        Ok(())
    }

    /// How the prompts ended whose results are here.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Up to which place in their order all results are here.
    pub fn whole_up_to(&self) -> u64 {
        (1..).take_while(|seq| self.seen.contains(seq)).last().unwrap_or(0)
    }

    /// Adds those of `lines` that are not here yet.
    pub fn append(&mut self, lines: &[ResultLine]) -> Result<(), BatchError> {
        let (mut answers, mut failures) = (Vec::new(), Vec::new());
        for ResultLine { head, text } in lines {
            if self.seen.insert(head.seq) {
                self.tally.add(head.status);
                let answered = head.status == MessageStatus::Completed;
                if answered { &mut answers } else { &mut failures }.extend_from_slice(text);
            }
        }
        self.answers.write_all(&answers).map_err(BatchError::file("could not write", &self.answers_path))?;
        if failures.is_empty() { Ok(()) } else { self.append_failures(&failures) }
    }

    /// Makes sure that all of it outlives a loss of power.
    pub fn sync(&self) -> Result<(), BatchError> {
        self.answers.sync_all().map_err(BatchError::file("could not write", &self.answers_path))?;
        let failures = self.failures.as_ref().map_or(Ok(()), File::sync_all);
        failures.map_err(BatchError::file("could not write", &self.failures_path))
    }

    fn append_failures(&mut self, lines: &[u8]) -> Result<(), BatchError> {
        let Self { failures, failures_path, .. } = self;
        let written = match failures {
            Some(file) => file.write_all(lines),
            None => {
                options().create(true).open(&*failures_path).and_then(|file| failures.insert(file).write_all(lines))
            }
        };
        written.map_err(BatchError::file("could not write", &*failures_path))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    options
}

/// What the whole lines of `file` say; what stands behind them is cut off.
fn read(file: &File, path: &Path) -> Result<Vec<ResultHead>, BatchError> {
    let unreadable = || BatchError::file("could not read", path);
    let (mut reader, mut whole) = (BufReader::new(file), 0);
    reader.rewind().map_err(unreadable())?;
    let (mut heads, mut line) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).map_err(unreadable())? > 0 && line.ends_with(b"\n") {
        let head = serde_json::from_slice(&line).map_err(|_| {
            let number = heads.len() + 1;
            BatchError::Refused(format!("line {number} of {} is no result of a batch", path.display()))
        })?;
        heads.push(head);
        whole += line.len() as u64;
        line.clear();
    }
    if !line.is_empty() {
        file.set_len(whole).map_err(BatchError::file("could not cut off the last line of", path))?;
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(seq: u64, status: MessageStatus) -> ResultLine {
        let text = format!("{{\"seq\":{seq},\"status\":\"{status}\",\"content\":\"ä\"}}\n").into_bytes();
        ResultLine { head: ResultHead { seq, status }, text }
    }

    fn texts(lines: &[ResultLine]) -> Vec<u8> {
        lines.iter().flat_map(|line| line.text.clone()).collect()
    }

    #[test]
    fn answers_and_failures_go_to_files_of_their_own() {
        use MessageStatus as S;
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::beside(folder.path().join("results.jsonl"));
        let mut files = ResultFiles::open(&paths).expect("files");
        assert!(files.are_empty() && !paths.failures.exists());
        let lines = [line(1, S::Completed), line(2, S::Failed), line(3, S::Completed), line(4, S::Expired)];
        files.append(&lines[..1]).expect("written");
        assert!(!paths.failures.exists());
        files.append(&lines).expect("written");
        files.append(&[line(5, S::Cancelled)]).expect("written");
        assert_eq!(files.tally(), Tally { completed: 2, failed: 1, expired: 1, cancelled: 1 });
        assert_eq!(files.whole_up_to(), 5);
        files.sync().expect("on disk");
        assert_eq!(fs::read(&paths.results).expect("answers"), texts(&[line(1, S::Completed), line(3, S::Completed)]));
        let failures = texts(&[line(2, S::Failed), line(4, S::Expired), line(5, S::Cancelled)]);
        assert_eq!(fs::read(&paths.failures).expect("failures"), failures);
    }

    #[test]
    fn what_was_not_written_whole_is_written_again() {
        use MessageStatus::{Completed, Failed};
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::beside(folder.path().join("results.jsonl"));
        let all = [line(1, Completed), line(2, Failed), line(3, Completed), line(4, Failed), line(5, Completed)];
        // A loss of power may have taken from either file.
        let mut torn = texts(&[line(1, Completed), line(3, Completed), line(5, Completed)]);
        torn.truncate(torn.len() - 7);
        fs::write(&paths.results, torn).expect("a file");
        fs::write(&paths.failures, texts(&[line(4, Failed)])).expect("a file");
        let mut files = ResultFiles::open(&paths).expect("files");
        files.take_up().expect("results");
        assert_eq!((files.whole_up_to(), files.tally().all()), (1, 3));
        files.append(&all[1..]).expect("written");
        assert_eq!((files.whole_up_to(), files.tally().all()), (5, 5));
        let answers = texts(&[line(1, Completed), line(3, Completed), line(5, Completed)]);
        assert_eq!(fs::read(&paths.results).expect("answers"), answers);
        assert_eq!(fs::read(&paths.failures).expect("failures"), texts(&[line(4, Failed), line(2, Failed)]));
    }

    #[test]
    fn files_of_somebody_else_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::beside(folder.path().join("results.jsonl"));
        fs::write(&paths.results, "my poem\nits second line").expect("a file");
        let mut files = ResultFiles::open(&paths).expect("files");
        assert!(!files.are_empty());
        let error = files.take_up().expect_err("a poem").to_string();
        assert!(error.contains("line 1"), "{error}");
        files.remove_if_empty().expect("nothing to do");
        assert_eq!(fs::read_to_string(&paths.results).expect("the poem"), "my poem\nits second line");
    }

    #[test]
    fn only_one_writes_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::beside(folder.path().join("results.jsonl"));
        let first = ResultFiles::open(&paths).expect("files");
        ResultFiles::open(&paths).expect_err("it is locked");
        drop(first);
        let mut again = ResultFiles::open(&paths).expect("files");
        again.append(&[line(1, MessageStatus::Completed), line(2, MessageStatus::Failed)]).expect("written");
        again.clear().expect("cleared");
        assert!(again.are_empty() && !paths.failures.exists());
        again.remove_if_empty().expect("removed");
        assert!(!paths.results.exists());
    }
}
