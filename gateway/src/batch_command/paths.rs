//! Which files belong to a run: all of them stand beside the results.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::error::BatchError;

/// The files of one run.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Where the answers go.
    pub results: PathBuf,
    /// Where prompts go that were not answered.
    pub failures: PathBuf,
    /// What is needed to go on.
    pub state: PathBuf,
    /// The body as it is sent, until it has been accepted.
    pub body: PathBuf,
}

impl Paths {
    /// The files that go with `results`.
    pub fn beside(results: PathBuf) -> Self {
        let mut failures = results.file_stem().map_or_else(OsString::new, OsString::from);
        failures.push(".failures.jsonl");
        let with = |ending: &str| {
            let mut path = results.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        Self {
            failures: results.with_file_name(failures),
            state: with(".frontdesk"),
            body: with(".frontdesk-body"),
            results,
        }
    }

    /// Where the answers to `input` go unless it is said: beside it, under its name.
    pub fn default_results(input: &Path) -> PathBuf {
        input.with_extension("results.jsonl")
    }

    /// Whether `path` is one of the files that a run writes.
    pub fn are_written_to(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let all = [&self.results, &self.failures, &self.state, &self.body];
        all.into_iter().any(|own| own.canonicalize().is_ok_and(|own| own == path))
    }
}

/// Removes the file at `path`, if there is one.
pub fn remove(path: &Path) -> Result<(), BatchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(BatchError::file("could not remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_stands_beside_the_results() {
        for (results, failures) in [
            ("results.jsonl", "results.failures.jsonl"),
            ("out/answers.jsonl", "out/answers.failures.jsonl"),
            ("a.b.jsonl", "a.b.failures.jsonl"),
            ("answers", "answers.failures.jsonl"),
        ] {
            let paths = Paths::beside(results.into());
            assert_eq!(paths.failures, Path::new(failures));
            assert_eq!(paths.state, PathBuf::from(format!("{results}.frontdesk")));
            assert_eq!(paths.body, PathBuf::from(format!("{results}.frontdesk-body")));
        }
        assert_eq!(Paths::default_results(Path::new("in/prompts.csv")), Path::new("in/prompts.results.jsonl"));
    }

    #[test]
    fn what_is_not_there_need_not_be_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("body");
        fs::write(&path, "").expect("a file");
        remove(&path).expect("removed");
        remove(&path).expect("nothing to do");
        assert!(!path.exists());
    }

    #[test]
    fn the_prompts_are_none_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let prompts = folder.path().join("prompts.jsonl");
        fs::write(&prompts, "").expect("a file");
        assert!(!Paths::beside(folder.path().join("results.jsonl")).are_written_to(&prompts));
        assert!(Paths::beside(folder.path().join(".").join("prompts.jsonl")).are_written_to(&prompts));
        assert!(Paths::beside(prompts.clone()).are_written_to(&prompts));
    }
}
