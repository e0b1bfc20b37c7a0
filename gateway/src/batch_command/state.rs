//! What is kept beside the results, so that the same command goes on where it was.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use common::domain::{
    ids::{BatchId, RequestId},
    time::Millis,
};
use serde::{Deserialize, Serialize};

use super::{error::BatchError, spool::Spooled, wire::Batch};

const VERSION: u32 = 1;
/// The server keeps an idempotency key for 24 hours. With some room for clocks and for the upload itself.
const KEY_LIFE: Duration = Duration::from_secs(22 * 3_600);

/// A run: of what, where, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Where it was sent.
    pub url: String,
    /// What was sent; `None` for a batch whose results alone are read.
    pub upload: Option<Upload>,
    /// What it became, once that is known.
    pub batch: Option<Taken>,
}

/// A body and its key. It is written down before the first byte of it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The body's SHA-256.
    pub sha256: String,
    /// Under which the body is sent, however often.
    pub idempotency_key: String,
    /// When it was sent first.
    pub begun_at: Millis,
}

/// A batch that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The batch.
    pub id: BatchId,
    /// Once all of its results that there are have been written: it, as it ended.
    pub ended: Option<Batch>,
}

impl State {
    /// A body that is about to be sent for the first time.
    pub fn of_upload(url: &str, body: &Spooled) -> Self {
        let idempotency_key = format!("batch-submit-{}", RequestId::new());
        let upload = Upload { sha256: body.sha256.clone(), idempotency_key, begun_at: Millis::now() };
        Self { version: VERSION, url: url.to_owned(), upload: Some(upload), batch: None }
    }

    /// A batch that is there already.
    pub fn of_batch(url: &str, id: BatchId) -> Self {
        Self { version: VERSION, url: url.to_owned(), upload: None, batch: None }.accepted(id)
    }

    /// The same once it is known which batch it became.
    #[must_use]
    pub fn accepted(self, id: BatchId) -> Self {
        Self { batch: Some(Taken { id, ended: None }), ..self }
    }

    /// The same once the batch has ended and its results are on disk.
    #[must_use]
    pub fn ended(self, batch: Batch) -> Self {
        Self { batch: Some(Taken { id: batch.batch_id, ended: Some(batch) }), ..self }
    }

    /// What is at `path`, if something is.
    ///
    /// # Errors
    /// When it cannot be read, or is none of ours.
    pub fn load(path: &Path) -> Result<Option<Self>, BatchError> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(BatchError::file("could not read", path))?,
        };
        let state: Self = serde_json::from_slice(&text)
            .map_err(io::Error::other)
            .map_err(BatchError::file("could not understand what an earlier run left in", path))?;
        if state.version != VERSION {
            let newer = format!("{} was left by another version of this command", path.display());
            return Err(BatchError::Refused(newer));
        }
        Ok(Some(state))
    }

    /// Writes it to `path`, whole or not at all, also when the power fails.
    pub fn save(&self, path: &Path) -> Result<(), BatchError> {
        self.replace(path).map_err(BatchError::file("could not write", path))
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Upload {
    /// Whether the server may have forgotten its key by now, so that sending the body again could run it again.
    pub fn is_too_old(&self, now: Millis) -> bool {
        now.since(self.begun_at) > KEY_LIFE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Spooled {
        Spooled { sha256: "ab".repeat(32), bytes: 3, prompts: 1 }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.jsonl.frontdesk");
        assert_eq!(State::load(&path).expect("nothing"), None);
        let state = State::of_upload("http://host", &body());
        state.save(&path).expect("saved");
        assert_eq!(State::load(&path).expect("a state"), Some(state.clone()));
        let state = state.accepted(BatchId::new());
        state.save(&path).expect("saved");
        assert_eq!(State::load(&path).expect("a state"), Some(state));
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn what_is_none_of_ours_is_not_taken_for_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        for text in ["", "{}", "{\"version\":1}"] {
            fs::write(&path, text).expect("a file");
            State::load(&path).expect_err(text);
        }
        let newer = State { version: VERSION + 1, ..State::of_upload("http://host", &body()) };
        newer.save(&path).expect("saved");
        State::load(&path).expect_err("a newer one");
    }

    #[test]
    fn every_batch_has_a_key_of_its_own_that_lasts_a_day() {
        let upload = || State::of_upload("http://host", &body()).upload.expect("an upload");
        let (one, other) = (upload(), upload());
        assert_ne!(one.idempotency_key, other.idempotency_key);
        assert!(!one.is_too_old(one.begun_at.plus(Duration::from_secs(21 * 3_600))));
        assert!(one.is_too_old(one.begun_at.plus(Duration::from_secs(23 * 3_600))));
    }
}
