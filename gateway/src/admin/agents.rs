//! `gateway agent`: what answers. Agents come from a declarative file.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use common::{
    domain::{
        account::Account,
        agent::Agent,
        ids::{AccountId, AgentId},
    },
    queue::signals::Changed,
    store::agents::Applied,
};
use serde::Serialize;

use super::{
    agent_file::{self, Entry, Fault},
    context::Admin,
    error::AdminError,
    output::View,
};

/// What can be done with agents.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Make an account's agents as a file says; agents that the file does not name stay as they are.
    Apply {
        /// The account's name or id.
        account: String,
        /// A TOML file of `[[agents]]` with name and model, and optionally id, description, provider, instructions,
        /// temperature and max_output_tokens; `-` for stdin.
        file: PathBuf,
    },
    /// List an account's agents.
    List {
        /// The account's name or id.
        account: String,
    },
    /// Show one agent with its instructions.
    Show {
        /// The agent.
        agent_id: AgentId,
    },
    /// Remove an agent: calls to it are answered 404.
    Remove {
        /// The agent.
        agent_id: AgentId,
    },
}

#[derive(Debug, Serialize)]
struct AgentView {
    id: AgentId,
    account_id: AccountId,
    version: i32,
    name: String,
    description: String,
    provider: Option<String>,
    model: String,
    instructions: String,
    temperature: Option<f64>,
    max_output_tokens: Option<u32>,
}

impl From<Agent> for AgentView {
    fn from(Agent { id, account_id, version, spec }: Agent) -> Self {
        Self {
            id,
            account_id,
            version,
            name: spec.name,
            description: spec.description,
            provider: spec.provider,
            model: spec.model,
            instructions: spec.instructions,
            temperature: spec.temperature,
            max_output_tokens: spec.max_output_tokens,
        }
    }
}

impl View for AgentView {
    const COLUMNS: &'static [&'static str] = &["id", "name", "provider", "model", "version", "description"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.provider.clone().unwrap_or_else(|| "default".to_owned()),
            self.model.clone(),
            self.version.to_string(),
            self.description.clone(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let or_default = |value: Option<String>| value.unwrap_or_else(|| "default".to_owned());
        let mut fields: Vec<_> = Self::COLUMNS.iter().copied().zip(self.cells()).collect();
        fields.push(("account", self.account_id.to_string()));
        fields.push(("temperature", or_default(self.temperature.map(|value| value.to_string()))));
        fields.push(("max output tokens", or_default(self.max_output_tokens.map(|value| value.to_string()))));
        fields.push(("instructions", self.instructions.clone()));
        fields
    }
}

#[derive(Debug, Serialize)]
struct AppliedView {
    /// `created`, `updated` or `unchanged`.
    applied: &'static str,
    #[serde(flatten)]
    agent: AgentView,
}

impl View for AppliedView {
    const COLUMNS: &'static [&'static str] = &["applied", "id", "name", "version"];

    fn cells(&self) -> Vec<String> {
        let agent = &self.agent;
        vec![self.applied.to_owned(), agent.id.to_string(), agent.name.clone(), agent.version.to_string()]
    }
}

#[derive(Debug, Serialize)]
struct RemovedView {
    id: AgentId,
    name: String,
    removed: bool,
}

impl View for RemovedView {
    const COLUMNS: &'static [&'static str] = &["id", "name", "removed"];

    fn cells(&self) -> Vec<String> {
        vec![self.id.to_string(), self.name.clone(), if self.removed { "now" } else { "before" }.to_owned()]
    }
}

/// Carries out one of the commands.
pub async fn run(command: AgentCommand, admin: &Admin) -> Result<(), AdminError> {
    match command {
        AgentCommand::Apply { account, file } => apply(admin, &account, &file).await,
        AgentCommand::List { account } => {
            let account = admin.account(&account).await?;
            let agents: Vec<AgentView> = admin.store.agents(account.id).await?.into_iter().map(Into::into).collect();
            Ok(admin.output.list(&agents)?)
        }
        AgentCommand::Show { agent_id } => Ok(admin.output.one(&AgentView::from(existing(admin, agent_id).await?))?),
        AgentCommand::Remove { agent_id } => remove(admin, agent_id).await,
    }
}

