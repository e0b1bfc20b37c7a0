//! Which operator's command goes where, and how its end becomes an exit code.

use std::{io, process::ExitCode};

use clap::Subcommand;

use super::{
    accounts::{self, AccountCommand},
    agents::{self, AgentCommand},
    channels::{self, ChannelCommand},
    context::{self, Admin},
    credits::{self, CreditCommand},
    dead_letters::{self, DeadCommand},
    error::AdminError,
    keys::{self, KeyCommand},
    migrate,
    output::Output,
    usage::{self, UsageArgs},
    webhooks::{self, EndpointCommand, WebhookCommand},
};

/// The operator's commands.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Bring the database and the streams to what this version needs.
    Migrate,
    /// Accounts: who owns agents and keys, and who pays.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Keys: what callers authenticate with.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Channels: the ways in, switched per account.
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Agents: what answers.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Credits: what an account may spend.
    #[command(subcommand)]
    Credit(CreditCommand),
    /// What an account used, per day, key and agent.
    Usage(UsageArgs),
    /// Webhooks: what the callbacks of messages are signed with.
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Endpoints: where an account's events go.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Dead letters: jobs that were given up.
    #[command(subcommand)]
    Dead(DeadCommand),
}

/// Runs one command: its result on stdout, as JSON or as a table, and what went wrong on stderr.
pub async fn run(command: AdminCommand, json: bool) -> ExitCode {
    let output = Output::new(json);
    match dispatch(command, &output).await {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us, such as `head`, has seen enough.
        Err(AdminError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            error.exit_code()
        }
    }
}

async fn dispatch(command: AdminCommand, output: &Output) -> Result<(), AdminError> {
    match command {
        AdminCommand::Migrate => migrate::run(output).await,
        AdminCommand::Dead(command) => dead_letters::run(command, &context::queue_config()?, output).await,
        AdminCommand::Account(command) => accounts::run(command, &Admin::connect(output).await?).await,
        AdminCommand::Key(command) => keys::run(command, &Admin::connect(output).await?).await,
        AdminCommand::Channel(command) => channels::run(command, &Admin::connect(output).await?).await,
        AdminCommand::Agent(command) => agents::run(command, &Admin::connect(output).await?).await,
        AdminCommand::Credit(command) => credits::run(command, &Admin::connect(output).await?).await,
        AdminCommand::Webhook(command) => webhooks::run(command, &Admin::connect(output).await?).await,
        AdminCommand::Endpoint(command) => webhooks::run_endpoint(command, &Admin::connect(output).await?).await,
        AdminCommand::Usage(args) => usage::run(args, &Admin::connect(output).await?).await,
    }
}
