//! `gateway batch submit`: a file of prompts, sent once, whatever happens on the way.

use common::domain::{ids::BatchId, time::Millis};

use super::{
    args::SubmitArgs,
    client::Client,
    client_error::{ClientError, Refusal},
    error::BatchError,
    faults::{Faults, InputError},
    input::Input,
    paths::{self, Paths},
    patience::Patience,
    progress::Progress,
    session::{Finished, Session},
    spool::Spooled,
    state::{State, Upload},
    upload,
    wire::Batch,
};

/// A body that is ready to leave, or has left in an earlier run.
#[derive(Debug)]
pub struct Submission {
    /// Its files.
    pub session: Session,
    input: Input,
    body: Spooled,
}

impl Submission {
    /// Reads the prompts and what an earlier run left. Nothing is sent yet.
    ///
    /// # Errors
    /// When the prompts make no sense, or are not those of the earlier run.
    pub fn prepare(args: &SubmitArgs, url: &str) -> Result<Self, BatchError> {
        let input = Input::of(args);
        let paths = Paths::beside(match &args.output {
            Some(output) => output.clone(),
            None if input.is_stdin() => return Err(BatchError::Usage("say with -o where the answers go".to_owned())),
            None => Paths::default_results(&args.input),
        });
        if paths.are_written_to(&args.input) {
            let what = format!("{} would be written over: give another -o", input.name());
            return Err(BatchError::Usage(what));
        }
        let session = Session::open(paths, args.restart)?;
        let body = input.spool(&session.paths.body)?;
        let submission = Self { session, input, body };
        submission.check_state(url)?;
        Ok(submission)
    }

    /// Sends the body if it has not been accepted, and writes the results until the batch's end.
    pub async fn run(
        &mut self,
        client: &Client,
        patience: &mut Patience<'_>,
        progress: &Progress,
    ) -> Result<Finished, BatchError> {
        if let Some(finished) = self.session.finished() {
            return Ok(finished);
        }
        let id = match self.session.batch_id() {
            Some(id) => id,
            None => self.upload(client, patience, progress).await?,
        };
        paths::remove(&self.session.paths.body)?;
        self.session.follow(client, id, patience, progress).await
    }

    /// Whether what an earlier run left is of the same prompts, at the same place.
    fn check_state(&self, url: &str) -> Result<(), BatchError> {
        let Some(state) = &self.session.state else { return Ok(()) };
        let (results, name) = (self.session.paths.results.display(), self.input.name());
        let refused = |what: String| Err(BatchError::Refused(what));
        let is_same = state.upload.as_ref().is_some_and(|upload| upload.sha256 == self.body.sha256);
        if !is_same {
            let what = format!("{results} belongs to other prompts than those in {name} (or to another --agent)");
            return refused(format!("{what}: give another -o, or --restart to begin anew and write over it"));
        }
        if state.url == url {
            return Ok(());
        }
        let what = format!("{name} was sent to {} and not to {url}: go on there (--url {})", state.url, state.url);
        match self.session.batch_id() {
            None => refused(format!("{what}, or --restart to send it anew")),
            Some(id) => refused(format!(
                "{what}. If both are the same Frontdesk, `gateway batch results {id} -o {results}` goes on here; \
                 --restart sends it anew"
            )),
        }
    }

    async fn upload(
        &mut self,
        client: &Client,
        patience: &mut Patience<'_>,
        progress: &Progress,
    ) -> Result<BatchId, BatchError> {
        let is_first = self.session.state.is_none();
        if is_first {
            // A wrong address or key is better known before much is sent.
            patience.through(async || client.check().await).await?;
            self.session.save(State::of_upload(client.url(), &self.body))?;
        }
        let upload = self.known_upload()?;
        let mut may_be_taken = !is_first;
        loop {
            let path = &self.session.paths.body;
            match upload::send(client, &upload, path, &self.body, progress).await? {
                Ok(batch) => {
                    patience.went_well();
                    return self.accepted(&batch, progress);
                }
                Err(error) => {
                    may_be_taken |= error.may_have_been_done();
                    if let Err(last) = patience.bear(error).await {
                        return Err(self.given_up(last, may_be_taken)?);
                    }
                }
            }
        }
    }

    /// The upload of this run or of an earlier one.
    fn known_upload(&self) -> Result<Upload, BatchError> {
        let upload = self.session.state.as_ref().and_then(|state| state.upload.clone());
        upload.filter(|upload| !upload.is_too_old(Millis::now())).ok_or_else(|| {
            let name = self.input.name();
            BatchError::Refused(format!(
                "the sending of {name} began too long ago to be gone on with, and whether it was accepted is not \
                 known: `gateway batch list` shows it if it was, --restart sends it anew"
            ))
        })
    }

    fn accepted(&mut self, batch: &Batch, progress: &Progress) -> Result<BatchId, BatchError> {
        let id = batch.batch_id;
        if let Some(state) = self.session.state.clone() {
            self.session.save(state.accepted(id))?;
        }
        progress.note(&format!("batch {id}: {} prompts", batch.request_counts.total));
        Ok(id)
    }

    /// What did not become a batch for sure is forgotten, so that it can be mended and sent again.
    fn given_up(&mut self, error: ClientError, may_be_taken: bool) -> Result<BatchError, BatchError> {
        if !may_be_taken {
            self.session.forget()?;
        }
        Ok(match error {
            ClientError::Refused(refusal) if refusal.invalid_count > 0 => self.faults(*refusal).into(),
            other => other.into(),
        })
    }

    fn faults(&self, refusal: Refusal) -> InputError {
        let (count, first) = (refusal.invalid_count, refusal.invalid_lines);
        InputError::Faults(Faults { name: self.input.name(), numbering: self.input.numbering(), count, first })
    }
}