async fn apply(admin: &Admin, account: &str, file: &Path) -> Result<(), AdminError> {
    let refused = |faults: Vec<Fault>| refusal(file, &faults);
    let entries = agent_file::parse(&read(file)?).map_err(refused)?;
    let account = admin.account(account).await?;
    let existing = admin.store.agents(account.id).await?;
    let strangers = strangers(admin, &account, &entries).await?;
    if !strangers.is_empty() {
        return Err(refused(strangers));
    }
    let identified = agent_file::identify(entries, &existing).map_err(refused)?;
    let applied = admin.store.apply_agents(account.id, identified).await?;
    if applied.iter().any(|(_, change)| !matches!(change, Applied::Unchanged)) {
        admin.announce(Changed::Agents).await;
    }
    let views: Vec<_> = applied
        .into_iter()
        .map(|(agent, change)| AppliedView { applied: name_of(change), agent: agent.into() })
        .collect();
    Ok(admin.output.list(&views)?)
}

fn name_of(change: Applied) -> &'static str {
    match change {
        Applied::Created => "created",
        Applied::Updated => "updated",
        Applied::Unchanged => "unchanged",
    }
}

fn read(file: &Path) -> Result<String, AdminError> {
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| AdminError::Refused(format!("could not read {}: {error}", file.display())))
}

fn refusal(file: &Path, faults: &[Fault]) -> AdminError {
    let lines: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    AdminError::Refused(format!("nothing was changed; {} has faults:{}", file.display(), lines.concat()))
}

/// The entries whose id is another account's agent.
async fn strangers(admin: &Admin, account: &Account, entries: &[Entry]) -> Result<Vec<Fault>, AdminError> {
    let mut faults = Vec::new();
    for entry in entries {
        let Some(id) = entry.id else { continue };
        let found = admin.store.agent(id).await?;
        if found.is_some_and(|agent| agent.account_id != account.id) {
            faults.push(Fault::new(entry.line, format!("agent {id} belongs to another account")));
        }
    }
    Ok(faults)
}

async fn existing(admin: &Admin, id: AgentId) -> Result<Agent, AdminError> {
    admin.store.agent(id).await?.ok_or_else(|| AdminError::no_such("agent", id))
}

async fn remove(admin: &Admin, id: AgentId) -> Result<(), AdminError> {
    let agent = existing(admin, id).await?;
    let removed = admin.store.remove_agent(id).await?;
    admin.announce(Changed::Agents).await;
    Ok(admin.output.one(&RemovedView { id, name: agent.spec.name, removed })?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_applied_agent_is_shown_with_what_happened_to_it() {
        let entry = agent_file::parse("[[agents]]\nname = 'Greeter'\nmodel = 'demo'").expect("valid").remove(0);
        let (id, account_id) = (AgentId::new(), AccountId::new());
        let agent = Agent { id, account_id, version: 3, spec: entry.spec };
        let view = AppliedView { applied: name_of(Applied::Updated), agent: agent.into() };
        let expected = json!({
            "applied": "updated", "id": id, "account_id": account_id, "version": 3, "name": "Greeter",
            "description": "", "provider": null, "model": "demo", "instructions": "", "temperature": null,
            "max_output_tokens": null,
        });
        assert_eq!(serde_json::to_value(&view).expect("json"), expected);
        assert_eq!(view.cells().len(), AppliedView::COLUMNS.len());
        assert_eq!(view.agent.cells().len(), AgentView::COLUMNS.len());
    }

    #[test]
    fn a_refusal_names_the_file_and_every_line() {
        let error = refusal(Path::new("a.toml"), &[Fault::new(2, "x"), Fault::new(5, "y")]);
        assert_eq!(error.to_string(), "nothing was changed; a.toml has faults:\n  line 2: x\n  line 5: y");
    }
}
