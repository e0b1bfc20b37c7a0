//! A file without a name that holds the lines of a batch until they are on the queue: whatever happens, nothing is left
//! of it.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write as _},
    path::Path,
};

use common::domain::{
    ids::AgentId,
    job::{Price, Turn},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much of the file is written or read at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// A line that was judged to be good.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SpooledLine {
    /// Which line of the body, from 1.
    #[serde(rename = "l")]
    pub number: u32,
    /// How its caller names it.
    #[serde(rename = "c")]
    pub custom_id: String,
    /// Who is to answer.
    #[serde(rename = "a")]
    pub agent: AgentId,
    /// In which version.
    #[serde(rename = "v")]
    pub agent_version: i32,
    /// What its tokens cost.
    #[serde(rename = "p")]
    pub price: Price,
    /// The conversation.
    #[serde(rename = "t")]
    pub turns: Vec<Turn>,
    /// Whether its caller marked the beginning of a conversation.
    #[serde(rename = "n", default, skip_serializing_if = "std::ops::Not::not")]
    pub new_chat: bool,
    /// What the caller wants to find again with the message.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// The file while it is written. Its methods block.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    lines: u32,
    costs: bool,
}

/// The file once it is whole.
#[derive(Debug)]
pub struct Spooled {
    file: File,
    /// How many lines it holds.
    pub lines: u32,
    /// Whether any of them costs anything.
    pub costs: bool,
}

/// The file while it is read. Its methods block.
#[derive(Debug)]
pub struct Reader(BufReader<File>);

impl Spool {
    /// An empty one in `folder`.
    ///
    /// # Errors
    /// When there is no room or no such folder.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(folder)?);
        Ok(Self { file, lines: 0, costs: false })
    }

    /// Writes `line`.
    ///
    /// # Errors
    /// When there is no room.
    pub fn push(&mut self, line: &SpooledLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")?;
        self.lines += 1;
        self.costs |= !line.price.is_free();
        Ok(())
    }

    /// How many lines it holds.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When there is no room.
    pub fn finish(self) -> io::Result<Spooled> {
        let Self { file, lines, costs } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Spooled { file, lines, costs })
    }
}

impl Spooled {
    /// Reads it from its beginning. There can be one reader at a time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn reader(&self) -> io::Result<Reader> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(Reader(BufReader::with_capacity(BUFFER, file)))
    }
}

impl Reader {
    /// The next lines, of about `bytes` together; none after the last one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_portion(&mut self, bytes: usize) -> io::Result<Vec<SpooledLine>> {
        let (mut lines, mut taken, mut text) = (Vec::new(), 0, Vec::new());
        while taken < bytes {
            text.clear();
            let read = self.0.read_until(b'\n', &mut text)?;
            if read == 0 {
                break;
            }
            taken += read;
            lines.push(serde_json::from_slice(&text)?);
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u32, text: &str) -> SpooledLine {
        SpooledLine {
            number,
            custom_id: format!("{number}\n"),
            agent: AgentId::new(),
            agent_version: 2,
            price: Price { input: i64::from(number == 2), output: 0 },
            turns: vec![Turn::user(text)],
            new_chat: number == 1,
            metadata: (number == 3).then(Map::new),
        }
    }

    #[test]
    fn lines_come_back_in_portions_as_they_were() {
        let mut spool = Spool::create(&std::env::temp_dir()).expect("room");
        let lines = [line(1, "a\nb"), line(2, &"x".repeat(60_000)), line(3, &"y".repeat(60_000)), line(9, "")];
        for line in &lines {
            spool.push(line).expect("room");
        }
        let spooled = spool.finish().expect("room");
        assert_eq!((spooled.lines, spooled.costs), (4, true));
        for _ in 0..2 {
            let mut reader = spooled.reader().expect("to read");
            let mut next = || reader.next_portion(100_000).expect("to read");
            let (first, second) = (next(), next());
            assert_eq!((first.len(), second.len()), (3, 1));
            assert_eq!(first.into_iter().chain(second).collect::<Vec<_>>(), lines);
            assert_eq!(next(), []);
        }
    }

    #[test]
    fn nothing_stands_in_the_folder() {
        let folder = std::env::temp_dir().join(format!("spool-{}", AgentId::new()));
        std::fs::create_dir(&folder).expect("a folder");
        let spool = Spool::create(&folder).expect("room");
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0);
        drop(spool);
        std::fs::remove_dir(&folder).expect("an empty folder");
        assert!(Spool::create(&folder).is_err());
    }
}
