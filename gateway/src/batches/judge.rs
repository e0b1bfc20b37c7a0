//! Judges the lines of a batch one by one, and keeps the good ones in its spool. All of it blocks.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    io,
    sync::Arc,
};

use common::domain::{ids::AgentId, job::Price};

use super::{
    line::{LineRequest, ReadLine},
    rules::{CUSTOM_ID_CHARACTERS, LINE_BYTES, MOST_LINES},
    splitter::Line,
    spool::{Spool, Spooled, SpooledLine},
};
use crate::{
    auth::caller::Caller,
    directory::roster::{Named, Roster},
    error::ApiError,
    fields::{FieldFault, Fields},
    prices::Prices,
    refused::Refused,
};

/// What lines are judged by.
pub struct Standards {
    /// Who sends them.
    pub caller: Arc<Caller>,
    /// The agents of the account.
    pub roster: Arc<Roster>,
    /// What models cost.
    pub prices: Arc<Prices>,
}

/// Why the judging came to an end before the lines did.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// There are more lines than a batch may have.
    #[error("more than {MOST_LINES} lines")]
    TooMany,
    /// They cannot be kept.
    #[error("could not write to the spool")]
    Spool(#[from] io::Error),
}

/// What came of all lines.
#[derive(Debug)]
pub struct Judged {
    /// The good ones.
    pub spooled: Spooled,
    /// The others.
    pub refused: Refused,
}

/// Keeps lines that were understood, if their agents can be asked.
pub struct Keeper {
    standards: Standards,
    spool: Spool,
    refused: Refused,
}

impl Keeper {
    /// Keeps in `spool` what passes `standards`.
    pub fn new(standards: Standards, spool: Spool) -> Self {
        Self { standards, spool, refused: Refused::default() }
    }

    /// Keeps the line `number`, or notes why it cannot be used.
    ///
    /// # Errors
    /// When no more lines can be kept.
    pub fn keep(&mut self, number: u32, custom_id: String, request: LineRequest) -> Result<(), Stopped> {
        let LineRequest { agent, turns, new_chat, metadata } = request;
        let (agent, agent_version, price) = match self.standards.agent(&agent) {
            Ok(found) => found,
            Err(fault) => {
                self.refused.note(number, fault.into_fault().sentence());
                return Ok(());
            }
        };
        let line = SpooledLine { number, custom_id, agent, agent_version, price, turns, new_chat, metadata };
        Ok(self.spool.push(&line)?)
    }

    /// What came of all lines.
    ///
    /// # Errors
    /// When the last ones cannot be kept.
    pub fn finish(self) -> Result<Judged, Stopped> {
        Ok(Judged { spooled: self.spool.finish()?, refused: self.refused })
    }
}

impl Standards {
    fn agent(&self, named: &Named) -> Result<(AgentId, i32, Price), ApiError> {
        let agent = self.roster.find(named, &self.caller.key)?;
        Ok((agent.id, agent.version, self.prices.of(&agent.model)))
    }
}

/// Judges lines as they were sent.
pub struct Judge {
    keeper: Keeper,
    read: ReadLine,
    /// The `custom_id`s so far, and the lines that have them.
    seen: HashMap<(u64, u64), u32>,
    hashes: (RandomState, RandomState),
    count: u32,
}

impl Judge {
    /// Leaves to `keeper` what `read` understands.
    pub fn new(keeper: Keeper, read: ReadLine) -> Self {
        let hashes = (RandomState::new(), RandomState::new());
        Self { keeper, read, seen: HashMap::new(), hashes, count: 0 }
    }

    /// Judges `line`.
    ///
    /// # Errors
    /// When no more lines can be judged; a bad line is no error.
    pub fn take(&mut self, line: Line<'_>) -> Result<(), Stopped> {
        self.count += 1;
        if self.count > MOST_LINES {
            return Err(Stopped::TooMany);
        }
        match self.understand(line) {
            Ok((custom_id, request)) => self.keeper.keep(line.number, custom_id, request),
            Err(FieldFault(sentence)) => {
                self.keeper.refused.note(line.number, sentence);
                Ok(())
            }
        }
    }

    /// What came of all lines.
    ///
    /// # Errors
    /// When the last ones cannot be kept.
    pub fn finish(self) -> Result<Judged, Stopped> {
        self.keeper.finish()
    }

    fn understand(&mut self, line: Line<'_>) -> Result<(String, LineRequest), FieldFault> {
        let text = line.text.ok_or_else(|| FieldFault(format!("the line is longer than {LINE_BYTES} bytes")))?;
        let mut fields = Fields::parse_line(text)?;
        let custom_id = custom_id(&mut fields)?;
        let mark = (self.hashes.0.hash_one(&custom_id), self.hashes.1.hash_one(&custom_id));
        match self.seen.entry(mark) {
            Entry::Vacant(entry) => entry.insert(line.number),
            Entry::Occupied(entry) => {
                return Err(FieldFault(format!("`custom_id` is that of line {} too", entry.get())));
            }
        };
        Ok((custom_id, (self.read)(fields)?))
    }
}

