//! The declarative file of agents: read, checked as a whole, and matched with the agents that are there.

use std::{
    collections::HashSet,
    fmt,
    ops::{Range, RangeInclusive},
};

use common::domain::{
    agent::{Agent, AgentSpec},
    ids::AgentId,
};
use serde::Deserialize;
use toml::Spanned;

use super::names;

/// The providers that workers know.
const PROVIDERS: [&str; 2] = ["openai", "demo"];
const TEMPERATURES: RangeInclusive<f64> = 0.0..=2.0;

/// Something wrong in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    line: usize,
    what: String,
}

impl Fault {
    /// `what` is wrong in `line`, counted from 1.
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// One agent of the file.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Where its name stands, counted from 1.
    pub line: usize,
    /// Its identifier, where the file gives one.
    pub id: Option<AgentId>,
    /// What it is to be like.
    pub spec: AgentSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    agents: Vec<Fields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: Option<Spanned<AgentId>>,
    name: Spanned<String>,
    description: Option<Spanned<String>>,
    provider: Option<Spanned<String>>,
    model: Spanned<String>,
    instructions: Option<Spanned<String>>,
    temperature: Option<Spanned<f64>>,
    max_output_tokens: Option<Spanned<u32>>,
}

/// Reads the file's text.
///
/// # Errors
/// Every fault that can be seen in the file alone.
pub fn parse(text: &str) -> Result<Vec<Entry>, Vec<Fault>> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, &span));
        vec![Fault::new(line, error.message().replace('\n', ", "))]
    })?;
    if file.agents.is_empty() {
        return Err(vec![Fault::new(1, "there is no [[agents]] in the file")]);
    }
    let mut faults = Vec::new();
    for fields in &file.agents {
        check_fields(fields, |span, what| faults.push(Fault::new(line_of(text, &span), what)));
    }
    check_repetitions(&file.agents, |span, what| faults.push(Fault::new(line_of(text, &span), what)));
    if !faults.is_empty() {
        faults.sort_by_key(|fault| fault.line);
        return Err(faults);
    }
    Ok(file.agents.into_iter().map(|fields| entry(text, fields)).collect())
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn check_fields(fields: &Fields, mut fault: impl FnMut(Range<usize>, String)) {
    if let Some(what) = names::fault_in_name(fields.name.get_ref()) {
        fault(fields.name.span(), format!("the name {what}"));
    }
    if let Some(what) = names::fault_in_name(fields.model.get_ref()) {
        fault(fields.model.span(), format!("the model {what}"));
    }
    if let Some(provider) = &fields.provider
        && !PROVIDERS.contains(&provider.get_ref().as_str())
    {
        let known = PROVIDERS.join(", ");
        fault(provider.span(), format!("unknown provider `{}` (known: {known})", provider.get_ref()));
    }
    for (name, text) in [("description", &fields.description), ("instructions", &fields.instructions)] {
        if let Some(text) = text
            && text.get_ref().contains('\0')
        {
            fault(text.span(), format!("the {name} must not hold NUL characters"));
        }
    }
    if let Some(temperature) = &fields.temperature
        && !TEMPERATURES.contains(temperature.get_ref())
    {
        fault(temperature.span(), format!("the temperature must be from 0 to 2, not {}", temperature.get_ref()));
    }
    if let Some(most) = &fields.max_output_tokens
        && *most.get_ref() == 0
    {
        fault(most.span(), "max_output_tokens must be at least 1".to_owned());
    }
}

fn check_repetitions(agents: &[Fields], mut fault: impl FnMut(Range<usize>, String)) {
    let mut ids = HashSet::new();
    let mut seen = HashSet::new();
    for fields in agents {
        if let Some(id) = &fields.id
            && !ids.insert(*id.get_ref())
        {
            fault(id.span(), format!("the id {} stands in the file twice", id.get_ref()));
        }
        if !seen.insert(fields.name.get_ref()) {
            fault(fields.name.span(), format!("the name `{}` stands in the file twice", fields.name.get_ref()));
        }
    }
}

