//! `gateway usage`: what an account used, per day, key and agent.

use std::collections::HashMap;

use common::{
    domain::{
        account::{Account, MicroCredits},
        ids::{AgentId, KeyId},
        time::date_of_day,
    },
    store::usage::UsageRow,
};
use serde::Serialize;

use super::{amount::Amount, context::Admin, date::Day, error::AdminError, output::View};

/// How far back usage is shown unless a beginning is given, today included.
const DEFAULT_DAYS: i32 = 30;

/// Whose usage, and of which days.
#[derive(Debug, clap::Args)]
pub struct UsageArgs {
    /// The account's name or id.
    account: String,
    /// The first day (UTC), as in 2026-11-01; 30 days up to the last one when it is left out.
    #[arg(long, value_name = "DATE")]
    from: Option<Day>,
    /// The last day (UTC); today when it is left out.
    #[arg(long, value_name = "DATE")]
    to: Option<Day>,
}

#[derive(Debug, Serialize)]
struct UsageView {
    day: String,
    key_id: KeyId,
    key_name: Option<String>,
    agent_id: AgentId,
    agent_name: Option<String>,
    messages: u64,
    input_tokens: u64,
    output_tokens: u64,
    micro_credits: MicroCredits,
}

impl View for UsageView {
    const COLUMNS: &'static [&'static str] = &["day", "key", "agent", "messages", "tokens in", "tokens out", "credits"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.day.clone(),
            self.key_name.clone().unwrap_or_else(|| self.key_id.to_string()),
            self.agent_name.clone().unwrap_or_else(|| self.agent_id.to_string()),
            self.messages.to_string(),
            self.input_tokens.to_string(),
            self.output_tokens.to_string(),
            Amount(self.micro_credits).to_string(),
        ]
    }
}

/// What an account calls its keys and agents.
struct Names {
    keys: HashMap<KeyId, String>,
    agents: HashMap<AgentId, String>,
}

impl Names {
    async fn of(admin: &Admin, account: &Account) -> Result<Self, AdminError> {
        let keys = admin.store.keys(account.id).await?;
        let agents = admin.store.agents(account.id).await?;
        Ok(Self {
            keys: keys.into_iter().map(|key| (key.id, key.name)).collect(),
            agents: agents.into_iter().map(|agent| (agent.id, agent.spec.name)).collect(),
        })
    }

    fn view(&self, row: &UsageRow) -> UsageView {
        UsageView {
            day: date_of_day(row.day),
            key_id: row.key_id,
            key_name: self.keys.get(&row.key_id).cloned(),
            agent_id: row.agent_id,
            agent_name: self.agents.get(&row.agent_id).cloned(),
            messages: row.messages,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            micro_credits: row.credits,
        }
    }
}

/// Prints the usage.
pub async fn run(args: UsageArgs, admin: &Admin) -> Result<(), AdminError> {
    let (from, to) = days(args.from, args.to, Day::today())?;
    let account = admin.account(&args.account).await?;
    let names = Names::of(admin, &account).await?;
    let rows = admin.store.usage(account.id, from.0, to.0).await?;
    let views: Vec<_> = rows.iter().map(|row| names.view(row)).collect();
    Ok(admin.output.list(&views)?)
}

fn days(from: Option<Day>, to: Option<Day>, today: Day) -> Result<(Day, Day), AdminError> {
    let to = to.unwrap_or(today);
    let from = from.unwrap_or_else(|| to.minus(DEFAULT_DAYS - 1));
    if from > to {
        let (from, to) = (date_of_day(from.0), date_of_day(to.0));
        return Err(AdminError::Refused(format!("the first day, {from}, lies after the last, {to}")));
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thirty_days_are_shown_by_default() {
        let today = Day(20_000);
        assert_eq!(days(None, None, today).expect("default"), (Day(19_971), today));
        assert_eq!(days(None, Some(Day(100)), today).expect("an end"), (Day(71), Day(100)));
        assert_eq!(days(Some(Day(5)), None, today).expect("a beginning"), (Day(5), today));
        assert!(days(Some(Day(6)), Some(Day(5)), today).is_err());
    }

    #[test]
    fn usage_is_shown_with_the_names_that_are_left() {
        let (key_id, agent_id) = (KeyId::new(), AgentId::new());
        let names = Names { keys: [(key_id, "ci".to_owned())].into(), agents: HashMap::new() };
        let row =
            UsageRow { key_id, agent_id, day: 0, messages: 2, input_tokens: 3, output_tokens: 4, credits: 500_000 };
        let view = names.view(&row);
        let expected = json!({
            "day": "1970-01-01", "key_id": key_id, "key_name": "ci", "agent_id": agent_id, "agent_name": null,
            "messages": 2, "input_tokens": 3, "output_tokens": 4, "micro_credits": 500_000,
        });
        assert_eq!(serde_json::to_value(&view).expect("json"), expected);
        let agent = agent_id.to_string();
        assert_eq!(view.cells(), ["1970-01-01", "ci", &agent, "2", "3", "4", "0.5"]);
    }
}
