//! What commands print: JSON or tables on stdout, everything else on stderr.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
};

use comfy_table::{Table, presets};
use serde::Serialize;

/// Something that commands show, one at a time or as rows of a table. Its JSON is what scripts build on:
/// fields are added, never renamed.
pub trait View: Serialize {
    /// The heads of the table.
    const COLUMNS: &'static [&'static str];

    /// One text per column.
    fn cells(&self) -> Vec<String>;

    /// What is shown of a single one: the columns, unless there is more to say.
    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::COLUMNS.iter().copied().zip(self.cells()).collect()
    }
}

/// Where results and messages go.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    /// JSON on stdout, or tables: framed on a terminal, plain elsewhere.
    pub fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Prints any number of things: a JSON array or a table.
    pub fn list<V: View>(&self, views: &[V]) -> io::Result<()> {
        if self.json {
            return print(&to_json(views)?);
        }
        print(&rows(self.table(), views))
    }

    /// Prints one thing: a JSON object or a line per field.
    pub fn one<V: View>(&self, view: &V) -> io::Result<()> {
        if self.json {
            return print(&to_json(view)?);
        }
        let mut table = self.table();
        for (name, value) in view.fields() {
            table.add_row([name, &printable(&value)]);
        }
        print(&table.trim_fmt())
    }

    /// Tells the operator something that is not part of the result.
    pub fn note(&self, text: &str) {
        complain("", text);
    }

    /// Tells the operator of something that did not work and does not undo the rest.
    pub fn warn(&self, text: &str) {
        complain("warning: ", text);
    }

    /// Says why the command failed, with the causes.
    pub fn error(&self, error: &dyn Error) {
        complain("error: ", &with_causes(error));
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(if self.terminal { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING });
        table
    }
}

/// A plain table, to stand in a field of something larger.
pub fn inner_table<V: View>(views: &[V]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    rows(table, views)
}

fn rows<V: View>(mut table: Table, views: &[V]) -> String {
    table.set_header(V::COLUMNS);
    for view in views {
        table.add_row(view.cells().iter().map(|cell| printable(cell)));
    }
    table.trim_fmt()
}

/// The texts of an error and its causes, leaving out a cause that the text before it already ends with.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Control characters made visible: texts from callers must not command the operator's terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn to_json<V: Serialize + ?Sized>(value: &V) -> io::Result<String> {
    serde_json::to_string_pretty(value).map_err(io::Error::other)
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

fn complain(prefix: &str, text: &str) {
    // With stderr gone there is nowhere left to say so.
    let _ = writeln!(io::stderr().lock(), "{prefix}{}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\u{9b}c ä"), "a\\u{1b}[2Jb\\r\n\\u{9b}c ä");
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not open it")]
        struct Outer(#[source] io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("could not open it: {0}")]
        struct Repeating(#[source] io::Error);
        assert_eq!(with_causes(&Outer(io::Error::other("no disk"))), "could not open it: no disk");
        assert_eq!(with_causes(&Repeating(io::Error::other("no disk"))), "could not open it: no disk");
    }
}
