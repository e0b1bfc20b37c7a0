//! `gateway key`: what callers authenticate with. A secret is shown once, when its key is made.

use std::{collections::BTreeSet, time::Duration};

use clap::Subcommand;
use common::{
    domain::{
        account::Account,
        ids::{AccountId, AgentId, GatewayId, KeyId},
        key::{self, ApiKey, Secret},
    },
    env::{self, EnvError},
    queue::signals::Changed,
    store::gateways::LiveGateway,
};
use serde::Serialize;

use super::{
    context::{Admin, NOTICE_LATER},
    error::AdminError,
    names,
    output::{View, with_causes},
};

/// How long `key revoke` waits for running gateways to confirm.
const REVOCATION_WAIT: Duration = Duration::from_secs(1);

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key. Its secret is shown this once and never again.
    Create {
        /// The account's name or id.
        account: String,
        /// A name to tell the key by.
        name: String,
        /// An agent that the key may use; repeat it for more. Without any: all agents of the account.
        #[arg(long = "agent", value_name = "AGENT_ID")]
        agents: Vec<AgentId>,
    },
    /// List an account's keys, the revoked ones too.
    List {
        /// The account's name or id.
        account: String,
    },
    /// Give a key another name.
    Rename {
        /// The key.
        key_id: KeyId,
        /// Its new name.
        name: String,
    },
    /// Refuse a key from now on, on every channel.
    Revoke {
        /// The key.
        key_id: KeyId,
    },
}

#[derive(Debug, Serialize)]
struct KeyView {
    id: KeyId,
    account_id: AccountId,
    name: String,
    last_four: String,
    agents: Option<Vec<AgentId>>,
    created_at: String,
    revoked_at: Option<String>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            account_id: key.account_id,
            name: key.name,
            last_four: key.last_four,
            agents: key.agents,
            created_at: key.created_at.to_string(),
            revoked_at: key.revoked_at.map(|at| at.to_string()),
        }
    }
}

impl View for KeyView {
    const COLUMNS: &'static [&'static str] = &["id", "name", "ends in", "agents", "created", "revoked"];

    fn cells(&self) -> Vec<String> {
        let agents = match &self.agents {
            None => "all".to_owned(),
            Some(agents) => lines(agents),
        };
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.last_four.clone(),
            agents,
            self.created_at.clone(),
            self.revoked_at.clone().unwrap_or_else(|| "no".to_owned()),
        ]
    }
}

#[derive(Serialize)]
struct NewKeyView<'a> {
    #[serde(flatten)]
    key: KeyView,
    secret: &'a str,
}

impl View for NewKeyView<'_> {
    const COLUMNS: &'static [&'static str] = KeyView::COLUMNS;

    fn cells(&self) -> Vec<String> {
        self.key.cells()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.key.fields();
        fields.push(("secret", self.secret.to_owned()));
        fields
    }
}

#[derive(Debug, Serialize)]
struct RevokedView {
    #[serde(flatten)]
    key: KeyView,
    /// Whether running gateways could be told.
    announced: bool,
    confirmed_by: BTreeSet<GatewayId>,
    /// Those that run and did not say in time that they know.
    unconfirmed: Vec<GatewayView>,
}

#[derive(Debug, Serialize)]
struct GatewayView {
    id: GatewayId,
    address: String,
}

impl From<LiveGateway> for GatewayView {
    fn from(gateway: LiveGateway) -> Self {
        Self { id: gateway.id, address: gateway.address }
    }
}

impl View for RevokedView {
    const COLUMNS: &'static [&'static str] = KeyView::COLUMNS;

    fn cells(&self) -> Vec<String> {
        self.key.cells()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.key.fields();
        let confirmed = if self.confirmed_by.is_empty() { "no gateway".to_owned() } else { lines(&self.confirmed_by) };
        fields.push(("confirmed by", confirmed));
        fields
    }
}

