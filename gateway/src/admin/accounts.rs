//! `gateway account`: who owns agents and keys, and who pays.

use clap::Subcommand;
use common::{
    domain::{
        account::{Account, MicroCredits},
        channel::Channel,
        ids::AccountId,
    },
    queue::signals::Changed,
};
use serde::Serialize;

use super::{amount::Amount, context::Admin, error::AdminError, names, output::View};

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account. All its channels are off.
    Create {
        /// A unique name.
        name: String,
        /// The owner's address.
        #[arg(long)]
        email: String,
        /// The address is known to be the owner's.
        #[arg(long)]
        verified: bool,
    },
    /// List all accounts.
    List,
    /// Show one account.
    Show {
        /// Its name or id.
        account: String,
    },
    /// Say that the address is verified: without it every call is refused.
    Verify {
        /// Its name or id.
        account: String,
    },
    /// Say that the address is not verified.
    Unverify {
        /// Its name or id.
        account: String,
    },
}

/// An account as it is shown.
#[derive(Debug, Serialize)]
pub struct AccountView {
    id: AccountId,
    name: String,
    email: String,
    email_verified: bool,
    channels: Vec<Channel>,
    balance_micro_credits: MicroCredits,
    created_at: String,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            name: account.name,
            email: account.email,
            email_verified: account.email_verified,
            channels: Channel::ALL.into_iter().filter(|channel| account.channels.contains(*channel)).collect(),
            balance_micro_credits: account.balance,
            created_at: account.created_at.to_string(),
        }
    }
}

impl View for AccountView {
    const COLUMNS: &'static [&'static str] = &["id", "name", "email", "verified", "channels", "credits", "created"];

    fn cells(&self) -> Vec<String> {
        let channels: Vec<_> = self.channels.iter().map(|channel| channel.name()).collect();
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.email.clone(),
            if self.email_verified { "yes" } else { "no" }.to_owned(),
            if channels.is_empty() { "none".to_owned() } else { channels.join(", ") },
            Amount(self.balance_micro_credits).to_string(),
            self.created_at.clone(),
        ]
    }
}

/// Carries out one of the commands.
pub async fn run(command: AccountCommand, admin: &Admin) -> Result<(), AdminError> {
    match command {
        AccountCommand::Create { name, email, verified } => create(admin, &name, &email, verified).await,
        AccountCommand::List => {
            let accounts: Vec<AccountView> = admin.store.accounts().await?.into_iter().map(Into::into).collect();
            Ok(admin.output.list(&accounts)?)
        }
        AccountCommand::Show { account } => show(admin, &account).await,
        AccountCommand::Verify { account } => set_verified(admin, &account, true).await,
        AccountCommand::Unverify { account } => set_verified(admin, &account, false).await,
    }
}

async fn create(admin: &Admin, name: &str, email: &str, verified: bool) -> Result<(), AdminError> {
    names::check_account_name(name)?;
    names::check_email(email)?;
    let mut account = admin.store.create_account(name, email).await?;
    if verified {
        admin.store.set_email_verified(account.id, true).await?;
        account.email_verified = true;
    }
    // No gateway can have cached anything of an account that was not there: nothing to announce.
    Ok(admin.output.one(&AccountView::from(account))?)
}

async fn show(admin: &Admin, name_or_id: &str) -> Result<(), AdminError> {
    let account = admin.account(name_or_id).await?;
    Ok(admin.output.one(&AccountView::from(account))?)
}

async fn set_verified(admin: &Admin, name_or_id: &str, verified: bool) -> Result<(), AdminError> {
    let account = admin.account(name_or_id).await?;
    admin.store.set_email_verified(account.id, verified).await?;
    admin.announce(Changed::Accounts).await;
    show(admin, name_or_id).await
}

#[cfg(test)]
mod tests {
    use common::domain::{channel::ChannelSet, time::Millis};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_is_shown_with_its_channels_and_balance() {
        let account = Account {
            id: "0190b5a0-0000-7000-8000-000000000000".parse().expect("an id"),
            name: "acme".to_owned(),
            email: "ops@acme.example".to_owned(),
            email_verified: true,
            channels: ChannelSet::default().with(Channel::Api, true).with(Channel::A2a, true),
            balance: -1_500_000,
            has_endpoints: false,
            created_at: Millis(1_795_253_400_125),
        };
        let view = AccountView::from(account);
        assert_eq!(view.cells().len(), AccountView::COLUMNS.len());
        assert_eq!(view.cells()[5], "-1.5");
        let expected = json!({
            "id": "0190b5a0-0000-7000-8000-000000000000",
            "name": "acme",
            "email": "ops@acme.example",
            "email_verified": true,
            "channels": ["api", "a2a"],
            "balance_micro_credits": -1_500_000,
            "created_at": "2026-11-21T09:30:00.125Z",
        });
        assert_eq!(serde_json::to_value(&view).expect("json"), expected);
    }
}