fn entry(text: &str, fields: Fields) -> Entry {
    let plain = |text: Option<Spanned<String>>| text.map(Spanned::into_inner);
    Entry {
        line: line_of(text, &fields.name.span()),
        id: fields.id.map(Spanned::into_inner),
        spec: AgentSpec {
            name: fields.name.into_inner(),
            description: plain(fields.description).unwrap_or_default(),
            provider: plain(fields.provider),
            model: fields.model.into_inner(),
            instructions: plain(fields.instructions).unwrap_or_default(),
            temperature: fields.temperature.map(Spanned::into_inner),
            max_output_tokens: fields.max_output_tokens.map(Spanned::into_inner),
        },
    }
}

/// Gives every entry its id: its own, or that of the account's agent of the same name, or a new one.
///
/// # Errors
/// An entry that would give the account a second agent of one name, or that could mean either of two.
pub fn identify(entries: Vec<Entry>, existing: &[Agent]) -> Result<Vec<(AgentId, AgentSpec)>, Vec<Fault>> {
    let claimed: HashSet<AgentId> = entries.iter().filter_map(|entry| entry.id).collect();
    let mut faults = Vec::new();
    let mut identified = Vec::with_capacity(entries.len());
    for Entry { line, id, spec } in entries {
        let namesakes: Vec<AgentId> = existing
            .iter()
            .filter(|agent| agent.spec.name == spec.name && !claimed.contains(&agent.id))
            .map(|agent| agent.id)
            .collect();
        match (id, namesakes.as_slice()) {
            (Some(id), []) => identified.push((id, spec)),
            (None, [id]) => identified.push((*id, spec)),
            (None, []) => identified.push((AgentId::new(), spec)),
            (Some(_), [other, ..]) => {
                faults.push(Fault::new(line, format!("agent {other} is already called `{}`", spec.name)));
            }
            // Two operators who made it at the same moment.
            (None, _) => {
                faults.push(Fault::new(line, format!("several agents are called `{}`: give the id", spec.name)))
            }
        }
    }
    if faults.is_empty() { Ok(identified) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use common::domain::ids::AccountId;

    use super::*;

    const ID: &str = "0190b5a0-0000-7000-8000-000000000001";

    fn faults(text: &str) -> Vec<String> {
        parse(text).expect_err(text).iter().map(Fault::to_string).collect()
    }

    fn agent(name: &str) -> Agent {
        let spec = parse(&format!("[[agents]]\nname = '{name}'\nmodel = 'm'")).expect("valid").remove(0).spec;
        Agent { id: AgentId::new(), account_id: AccountId::new(), version: 1, spec }
    }

    fn ids(text: &str, existing: &[Agent]) -> Vec<AgentId> {
        let identified = identify(parse(text).expect("valid"), existing).expect("no clash");
        identified.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_file_describes_agents() {
        let text = format!(
            "# our agents\n\n[[agents]]\nid = '{ID}'\nname = 'Greeter'\ndescription = 'says hello'\nprovider = 'demo'\n\
             model = 'demo'\ninstructions = '''\nBe kind.\n'''\ntemperature = 1\nmax_output_tokens = 200\n\n\
             [[agents]]\nname = 'Other'\nmodel = 'gpt'\n"
        );
        let entries = parse(&text).expect("valid");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].line, entries[0].id), (5, Some(ID.parse().expect("an id"))));
        assert_eq!(entries[0].spec.instructions, "Be kind.\n");
        assert_eq!((entries[0].spec.temperature, entries[0].spec.max_output_tokens), (Some(1.0), Some(200)));
        assert_eq!((entries[1].line, entries[1].id, &entries[1].spec.provider), (16, None, &None));
    }

    #[test]
    fn every_fault_is_said_with_its_line() {
        let text = "[[agents]]\nname = ''\nmodel = ' '\nprovider = 'magic'\ntemperature = 2.5\nmax_output_tokens = 0\n\
                    description = \"a\\u0000\"\ninstructions = \"b\\u0000\"\n[[agents]]\nname = 'a'\nmodel = 'm'\n\
                    temperature = nan\n";
        let expected = [
            "line 2: the name must not be empty",
            "line 3: the model must not be empty",
            "line 4: unknown provider `magic` (known: openai, demo)",
            "line 5: the temperature must be from 0 to 2, not 2.5",
            "line 6: max_output_tokens must be at least 1",
            "line 7: the description must not hold NUL characters",
            "line 8: the instructions must not hold NUL characters",
            "line 12: the temperature must be from 0 to 2, not NaN",
        ];
        assert_eq!(faults(text), expected);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, line, what) in [
            ("[[agents]]\nname = 'a'\nmodel = 'm'\ncolour = 'red'", 4, "unknown field `colour`"),
            ("[[agent]]\nname = 'a'\nmodel = 'm'", 1, "unknown field `agent`"),
            ("\n[[agents]]\nname = 'a'", 2, "missing field `model`"),
            ("[[agents]]\nname = 'a'\nmodel = 5", 3, "invalid type"),
            ("[[agents]]\nname = 'a'\nmodel = 'm'\nmax_output_tokens = -1", 4, "invalid value"),
            ("[[agents]]\nid = 'x'\nname = 'a'\nmodel = 'm'", 2, "UUID"),
            ("[[agents]]\nname = 'a\nmodel = 'm'", 2, "string"),
            ("", 1, "no [[agents]]"),
        ] {
            let faults = faults(text);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(&format!("line {line}: ")) && faults[0].contains(what), "{faults:?}");
        }
    }

    #[test]
    fn names_and_ids_stand_once() {
        let one = format!("[[agents]]\nid = '{ID}'\nname = 'a'\nmodel = 'm'\n");
        let found = faults(&format!("{one}{one}"));
        let id_twice = format!("line 6: the id {ID} stands in the file twice");
        assert_eq!(found, [id_twice, "line 7: the name `a` stands in the file twice".to_owned()]);
    }

    #[test]
    fn without_an_id_the_name_decides() {
        let old = agent("old");
        let found = ids(
            "[[agents]]\nname = 'new'\nmodel = 'm'\n[[agents]]\nname = 'old'\nmodel = 'm'",
            std::slice::from_ref(&old),
        );
        assert_ne!(found[0], old.id);
        assert_eq!(found[1], old.id);
    }

    #[test]
    fn an_agent_renamed_by_its_id_leaves_its_name_free() {
        let old = agent("a");
        let text =
            format!("[[agents]]\nid = '{}'\nname = 'b'\nmodel = 'm'\n[[agents]]\nname = 'a'\nmodel = 'm'", old.id);
        let found = ids(&text, std::slice::from_ref(&old));
        assert_eq!(found[0], old.id);
        assert_ne!(found[1], old.id);
    }

    #[test]
    fn a_name_that_another_agent_has_is_refused() {
        let old = agent("a");
        let entries = parse(&format!("[[agents]]\nid = '{ID}'\nname = 'a'\nmodel = 'm'")).expect("valid");
        let faults = identify(entries, std::slice::from_ref(&old)).expect_err("two agents of one name");
        assert_eq!(faults, [Fault::new(3, format!("agent {} is already called `a`", old.id))]);
    }
    #[test]
    fn a_name_that_two_agents_have_needs_an_id() {
        let entries = parse("[[agents]]\nname = 'a'\nmodel = 'm'").expect("valid");
        let faults = identify(entries, &[agent("a"), agent("a")]).expect_err("which of them?");
        assert_eq!(faults, [Fault::new(2, "several agents are called `a`: give the id")]);
    }
}
