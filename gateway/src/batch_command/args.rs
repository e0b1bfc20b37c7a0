//! What `gateway batch` can be asked for.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use common::{
    domain::ids::{AgentId, BatchId},
    env,
};

/// What can be done with batches, through a running Frontdesk.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Send a file of prompts, wait, and write the answers to another file.
    ///
    /// The same command again goes on where an earlier run was interrupted, however it ended: nothing is run twice.
    /// Answers go to RESULTS; what failed, expired or was cancelled goes beside it, from `results.jsonl` to
    /// `results.failures.jsonl`. RESULTS.frontdesk keeps what is needed to go on. Exits with 0 when all prompts were
    /// answered, with 5 when some were not.
    Submit(SubmitArgs),
    /// Write a batch's results to a file until it has ended; goes on with a file that has some of them.
    Results(ResultsArgs),
    /// Show how far a batch is.
    Status(OneBatch),
    /// List the newest batches.
    List {
        /// Where to ask.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Stop a batch: what has not begun is not run, what runs is stopped.
    Cancel(OneBatch),
    /// Make a new batch of the prompts of an ended one that were not answered.
    RetryFailed(OneBatch),
}

impl BatchCommand {
    /// Where to ask.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Submit(SubmitArgs { server, .. })
            | Self::Results(ResultsArgs { server, .. })
            | Self::Status(OneBatch { server, .. })
            | Self::List { server }
            | Self::Cancel(OneBatch { server, .. })
            | Self::RetryFailed(OneBatch { server, .. }) => server,
        }
    }
}

/// What to send, and where the answers go.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The prompts: JSON lines, or CSV with a header; `-` is standard input.
    ///
    /// JSON lines hold `{"custom_id","employee_id","prompt"}`, or requests as OpenAI's batches have them. CSV has the
    /// column `prompt` and, if wanted, `custom_id` and `employee_id`; any other is refused. A row without a custom_id
    /// is called after its number in a spreadsheet, where the header is row 1: the first one is `row-2`.
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
    /// Where the answers go, one JSON object a line [default: FILE with `.results.jsonl` for its ending].
    #[arg(short, long, value_name = "RESULTS")]
    pub output: Option<PathBuf>,
    /// The agent for lines and rows that name no employee_id.
    #[arg(long, value_name = "ID")]
    pub agent: Option<AgentId>,
    /// Read FILE as CSV, whatever its name; without it that is what `.csv` at its end says.
    #[arg(long)]
    pub csv: bool,
    /// Forget what an earlier run left beside RESULTS, and begin anew. Its batch, if there is one, goes on.
    #[arg(long)]
    pub restart: bool,
    /// Where to send it.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Which batch to read, and where its results go.
#[derive(Debug, Args)]
pub struct ResultsArgs {
    /// The batch.
    pub batch_id: BatchId,
    /// Where the answers go, one JSON object a line; what was not answered goes beside it.
    #[arg(short, long, value_name = "RESULTS")]
    pub output: PathBuf,
    /// Where to ask.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A batch, and where it is.
#[derive(Debug, Args)]
pub struct OneBatch {
    /// The batch.
    pub batch_id: BatchId,
    /// Where to ask.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Which Frontdesk, with which key.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Where Frontdesk is [default: FRONTDESK_URL].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A file that holds the API key [default: the key itself in FRONTDESK_KEY]. There is no option for the key: it
    /// would be seen in lists of processes.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How long a server that cannot be reached, or has no room, is tried again.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = length_of_time)]
    pub patience: Duration,
    /// Show no progress.
    #[arg(short, long)]
    pub quiet: bool,
}

fn length_of_time(text: &str) -> Result<Duration, &'static str> {
    env::parse_duration(text).ok_or("give a length of time such as 20s, 10m or 2h")
}
