//! The command line: what the `gateway` binary is asked to do.

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{admin::run::AdminCommand, batch_command::args::BatchCommand};

/// Frontdesk's gateway: serves the HTTP API, and holds the commands of operators and callers.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Print JSON instead of tables (not for `serve`).
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API (the default).
    Serve,
    /// One of the operator's commands.
    #[command(flatten)]
    Admin(AdminCommand),
    /// Batches: many prompts at once, through a running Frontdesk and an API key.
    #[command(subcommand)]
    Batch(BatchCommand),
}

const EXIT_CODES: &str = "Exit codes of the commands: 0 done, 1 failed (database, NATS, or a server that cannot be \
reached), 2 wrong usage, 3 not found, 4 refused (conflict or invalid input), 5 done, but not every prompt of the batch \
was answered, 130 interrupted.";

impl Cli {
    /// Reads the process's arguments; ends it with the usage when they make no sense.
    pub fn from_arguments() -> Self {
        let cli = Self::parse();
        if cli.json && matches!(cli.command, None | Some(Command::Serve)) {
            Self::command().error(ErrorKind::ArgumentConflict, "--json is not for `serve`").exit();
        }
        cli
    }

    /// The command that was given, or else to serve.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_is_the_default() {
        assert!(matches!(parsed("gateway").expect("no arguments").into_command(), Command::Serve));
        assert!(matches!(parsed("gateway serve").expect("serve").into_command(), Command::Serve));
    }

    #[test]
    fn json_may_stand_anywhere() {
        assert!(parsed("gateway --json account list").expect("before").json);
        assert!(parsed("gateway account list --json").expect("after").json);
    }

    #[test]
    fn amounts_may_be_negative() {
        for amount in ["-5", "-0.000001", "12.5"] {
            parsed(&format!("gateway credit grant acme {amount}")).unwrap_or_else(|error| panic!("{amount}: {error}"));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_wrong_usage() {
        for line in [
            "gateway credit grant acme 1.0000001",
            "gateway key revoke not-a-uuid",
            "gateway channel on acme fax",
            "gateway channel on acme",
            "gateway usage acme --from 2026-02-30",
            "gateway fly",
        ] {
            assert_eq!(parsed(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
