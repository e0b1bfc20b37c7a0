//! Logs: what is written, in which form, and where to. The one home of tracing-subscriber.

mod lines;

use std::{io::IsTerminal as _, panic::PanicHookInfo, str::FromStr, time::Duration};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter,
    filter::{ParseError, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

pub use self::lines::LastLines;
use self::lines::Lines;
use crate::env::{self, EnvError};

const FILTER: &str = "FRONTDESK_LOG";
/// The client of NATS tells of every connection; so do we, in our words.
const DEFAULT_FILTER: &str = "info,async_nats=warn";
const FORMAT: &str = "FRONTDESK_LOG_FORMAT";
const GATHER: &str = "FRONTDESK_LOG_GATHER";

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pretty,
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("give pretty or json"),
        }
    }
}

/// Writes logs to the standard error stream from now on, as `FRONTDESK_LOG` (a filter such as
/// `info,gateway=debug`), `FRONTDESK_LOG_FORMAT` (`pretty` or `json`) and `FRONTDESK_LOG_GATHER` (5 ms) say. The
/// standard output is left to what commands print. Call it once, first of all, and keep what it returns to the end.
pub fn init_from_environment() -> Result<LastLines, EnvError> {
    let directives = env::text(FILTER).unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let filter: EnvFilter = directives.parse().map_err(|error: ParseError| env::invalid(FILTER, &directives, error))?;
    let out = Lines::new(std::io::stderr(), env::duration(GATHER, Duration::from_millis(5))?);
    let last = out.last();
    let lines = fmt::layer().with_writer(out).with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(holds_no_message));
    match env::parse(FORMAT, Format::Pretty)? {
        Format::Pretty => registry.with(lines).init(),
        Format::Json => registry.with(lines.json().with_ansi(false)).init(),
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(last)
}

/// Whether such a line may be written at all: the finer ones of the client of NATS hold whole messages, hence prompts
/// and answers, whatever somebody wants to see.
fn holds_no_message(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || !line.target().starts_with("async_nats")
}

/// Says where it was. A formatted message is left out: it may quote a prompt.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(formatted message left out)");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic.location = %location, "a task panicked: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("pretty".parse(), Ok(Format::Pretty));
        assert!("Json".parse::<Format>().is_err());
    }
}