fn lines<'a, T: ToString + 'a>(ids: impl IntoIterator<Item = &'a T>) -> String {
    ids.into_iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

/// Carries out one of the commands.
pub async fn run(command: KeyCommand, admin: &Admin) -> Result<(), AdminError> {
    match command {
        KeyCommand::Create { account, name, agents } => create(admin, &account, &name, agents).await,
        KeyCommand::List { account } => {
            let account = admin.account(&account).await?;
            let keys: Vec<KeyView> = admin.store.keys(account.id).await?.into_iter().map(Into::into).collect();
            Ok(admin.output.list(&keys)?)
        }
        KeyCommand::Rename { key_id, name } => rename(admin, key_id, &name).await,
        KeyCommand::Revoke { key_id } => revoke(admin, key_id).await,
    }
}

async fn create(admin: &Admin, account: &str, name: &str, agents: Vec<AgentId>) -> Result<(), AdminError> {
    names::check_name(name)?;
    let account = admin.account(account).await?;
    let limit = if agents.is_empty() { None } else { Some(owned(admin, &account, agents).await?) };
    let secret = Secret::generate(&prefix()?);
    let hash = key::hash(secret.reveal());
    let made = admin.store.create_key(account.id, name, hash, &secret.last_four(), limit).await?;
    // No gateway can have cached anything of a secret that nobody knew: nothing to announce.
    let id = made.id;
    admin.output.note("The secret is shown this once and cannot be read again: keep it now.");
    let view = NewKeyView { key: made.into(), secret: secret.reveal() };
    admin.output.one(&view).map_err(|cause| AdminError::SecretLost { id, cause })
}

/// `agents` without repetitions, when they all belong to `account`.
async fn owned(admin: &Admin, account: &Account, mut agents: Vec<AgentId>) -> Result<Vec<AgentId>, AdminError> {
    let of_account = admin.store.agents(account.id).await?;
    if let Some(stranger) = agents.iter().find(|id| of_account.iter().all(|agent| agent.id != **id)) {
        return Err(AdminError::NotFound(format!("account `{}` has no agent `{stranger}`", account.name)));
    }
    agents.sort_unstable();
    agents.dedup();
    Ok(agents)
}

/// What secrets begin with: `FRONTDESK_KEY_PREFIX`, `sk-` by default.
fn prefix() -> Result<String, EnvError> {
    const NAME: &str = "FRONTDESK_KEY_PREFIX";
    let prefix = env::parse(NAME, "sk-".to_owned())?;
    let is_fit = prefix.len() <= 20 && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_fit { Ok(prefix) } else { Err(env::invalid(NAME, &prefix, "give up to 20 letters, digits, - and _")) }
}

async fn existing(admin: &Admin, id: KeyId) -> Result<ApiKey, AdminError> {
    admin.store.key(id).await?.ok_or_else(|| AdminError::no_such("key", id))
}

async fn rename(admin: &Admin, id: KeyId, name: &str) -> Result<(), AdminError> {
    names::check_name(name)?;
    existing(admin, id).await?;
    admin.store.rename_key(id, name).await?;
    admin.announce(Changed::Keys).await;
    Ok(admin.output.one(&KeyView::from(existing(admin, id).await?))?)
}

/// A second revocation changes nothing and tells the gateways again.
async fn revoke(admin: &Admin, id: KeyId) -> Result<(), AdminError> {
    existing(admin, id).await?;
    admin.store.revoke_key(id).await?;
    let told = admin.announce_and_wait(Changed::Keys, REVOCATION_WAIT).await;
    let (announced, confirmed_by, missing) = match told {
        Ok(said) => (true, said.confirmed, said.missing),
        Err(error) => {
            admin.output.warn(&format!("the key is revoked, but {}; {NOTICE_LATER}", with_causes(&error)));
            (false, BTreeSet::new(), admin.store.live_gateways().await?)
        }
    };
    let unconfirmed: Vec<GatewayView> = missing.into_iter().map(Into::into).collect();
    if announced && !unconfirmed.is_empty() {
        let names: Vec<_> = unconfirmed.iter().map(|one| format!("{} at {}", one.id, one.address)).collect();
        let names = names.join(", ");
        admin.output.warn(&format!("the key is revoked, but not confirmed by gateway {names}; {NOTICE_LATER}"));
    }
    let key = existing(admin, id).await?.into();
    Ok(admin.output.one(&RevokedView { key, announced, confirmed_by, unconfirmed })?)
}

#[cfg(test)]
mod tests {
    use common::domain::time::Millis;
    use serde_json::json;

    use super::*;

    const KEY: &str = "0190b5a0-0000-7000-8000-000000000001";
    const ACCOUNT: &str = "0190b5a0-0000-7000-8000-000000000002";

    fn view() -> KeyView {
        let key = ApiKey {
            id: KEY.parse().expect("an id"),
            account_id: ACCOUNT.parse().expect("an id"),
            name: "ci".to_owned(),
            last_four: "w2Xz".to_owned(),
            agents: None,
            created_at: Millis(0),
            revoked_at: None,
        };
        key.into()
    }

    #[test]
    fn a_listed_key_has_no_secret() {
        let expected = json!({
            "id": KEY, "account_id": ACCOUNT, "name": "ci", "last_four": "w2Xz", "agents": null,
            "created_at": "1970-01-01T00:00:00Z", "revoked_at": null,
        });
        assert_eq!(serde_json::to_value(view()).expect("json"), expected);
        assert_eq!(view().cells().len(), KeyView::COLUMNS.len());
    }

    #[test]
    fn a_new_key_shows_its_secret() {
        let view = NewKeyView { key: view(), secret: "sk-secret" };
        assert_eq!(serde_json::to_value(&view).expect("json")["secret"], "sk-secret");
        assert_eq!(view.fields().last(), Some(&("secret", "sk-secret".to_owned())));
    }

    #[test]
    fn a_revoked_key_says_which_gateways_know() {
        let gateway = GatewayId::new();
        let view =
            RevokedView { key: view(), announced: true, confirmed_by: [gateway].into(), unconfirmed: Vec::new() };
        let json = serde_json::to_value(&view).expect("json");
        assert_eq!(json["confirmed_by"], json!([gateway]));
        assert_eq!(json["unconfirmed"], json!([]));
        assert_eq!(json["id"], KEY);
    }
}
