//! `gateway credit`: what an account may spend.

use clap::Subcommand;
use common::{
    domain::{
        account::MicroCredits,
        ids::{AccountId, AgentId, EntryId, KeyId},
    },
    queue::signals::Changed,
    store::credits::LedgerEntry,
};
use serde::Serialize;

use super::{
    amount::Amount,
    context::Admin,
    error::AdminError,
    names,
    output::{View, inner_table},
};

/// What can be done with credits.
#[derive(Debug, Subcommand)]
pub enum CreditCommand {
    /// Add credits to an account; a negative amount takes them back.
    Grant {
        /// The account's name or id.
        account: String,
        /// Credits, with up to six decimals.
        #[arg(allow_negative_numbers = true)]
        amount: Amount,
        /// What it is for.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Show an account's balance.
    Show {
        /// The account's name or id.
        account: String,
        /// Show so many of the newest entries of the ledger too.
        #[arg(long, value_name = "N", default_value_t = 0)]
        ledger: u32,
    },
}

#[derive(Debug, Serialize)]
struct BalanceView {
    account_id: AccountId,
    account: String,
    balance_micro_credits: MicroCredits,
    /// The newest first.
    ledger: Vec<EntryView>,
}

#[derive(Debug, Serialize)]
struct EntryView {
    /// Of a charge: the message's id.
    id: EntryId,
    kind: &'static str,
    amount_micro_credits: MicroCredits,
    created_at: String,
    note: Option<String>,
    key_id: Option<KeyId>,
    agent_id: Option<AgentId>,
    model: Option<String>,
    input_tokens: u32,
    output_tokens: u32,
    estimated: bool,
}

impl From<LedgerEntry> for EntryView {
    fn from(entry: LedgerEntry) -> Self {
        Self {
            id: entry.id,
            kind: entry.kind.name(),
            amount_micro_credits: entry.amount,
            created_at: entry.created_at.to_string(),
            note: entry.note.filter(|note| !note.is_empty()),
            key_id: entry.key_id,
            agent_id: entry.agent_id,
            model: entry.model,
            input_tokens: entry.usage.input_tokens,
            output_tokens: entry.usage.output_tokens,
            estimated: entry.usage.estimated,
        }
    }
}

impl View for EntryView {
    const COLUMNS: &'static [&'static str] =
        &["time", "kind", "credits", "tokens in", "tokens out", "model", "note", "id"];

    fn cells(&self) -> Vec<String> {
        let tokens = |count: u32| if self.estimated { format!("~{count}") } else { count.to_string() };
        vec![
            self.created_at.clone(),
            self.kind.to_owned(),
            Amount(self.amount_micro_credits).to_string(),
            tokens(self.input_tokens),
            tokens(self.output_tokens),
            self.model.clone().unwrap_or_default(),
            self.note.clone().unwrap_or_default(),
            self.id.to_string(),
        ]
    }
}

impl View for BalanceView {
    const COLUMNS: &'static [&'static str] = &["account", "account id", "credits"];

    fn cells(&self) -> Vec<String> {
        let balance = Amount(self.balance_micro_credits).to_string();
        vec![self.account.clone(), self.account_id.to_string(), balance]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields: Vec<_> = Self::COLUMNS.iter().copied().zip(self.cells()).collect();
        if !self.ledger.is_empty() {
            fields.push(("ledger", inner_table(&self.ledger)));
        }
        fields
    }
}

/// Carries out one of the commands.
pub async fn run(command: CreditCommand, admin: &Admin) -> Result<(), AdminError> {
    match command {
        CreditCommand::Grant { account, amount, note } => grant(admin, &account, amount, &note).await,
        CreditCommand::Show { account, ledger } => show(admin, &account, ledger).await,
    }
}

async fn grant(admin: &Admin, account: &str, amount: Amount, note: &str) -> Result<(), AdminError> {
    names::check_note(note)?;
    if amount == Amount(0) {
        return Err(AdminError::Refused("a grant of nothing".to_owned()));
    }
    let account = admin.account(account).await?;
    let balance = admin.store.grant(account.id, amount.0, note).await?;
    admin.announce(Changed::Accounts).await;
    let view = BalanceView {
        account_id: account.id,
        account: account.name,
        balance_micro_credits: balance,
        ledger: Vec::new(),
    };
    Ok(admin.output.one(&view)?)
}

async fn show(admin: &Admin, account: &str, entries: u32) -> Result<(), AdminError> {
    let account = admin.account(account).await?;
    let ledger = match entries {
        0 => Vec::new(),
        limit => admin.store.ledger(account.id, limit.into()).await?,
    };
    let view = BalanceView {
        account_id: account.id,
        account: account.name,
        balance_micro_credits: account.balance,
        ledger: ledger.into_iter().map(Into::into).collect(),
    };
    Ok(admin.output.one(&view)?)
}
