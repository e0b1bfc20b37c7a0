//! `gateway channel`: the ways in to an account's agents, switched one by one.

use clap::Subcommand;
use common::{
    domain::{account::Account, channel::Channel},
    queue::signals::Changed,
};
use serde::Serialize;

use super::{context::Admin, error::AdminError, output::View};

/// What can be done with channels.
#[derive(Debug, Subcommand)]
pub enum ChannelCommand {
    /// List an account's channels.
    List {
        /// The account's name or id.
        account: String,
    },
    /// Switch channels on.
    On(Switch),
    /// Switch channels off.
    Off(Switch),
}

/// Some channels of one account.
#[derive(Debug, clap::Args)]
pub struct Switch {
    /// The account's name or id.
    account: String,
    /// Any of api, webhooks, mcp, a2a, email.
    #[arg(required = true)]
    channels: Vec<Channel>,
}

#[derive(Debug, Serialize)]
struct ChannelView {
    channel: Channel,
    enabled: bool,
}

impl View for ChannelView {
    const COLUMNS: &'static [&'static str] = &["channel", "state"];

    fn cells(&self) -> Vec<String> {
        vec![self.channel.to_string(), if self.enabled { "on" } else { "off" }.to_owned()]
    }
}

/// Carries out one of the commands.
pub async fn run(command: ChannelCommand, admin: &Admin) -> Result<(), AdminError> {
    match command {
        ChannelCommand::List { account } => show(admin, &admin.account(&account).await?),
        ChannelCommand::On(switch) => set(admin, &switch, true).await,
        ChannelCommand::Off(switch) => set(admin, &switch, false).await,
    }
}

async fn set(admin: &Admin, switch: &Switch, on: bool) -> Result<(), AdminError> {
    let account = admin.account(&switch.account).await?;
    for channel in &switch.channels {
        admin.store.set_channel(account.id, *channel, on).await?;
    }
    admin.announce(Changed::Accounts).await;
    show(admin, &admin.account(&switch.account).await?)
}

fn show(admin: &Admin, account: &Account) -> Result<(), AdminError> {
    let views = Channel::ALL.map(|channel| ChannelView { channel, enabled: account.channels.contains(channel) });
    Ok(admin.output.list(&views)?)
}
