//! The files of one run, from the first look at them to the batch's end.

use std::path::PathBuf;

use common::domain::ids::BatchId;

use super::{
    args::ResultsArgs,
    client::Client,
    error::BatchError,
    follow::follow,
    paths::{self, Paths},
    patience::Patience,
    progress::Progress,
    results::{ResultFiles, Tally},
    state::State,
    wire::Batch,
};

/// A run that has its files to itself.
#[derive(Debug)]
pub struct Session {
    /// Which files these are.
    pub paths: Paths,
    /// The results that there are.
    pub files: ResultFiles,
    /// What was sent, and what it became; `None` as long as nothing has left.
    pub state: Option<State>,
}

/// The end of a run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The batch as it ended.
    pub batch: Batch,
    /// How its prompts ended, as far as their results are on disk.
    pub tally: Tally,
    /// Where the answers are.
    pub results: PathBuf,
    /// Where the others are, if there are any.
    pub failures: Option<PathBuf>,
    /// Whether all of it was there before.
    pub already: bool,
}

impl Session {
    /// Takes up what an earlier run left; with `restart`, forgets it.
    ///
    /// # Errors
    /// When the files are in use, or hold something that no run of ours left there.
    pub fn open(paths: Paths, restart: bool) -> Result<Self, BatchError> {
        let mut files = ResultFiles::open(&paths)?;
        if restart {
            // In this order: results without their state are nobody's, and would be refused.
            files.clear()?;
            paths::remove(&paths.state)?;
        }
        let state = State::load(&paths.state)?;
        if state.is_some() {
            files.take_up()?;
        } else if !files.are_empty() {
            let results = paths.results.display();
            let what = "holds something already, and no run to go on with is beside it";
            let way_out = "give another -o, or --restart to write over it";
            return Err(BatchError::Refused(format!("{results} {what}: {way_out}")));
        }
        Ok(Self { paths, files, state })
    }

    /// The files for a batch that was sent from elsewhere.
    ///
    /// # Errors
    /// When they are of another one.
    pub fn for_results(args: &ResultsArgs) -> Result<Self, BatchError> {
        let session = Self::open(Paths::beside(args.output.clone()), false)?;
        let known = session.state.as_ref().map(|state| state.batch.as_ref().map(|taken| taken.id));
        if known.is_some_and(|id| id != Some(args.batch_id)) {
            let what = format!("{} belongs to another batch: give another -o", args.output.display());
            return Err(BatchError::Refused(what));
        }
        Ok(session)
    }

    /// Writes down how far it is.
    pub fn save(&mut self, state: State) -> Result<(), BatchError> {
        state.save(&self.paths.state)?;
        self.state = Some(state);
        Ok(())
    }

    /// Forgets what was sent, since the server has not taken it.
    pub fn forget(&mut self) -> Result<(), BatchError> {
        self.state = None;
        paths::remove(&self.paths.state)
    }

    /// The batch, once it is known.
    pub fn batch_id(&self) -> Option<BatchId> {
        self.state.as_ref()?.batch.as_ref().map(|taken| taken.id)
    }

    /// The end of the run, if an earlier one came to it and all of its results are still here.
    pub fn finished(&self) -> Option<Finished> {
        let batch = self.state.as_ref()?.batch.as_ref()?.ended.clone()?;
        let all_here = self.files.tally().all() >= batch.request_counts.total;
        all_here.then(|| Finished { already: true, ..self.end_of(batch) })
    }

    /// Writes the results of the batch `id` until its end.
    pub async fn follow(
        &mut self,
        client: &Client,
        id: BatchId,
        patience: &mut Patience<'_>,
        progress: &Progress,
    ) -> Result<Finished, BatchError> {
        if self.state.is_none() {
            patience.through(async || client.batch(id, Default::default()).await).await?;
            self.save(State::of_batch(client.url(), id))?;
        }
        let batch = follow(client, id, &mut self.files, patience, progress).await?;
        if let Some(state) = self.state.clone() {
            self.save(state.ended(batch.clone()))?;
        }
        Ok(self.end_of(batch))
    }

    /// What can be done after an end before the end; `None` when nothing was sent.
    pub fn way_on(&self) -> Option<String> {
        let state = self.state.as_ref()?;
        Some(match &state.batch {
            None => "the same command again goes on, and runs nothing twice".to_owned(),
            Some(taken) => format!(
                "batch {id} goes on at {}: the same command again goes on reading its results, and `gateway batch \
                 cancel {id}` stops it",
                state.url,
                id = taken.id
            ),
        })
    }

    fn end_of(&self, batch: Batch) -> Finished {
        let tally = self.files.tally();
        let failures = (tally.not_answered() > 0).then(|| self.paths.failures.clone());
        Finished { batch, tally, results: self.paths.results.clone(), failures, already: false }
    }
}

impl Drop for Session {
    /// A run that has sent nothing leaves nothing behind.
    fn drop(&mut self) {
        if self.state.is_none() {
            // What cannot be removed is written over by the next run.
            let _ = paths::remove(&self.paths.body);
            let _ = self.files.remove_if_empty();
        }
    }
}
