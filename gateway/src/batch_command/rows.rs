//! CSV with a header: each row becomes a line of the body.

use std::{io::BufRead, str::from_utf8};

use common::domain::ids::AgentId;
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use serde::Serialize;

use super::{
    body::Body,
    faults::{InputError, MOST_FAULTS},
    wire::InvalidLine,
};

/// What a line of the body holds.
#[derive(Serialize)]
struct Line<'a> {
    custom_id: &'a str,
    employee_id: &'a str,
    prompt: &'a str,
}

/// Where the columns stand.
#[derive(Debug)]
struct Columns {
    count: usize,
    prompt: usize,
    custom_id: Option<usize>,
    employee_id: Option<usize>,
}

/// Writes every row of `reader` to `body`. Row 2, the first behind the header, becomes line 1 and so on; a row without
/// anything in it becomes a blank line.
pub fn convert(reader: impl BufRead, agent: Option<AgentId>, body: &mut Body<'_>) -> Result<(), InputError> {
    // Rows of the wrong length are judged here, so that all of them are named.
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(reader);
    let header = reader.byte_headers().map_err(|error| of_reader(error, body))?;
    let columns = Columns::of(header).map_err(|what| body.bad_header(what))?;
    let agent = agent.map(|agent| agent.to_string());
    let (mut row, mut number, mut faults) = (ByteRecord::new(), 1, Vec::new());
    while reader.read_byte_record(&mut row).map_err(|error| of_reader(error, body))? {
        number += 1;
        match columns.line(&row, number, agent.as_deref()) {
            Ok(line) => body.push(line.as_bytes())?,
            Err(error) => faults.push(InvalidLine { line: number - 1, error }),
        }
    }
    let count = faults.len() as u64;
    faults.truncate(MOST_FAULTS);
    if faults.is_empty() { Ok(()) } else { Err(body.bad_lines(count, faults)) }
}

/// Bytes that are judged here leave the reader no other fault than that it cannot read.
fn of_reader(error: csv::Error, body: &Body<'_>) -> InputError {
    match error.into_kind() {
        ErrorKind::Io(cause) => body.unreadable(cause),
        other => body.bad_header(format!("it cannot be read as CSV: {other:?}")),
    }
}

impl Columns {
    fn of(header: &ByteRecord) -> Result<Self, String> {
        let mut found = [None; 3];
        for (at, name) in header.iter().enumerate() {
            let name = String::from_utf8_lossy(name).trim().to_lowercase();
            let known = ["prompt", "custom_id", "employee_id"].iter().position(|known| *known == name);
            let place = known.ok_or_else(|| {
                format!("unknown column {name:?}: there may be prompt, custom_id and employee_id, separated by commas")
            })?;
            if found[place].replace(at).is_some() {
                return Err(format!("the column {name} is there twice"));
            }
        }
        let [prompt, custom_id, employee_id] = found;
        let prompt = prompt.ok_or("there is no column prompt in its first row")?;
        Ok(Self { count: header.len(), prompt, custom_id, employee_id })
    }

    /// The line of a row with its end, or what is wrong with the row.
    fn line(&self, row: &ByteRecord, number: u64, agent: Option<&str>) -> Result<String, String> {
        if row.iter().all(|field| field.trim_ascii().is_empty()) {
            return Ok("\n".to_owned());
        }
        if row.len() != self.count {
            return Err(format!("it has {} fields, and the header {}", row.len(), self.count));
        }
        let text = |at: usize| from_utf8(&row[at]).map_err(|_| format!("field {} is not UTF-8", at + 1));
        let given =
            |at: Option<usize>| at.map(text).transpose().map(|text| text.map(str::trim).filter(|t| !t.is_empty()));
        let default_id = format!("row-{number}");
        let line = Line {
            custom_id: given(self.custom_id)?.unwrap_or(&default_id),
            employee_id: given(self.employee_id)?
                .or(agent)
                .ok_or("it names no employee_id, and there is no --agent")?,
            prompt: text(self.prompt)?,
        };
        serde_json::to_string(&line).map(|line| line + "\n").map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::batch_command::faults::Numbering;

    const AGENT: &str = "0190b5a0-0000-7000-8000-000000000001";
    const OTHER: &str = "0190b5a0-0000-7000-8000-000000000002";

    fn converted(csv: &[u8], agent: Option<&str>) -> Result<Vec<Value>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("body");
        let agent = agent.map(|id| id.parse().expect("an id"));
        let mut body = Body::create("prompts.csv".to_owned(), Numbering::Rows, &path).expect("a body");
        convert(csv, agent, &mut body).and_then(|()| body.finish()).map_err(|error| error.to_string())?;
        let body = std::fs::read_to_string(&path).expect("the body");
        assert!(body.ends_with('\n'));
        Ok(body.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect())
    }

    fn line(custom_id: &str, employee_id: &str, prompt: &str) -> Value {
        json!({ "custom_id": custom_id, "employee_id": employee_id, "prompt": prompt })
    }

    #[test]
    fn a_row_is_a_line() {
        let csv =
            format!("prompt,custom_id,employee_id\nHello,greeting,{OTHER}\n\" two\nlines, \"\"quoted\"\"\",,\nä,c,\n");
        let expected =
            [line("greeting", OTHER, "Hello"), line("row-3", AGENT, " two\nlines, \"quoted\""), line("c", AGENT, "ä")];
        assert_eq!(converted(csv.as_bytes(), Some(AGENT)).expect("prompts"), expected);
    }

    #[test]
    fn files_of_spreadsheets_are_read() {
        let expected = [line("row-2", AGENT, "Hello"), Value::Null, line("row-4", AGENT, "bye")];
        for csv in ["\u{feff}Custom_ID, Prompt \r\n,Hello\r\n,\r\n,bye", "prompt\nHello\n\" \"\nbye\n\n"] {
            assert_eq!(converted(csv.as_bytes(), Some(AGENT)).expect("prompts"), expected, "{csv:?}");
        }
    }

    #[test]
    fn a_header_names_what_is_known_once() {
        for (csv, what) in [
            ("prompt,colour\na,red\n", "unknown column \"colour\""),
            ("prompt;custom_id\na;b\n", "separated by commas"),
            ("custom_id\na\n", "no column prompt"),
            ("", "no column prompt"),
            ("prompt,Prompt\na,b\n", "twice"),
        ] {
            let error = converted(csv.as_bytes(), Some(AGENT)).expect_err(csv);
            assert!(error.starts_with("prompts.csv: ") && error.contains(what), "{error}");
        }
        assert_eq!(converted(b"prompt\n\n", Some(AGENT)), Err("prompts.csv holds no prompts".to_owned()));
    }

    #[test]
    fn every_bad_row_is_named_as_a_spreadsheet_does() {
        let csv = format!("prompt,employee_id\nfine,{AGENT}\nnobody,\n,\nshort\n\"a\",\"b\",\"c\"\n");
        let mut csv = csv.into_bytes();
        csv.extend(b"\xff,x\n");
        let expected = "nothing is run; prompts.csv has faults:\
            \n  row 3: it names no employee_id, and there is no --agent\
            \n  row 5: it has 1 fields, and the header 2\
            \n  row 6: it has 3 fields, and the header 2\
            \n  row 7: field 1 is not UTF-8";
        assert_eq!(converted(&csv, None), Err(expected.to_owned()));
    }
}
