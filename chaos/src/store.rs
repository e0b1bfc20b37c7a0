//! What the database holds at the end of a row, read past the product.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use tests::database::query;

/// How ends are called.
const ENDS: [&str; 4] = ["completed", "failed", "cancelled", "expired"];

/// A stored message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Its status.
    pub status: String,
    /// What it was billed for: tokens in and out.
    pub tokens: (u64, u64),
    /// How often it was begun.
    pub attempts: u32,
    /// Its batch, if it is a line of one.
    pub batch: Option<String>,
    /// Why it failed; empty when it did not.
    pub failure: String,
    /// Its answer; empty when there is none.
    pub content: String,
    /// Its prompt, as it is stored.
    pub prompt: String,
}

impl Message {
    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        ENDS.contains(&self.status.as_str())
    }
}

/// All of it.
#[derive(Debug)]
pub struct Store {
    /// Messages by id.
    pub messages: BTreeMap<String, Message>,
    /// What the ledger charges, by message: tokens in and out of each entry.
    pub charges: BTreeMap<String, Vec<(u64, u64)>>,
    /// What batches count: total, and the sum of what has ended, by id.
    pub batches: BTreeMap<String, (u64, u64)>,
    /// The lines noted in the results of batches, each as often as it stands there.
    pub results: Vec<String>,
}

impl Store {
    /// Reads the database at `url`.
    pub fn read(url: &str) -> Result<Self> {
        let id = |column: &str| match url.starts_with("sqlite:") {
            true => format!("lower(hex({column}))"),
            false => format!("replace({column}::text, '-', '')"),
        };
        let (own, batch, line) = (id("id"), id("batch_id"), id("message_id"));
        let messages = format!(
            "SELECT {own}, status, input_tokens, output_tokens, attempts, {batch}, error_code, content, prompt FROM messages"
        );
        let charges = format!("SELECT {own}, input_tokens, output_tokens FROM ledger WHERE kind = 'charge'");
        let batches = format!("SELECT {own}, total, completed + failed + cancelled FROM batches");
        let mut store = Self {
            messages: BTreeMap::new(),
            charges: BTreeMap::new(),
            batches: BTreeMap::new(),
            results: lines(url, &format!("SELECT {line} FROM batch_results"))?,
        };
        for row in lines(url, &messages)? {
            let message = message(&row).with_context(|| format!("a row of messages: {row}"))?;
            store.messages.insert(message.id.clone(), message);
        }
        for row in lines(url, &charges)? {
            let (id, tokens) = pair(&row).with_context(|| format!("a row of the ledger: {row}"))?;
            store.charges.entry(id).or_default().push(tokens);
        }
        for row in lines(url, &batches)? {
            let (id, counts) = pair(&row).with_context(|| format!("a row of batches: {row}"))?;
            store.batches.insert(id, counts);
        }
        Ok(store)
    }

    /// How many messages in the database at `url` have not ended.
    pub fn unfinished(url: &str) -> Result<u64> {
        let ends = ENDS.map(|end| format!("'{end}'")).join(", ");
        let count = query(url, &format!("SELECT count(*) FROM messages WHERE status NOT IN ({ends})"))?;
        count.parse().with_context(|| format!("a count of messages: {count}"))
    }

    /// What is wrong with the database at `url` itself, as it says.
    pub fn broken(url: &str) -> Result<Option<String>> {
        if !url.starts_with("sqlite:") {
            return Ok(None);
        }
        Ok(Some(query(url, "PRAGMA integrity_check")?).filter(|said| said != "ok"))
    }

    /// How many messages ended without an answer, by why; but for those that `may_fail`.
    pub fn failures(&self, may_fail: impl Fn(&Message) -> bool) -> BTreeMap<&str, usize> {
        let mut failures = BTreeMap::new();
        let failed = self.messages.values().filter(|message| message.has_ended() && message.status != "completed");
        for message in failed.filter(|message| !may_fail(message)) {
            *failures.entry(message.failure.as_str()).or_default() += 1;
        }
        failures
    }

    /// The ids of those that have ended.
    pub fn ended(&self) -> BTreeSet<&str> {
        self.messages.values().filter(|message| message.has_ended()).map(|message| message.id.as_str()).collect()
    }
}

/// An id as the store's queries give it.
pub fn plain(id: &str) -> String {
    id.replace('-', "")
}

fn lines(url: &str, statement: &str) -> Result<Vec<String>> {
    Ok(query(url, statement)?.lines().map(str::to_owned).collect())
}

fn message(row: &str) -> Option<Message> {
    let mut columns = row.splitn(9, '|');
    let mut next = || columns.next();
    let (id, status) = (next()?.to_owned(), next()?.to_owned());
    let tokens = (next()?.parse().ok()?, next()?.parse().ok()?);
    let attempts = next()?.parse().ok()?;
    let batch = Some(next()?.to_owned()).filter(|batch| !batch.is_empty());
    let (failure, content, prompt) = (next()?.to_owned(), next()?.to_owned(), next()?.to_owned());
    Some(Message { id, status, tokens, attempts, batch, failure, content, prompt })
}

fn pair(row: &str) -> Option<(String, (u64, u64))> {
    let mut columns = row.split('|');
    let id = columns.next()?.to_owned();
    Some((id, (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?)))
}
