//! `gateway webhook` and `gateway endpoint`: what callbacks are signed with, and where events go.

use clap::Subcommand;
use common::domain::{
    endpoint::{Endpoint, OLD_SECRET_LIFE},
    event::EventKind,
    ids::{AccountId, EndpointId},
    time::Millis,
};
use serde::Serialize;

use super::{context::Admin, error::AdminError, output::View};

/// What can be done with callbacks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Show the secret that the callbacks of an account's messages are signed with.
    Secret {
        /// The account's name or id.
        account: String,
        /// Make a new one first; the one before signs too for 24 hours.
        #[arg(long)]
        rotate: bool,
    },
}

/// What can be done with endpoints.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List an account's webhook endpoints.
    List {
        /// The account's name or id.
        account: String,
    },
}

#[derive(Debug, Serialize)]
struct SecretView {
    account_id: AccountId,
    account: String,
    secret: String,
    /// Until when the one before signs too; absent when there is none.
    previous_until: Option<String>,
}

impl View for SecretView {
    const COLUMNS: &'static [&'static str] = &["account", "account id", "secret", "the one before signs until"];

    fn cells(&self) -> Vec<String> {
        let until = self.previous_until.clone().unwrap_or_else(|| "there is none".to_owned());
        vec![self.account.clone(), self.account_id.to_string(), self.secret.clone(), until]
    }
}

#[derive(Debug, Serialize)]
struct EndpointView {
    id: EndpointId,
    account_id: AccountId,
    url: String,
    /// Empty: every event.
    events: Vec<EventKind>,
    enabled: bool,
    disabled_reason: Option<&'static str>,
    created_at: String,
}

impl From<Endpoint> for EndpointView {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id,
            account_id: endpoint.account,
            url: endpoint.url,
            events: endpoint.events,
            enabled: endpoint.enabled,
            disabled_reason: endpoint.disabled_reason.map(|reason| reason.name()),
            created_at: endpoint.created_at.to_string(),
        }
    }
}

impl View for EndpointView {
    const COLUMNS: &'static [&'static str] = &["id", "url", "events", "enabled", "created"];

    fn cells(&self) -> Vec<String> {
        let events: Vec<_> = self.events.iter().map(|event| event.name()).collect();
        let enabled = match (self.enabled, self.disabled_reason) {
            (true, _) => "yes".to_owned(),
            (false, None) => "no".to_owned(),
            (false, Some(reason)) => format!("no ({reason})"),
        };
        vec![
            self.id.to_string(),
            self.url.clone(),
            if events.is_empty() { "all".to_owned() } else { events.join("\n") },
            enabled,
            self.created_at.clone(),
        ]
    }
}

/// Carries out one of the commands of `gateway webhook`.
pub async fn run(command: WebhookCommand, admin: &Admin) -> Result<(), AdminError> {
    let WebhookCommand::Secret { account, rotate } = command;
    let account = admin.account(&account).await?;
    let now = Millis::now();
    let secrets = match rotate {
        true => admin.store.rotate_callback_secret(account.id, now.plus(OLD_SECRET_LIFE)).await?,
        false => admin.store.callback_secrets(account.id).await?,
    };
    let view = SecretView {
        account_id: account.id,
        account: account.name,
        secret: secrets.current.reveal(),
        previous_until: secrets.previous_until(now).map(|until| until.to_string()),
    };
    Ok(admin.output.one(&view)?)
}

/// Carries out one of the commands of `gateway endpoint`.
pub async fn run_endpoint(command: EndpointCommand, admin: &Admin) -> Result<(), AdminError> {
    let EndpointCommand::List { account } = command;
    let account = admin.account(&account).await?;
    let endpoints = admin.store.endpoints(account.id).await?;
    let views: Vec<EndpointView> = endpoints.into_iter().map(Into::into).collect();
    Ok(admin.output.list(&views)?)
}
