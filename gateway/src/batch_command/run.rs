//! Which command of `gateway batch` goes where, and how its end becomes an exit code.

use std::{future::Future, io, process::ExitCode, time::Duration};

use common::domain::ids::RequestId;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    args::{BatchCommand, OneBatch, ResultsArgs, SubmitArgs},
    client::Client,
    client_error::ClientError,
    error::BatchError,
    patience::Patience,
    progress::Progress,
    server::Server,
    session::{Finished, Session},
    submit::Submission,
    view::{BatchView, SummaryView},
    wire::Batch,
};
use crate::admin::output::Output;

/// All was done, but some prompts have no answer.
const NOT_ALL_ANSWERED: u8 = 5;

/// Runs one command: its result on stdout, progress and what went wrong on stderr.
pub async fn run(command: BatchCommand, json: bool) -> ExitCode {
    let output = Output::new(json);
    match dispatch(command, &output).await {
        Ok(code) => code,
        // Whoever reads us, such as `head`, has seen enough.
        Err(BatchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            error.exit_code()
        }
    }
}

async fn dispatch(command: BatchCommand, output: &Output) -> Result<ExitCode, BatchError> {
    let args = command.server();
    let client = Client::new(Server::of(args)?)?;
    let progress = Progress::new(output.clone(), args.quiet);
    let patience = Patience::new(args.patience, &progress);
    let mut errand = Errand { client: &client, progress: &progress, patience, output };
    match command {
        BatchCommand::Submit(args) => errand.submit(&args).await,
        BatchCommand::Results(args) => errand.results(&args).await,
        BatchCommand::List { .. } => errand.list().await,
        BatchCommand::Status(OneBatch { batch_id, .. }) => {
            errand.show(async || client.batch(batch_id, Duration::ZERO).await).await.map(|_| ExitCode::SUCCESS)
        }
        BatchCommand::Cancel(OneBatch { batch_id, .. }) => {
            errand.show(async || client.cancel(batch_id).await).await.map(|_| ExitCode::SUCCESS)
        }
        BatchCommand::RetryFailed(OneBatch { batch_id, .. }) => {
            let key = format!("batch-retry-{}", RequestId::new());
            let batch = errand.show(async || client.retry_failed(batch_id, &key).await).await?;
            progress.note(&format!("`gateway batch results {} -o FILE` waits for its answers", batch.batch_id));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A command and what it works with.
struct Errand<'a> {
    client: &'a Client,
    progress: &'a Progress,
    patience: Patience<'a>,
    output: &'a Output,
}

impl Errand<'_> {
    async fn submit(&mut self, args: &SubmitArgs) -> Result<ExitCode, BatchError> {
        // Until it runs, nothing is sent, and a signal ends the process as it does any other.
        let mut submission = Submission::prepare(args, self.client.url())?;
        let ended = or_signal(submission.run(self.client, &mut self.patience, self.progress)).await;
        self.conclude(ended, &submission.session)
    }

    async fn results(&mut self, args: &ResultsArgs) -> Result<ExitCode, BatchError> {
        let mut session = Session::for_results(args)?;
        let ended = match session.finished() {
            Some(finished) => Ok(finished),
            None => or_signal(session.follow(self.client, args.batch_id, &mut self.patience, self.progress)).await,
        };
        self.conclude(ended, &session)
    }

    async fn list(&mut self) -> Result<ExitCode, BatchError> {
        let client = self.client;
        let batches = self.patience.through(async || client.batches().await).await?;
        let views: Vec<_> = batches.into_iter().map(BatchView).collect();
        self.output.list(&views)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn show(&mut self, ask: impl AsyncFnMut() -> Result<Batch, ClientError>) -> Result<Batch, BatchError> {
        let batch = self.patience.through(ask).await?;
        self.output.one(&BatchView(batch.clone()))?;
        Ok(batch)
    }

    fn conclude(&self, ended: Result<Finished, BatchError>, session: &Session) -> Result<ExitCode, BatchError> {
        self.progress.clear();
        let error = match ended {
            Ok(finished) => return self.sum_up(&finished),
            Err(error) => error,
        };
        self.output.error(&error);
        match (&error, session.way_on()) {
            // Those say themselves what to do.
            (BatchError::Refused(_) | BatchError::Input(_), _) => {}
            (BatchError::Interrupted(_), None) => self.output.note("nothing was sent"),
            (_, way_on) => way_on.iter().for_each(|way_on| self.output.note(way_on)),
        }
        Ok(error.exit_code())
    }

    fn sum_up(&self, finished: &Finished) -> Result<ExitCode, BatchError> {
        if finished.already {
            self.progress.note("all of it is here already, nothing was asked of the server");
        }
        let summary = SummaryView::from(finished);
        self.output.one(&summary)?;
        if summary.is_complete() {
            return Ok(ExitCode::SUCCESS);
        }
        self.output.note(&summary.way_on());
        Ok(NOT_ALL_ANSWERED.into())
    }
}

/// Lets `work` go on until it ends, or until somebody asks the process to end.
async fn or_signal(work: impl Future<Output = Result<Finished, BatchError>>) -> Result<Finished, BatchError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        ended = work => ended,
        _ = interrupt.recv() => Err(BatchError::Interrupted(130)),
        _ = terminate.recv() => Err(BatchError::Interrupted(143)),
    }
}