/// The `custom_id` of the line in `fields`.
fn custom_id(fields: &mut Fields) -> Result<String, FieldFault> {
    let id = fields.text("custom_id")?;
    if id.is_empty() {
        return Err(fields.fault("custom_id", "must not be empty"));
    }
    if id.chars().nth(CUSTOM_ID_CHARACTERS).is_some() {
        return Err(fields.fault("custom_id", &format!("is longer than {CUSTOM_ID_CHARACTERS} characters")));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use common::domain::{
        account::Account,
        agent::{Agent, AgentSpec},
        channel::ChannelSet,
        ids::{AccountId, KeyId},
        job::Turn,
        key::ApiKey,
        time::Millis,
    };

    use super::*;

    fn caller(account: AccountId) -> Arc<Caller> {
        let account = Account {
            id: account,
            name: String::new(),
            email: String::new(),
            email_verified: true,
            channels: ChannelSet::default(),
            balance: 0,
            has_endpoints: false,
            created_at: Millis(0),
        };
        let key = ApiKey {
            id: KeyId::new(),
            account_id: account.id,
            name: String::new(),
            last_four: String::new(),
            agents: None,
            created_at: Millis(0),
            revoked_at: None,
        };
        Arc::new(Caller { account, key })
    }

    fn agent(account_id: AccountId) -> Agent {
        let spec = AgentSpec {
            name: "Ada".to_owned(),
            description: String::new(),
            provider: None,
            model: "demo".to_owned(),
            instructions: String::new(),
            temperature: None,
            max_output_tokens: None,
        };
        Agent { id: AgentId::new(), account_id, version: 3, spec }
    }

    /// Understands `{"prompt": …}`, for an agent named Ada or as `agent` says.
    fn read(mut fields: Fields) -> Result<LineRequest, FieldFault> {
        let name = fields.optional_text("agent")?.unwrap_or_else(|| "Ada".to_owned());
        let turns = vec![Turn::user(fields.words("prompt")?)];
        Ok(LineRequest { agent: Named::Name(name), turns, new_chat: false, metadata: None })
    }

    fn judge() -> Judge {
        let account = AccountId::new();
        let roster = Arc::new(Roster::of(vec![agent(account)]));
        let prices = Arc::new("demo=1:0".parse().expect("prices"));
        let spool = Spool::create(&std::env::temp_dir()).expect("room");
        Judge::new(Keeper::new(Standards { caller: caller(account), roster, prices }, spool), read)
    }

    fn judged(lines: &[&str]) -> Judged {
        let mut judge = judge();
        for (number, line) in (1..).zip(lines) {
            judge.take(Line { number, text: Some(line.as_bytes()) }).expect("few lines");
        }
        judge.finish().expect("room")
    }

    #[test]
    fn good_lines_are_kept_and_bad_ones_named() {
        let Judged { spooled, refused } = judged(&[
            r#"{"custom_id":"a","prompt":"hi"}"#,
            r#"{"custom_id":"a","prompt":"hi"}"#,
            r#"{"prompt":"hi"}"#,
            r#"{"custom_id":"","prompt":"hi"}"#,
            r#"{"custom_id":"b","prompt":"hi","agent":"Bob"}"#,
            r#"{"custom_id":"b","prompt":"hi"}"#,
            r#"{"custom_id":"c","prompt":""}"#,
            "{",
            r#"{"custom_id":"d","prompt":"hi"}"#,
        ]);
        let named: Vec<_> = refused.named.iter().map(|line| (line.line, line.error.as_str())).collect();
        assert_eq!(
            named,
            [
                (2, "`custom_id` is that of line 1 too"),
                (3, "`custom_id` is missing"),
                (4, "`custom_id` must not be empty"),
                (5, "there is no such agent in this account"),
                (6, "`custom_id` is that of line 5 too"),
                (7, "`prompt` must not be empty"),
                (8, "the line is not usable JSON: EOF while parsing an object at column 1"),
            ]
        );
        assert_eq!((refused.count, spooled.lines, spooled.costs), (7, 2, true));
        let kept = spooled.reader().expect("to read").next_portion(usize::MAX).expect("to read");
        let kept: Vec<_> = kept.iter().map(|line| (line.number, line.custom_id.as_str(), line.agent_version)).collect();
        assert_eq!(kept, [(1, "a", 3), (9, "d", 3)]);
    }

    #[test]
    fn a_custom_id_has_up_to_255_characters() {
        let longest = "ü".repeat(255);
        let line = |id: &str| format!(r#"{{"custom_id":"{id}","prompt":"hi"}}"#);
        let Judged { spooled, refused } = judged(&[&line(&longest), &line(&format!("{longest}x"))]);
        assert_eq!((spooled.lines, refused.named[0].line), (1, 2));
        assert_eq!(refused.named[0].error, "`custom_id` is longer than 255 characters");
    }

    #[test]
    fn there_are_50000_lines_at_most_good_or_bad() {
        let mut judge = judge();
        for number in 1..=MOST_LINES {
            judge.take(Line { number, text: None }).expect("not too many");
        }
        let one_more = judge.take(Line { number: MOST_LINES + 1, text: None });
        assert!(matches!(one_more, Err(Stopped::TooMany)));
        let Judged { refused, .. } = judge.finish().expect("room");
        assert_eq!((refused.count, refused.named.len()), (MOST_LINES, 100));
        assert_eq!(refused.named[0].error, "the line is longer than 65536 bytes");
    }
}
