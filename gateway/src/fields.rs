//! A JSON object read field by field, so that whatever is wrong with it is said with the field's name.

use std::str::FromStr;

use serde_json::{Map, Value};

/// What is wrong with a body: a sentence that names the field.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldFault(pub String);

/// The fields of an object that have not been read yet. Unknown ones are ignored; `null` is as good as absent.
#[derive(Debug)]
pub struct Fields {
    /// Where the object is in the body, with the dot after it; empty for the body itself.
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The object in `body`.
    ///
    /// # Errors
    /// When it is no UTF-8, no JSON, nested too deeply, no object, or holds U+0000 anywhere.
    pub fn parse(body: &[u8]) -> Result<Self, FieldFault> {
        if body.trim_ascii().is_empty() {
            return Err(FieldFault("the body is empty; a JSON object is needed".to_owned()));
        }
        Self::read("the body", body, |error| error.to_string())
    }

    /// The object in a line of a body.
    ///
    /// # Errors
    /// As for [`Fields::parse`].
    pub fn parse_line(line: &[u8]) -> Result<Self, FieldFault> {
        // The parser counts lines of its own.
        Self::read("the line", line, |error| {
            let (sentence, column) = (error.to_string(), error.column());
            let place = format!(" at line {} column {column}", error.line());
            sentence.strip_suffix(&place).map(|what| format!("{what} at column {column}")).unwrap_or(sentence)
        })
    }

    fn read(what: &str, text: &[u8], said: fn(serde_json::Error) -> String) -> Result<Self, FieldFault> {
        let text = std::str::from_utf8(text)
            .map_err(|error| FieldFault(format!("{what} is not UTF-8 after byte {}", error.valid_up_to())))?;
        // The parser's own limit on nesting keeps a bomb from the stack.
        let value: Value = serde_json::from_str(text)
            .map_err(|error| FieldFault(format!("{what} is not usable JSON: {}", said(error))))?;
        if let Some(place) = place_of_nul(&value) {
            let place = place.trim_start_matches('.');
            return Err(FieldFault(format!("`{place}` holds the character U+0000, which cannot be stored")));
        }
        match value {
            Value::Object(map) => Ok(Self { place: String::new(), map }),
            other => Err(FieldFault(format!("{what} has to be a JSON object, not {}", kind(&other)))),
        }
    }

    /// Whether there is a field `name` that has not been read.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A string that has to be there.
    pub fn text(&mut self, name: &str) -> Result<String, FieldFault> {
        self.optional_text(name)?.ok_or_else(|| self.fault(name, "is missing"))
    }

    /// A string that may be absent.
    pub fn optional_text(&mut self, name: &str) -> Result<Option<String>, FieldFault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    /// A string that has to be there and to say something.
    pub fn words(&mut self, name: &str) -> Result<String, FieldFault> {
        let text = self.text(name)?;
        if is_blank(&text) { Err(self.fault(name, "must not be empty")) } else { Ok(text) }
    }

    /// An identifier that has to be there.
    pub fn id<T: FromStr>(&mut self, name: &str) -> Result<T, FieldFault> {
        self.text(name)?.parse().map_err(|_| self.fault(name, "is not a UUID"))
    }

    /// A boolean; absent is false.
    pub fn flag(&mut self, name: &str) -> Result<bool, FieldFault> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    /// A boolean that may be absent.
    pub fn optional_flag(&mut self, name: &str) -> Result<Option<bool>, FieldFault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(name, "a boolean", &other)),
        }
    }

    /// One of `names` that may be absent.
    pub fn optional_choice<'n>(&mut self, name: &str, names: &[&'n str]) -> Result<Option<&'n str>, FieldFault> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        let chosen = names.iter().copied().find(|known| *known == text);
        chosen.map(Some).ok_or_else(|| self.fault(name, &format!("has to be {}", names.join(" or "))))
    }

    /// An object of any content that may be absent.
    pub fn optional_object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, FieldFault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    /// An object that has to be there, to be read field by field.
    pub fn object(&mut self, name: &str) -> Result<Self, FieldFault> {
        match self.take(name) {
            None => Err(self.fault(name, "is missing")),
            Some(Value::Object(map)) => Ok(Self { place: format!("{}{name}.", self.place), map }),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    /// A list of strings that may be absent.
    pub fn optional_texts(&mut self, name: &str) -> Result<Option<Vec<String>>, FieldFault> {
        let values = match self.take(name) {
            None => return Ok(None),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.wrong(name, "a list", &other)),
        };
        let text = |(index, value)| match value {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(&format!("{name}[{index}]"), "a string", &other)),
        };
        values.into_iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A list of objects that may be absent.
    pub fn objects(&mut self, name: &str) -> Result<Option<Vec<Self>>, FieldFault> {
        let values = match self.take(name) {
            None => return Ok(None),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.wrong(name, "a list", &other)),
        };
        let object = |(index, value)| match value {
            Value::Object(map) => Ok(Self { place: format!("{}{name}[{index}].", self.place), map }),
            other => Err(self.wrong(&format!("{name}[{index}]"), "an object", &other)),
        };
        values.into_iter().enumerate().map(object).collect::<Result<_, _>>().map(Some)
    }

    /// A sentence about the field `name`.
    pub fn fault(&self, name: &str, what: &str) -> FieldFault {
        FieldFault(format!("`{}{name}` {what}", self.place))
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, wanted: &str, found: &Value) -> FieldFault {
        self.fault(name, &format!("has to be {wanted}, not {}", kind(found)))
    }
}

/// Whether `text` says nothing.
pub fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Where a text or a name with U+0000 is. PostgreSQL cannot store such text, SQLite can: neither gets it.
fn place_of_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(values) => {
            let mut values = values.iter().enumerate();
            values.find_map(|(index, value)| Some(format!("[{index}]{}", place_of_nul(value)?)))
        }
        Value::Object(map) => map.iter().find_map(|(name, value)| {
            let name_is_bad = name.contains('\0').then(String::new);
            Some(format!(".{}{}", shown(name), name_is_bad.or_else(|| place_of_nul(value))?))
        }),
        _ => None,
    }
}

/// A name that the caller made up, fit for a sentence.
fn shown(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use common::domain::ids::AgentId;

    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).expect("an object")
    }

    fn refusal(body: &[u8]) -> String {
        Fields::parse(body).expect_err("no usable object").to_string()
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert_eq!(refusal(b"{\"a\":\"\xff\"}"), "the body is not UTF-8 after byte 6");
        assert_eq!(refusal(b" \n"), "the body is empty; a JSON object is needed");
        assert_eq!(refusal(b"[\"a\"]"), "the body has to be a JSON object, not a list");
        for broken in ["{", "{\"a\":1}}", "{'a':1}", "{\"a\":\"\\ud800\"}", "{\"a\":1e999}", "\u{feff}{}", "NaN"] {
            assert!(refusal(broken.as_bytes()).starts_with("the body is not usable JSON"), "{broken}");
        }
    }

    #[test]
    fn a_nesting_bomb_is_refused() {
        for open in ["[", "{\"a\":"] {
            let bomb = format!("{{\"x\":{}", open.repeat(20_000));
            assert!(refusal(bomb.as_bytes()).contains("recursion limit"), "{open}");
        }
    }

    #[test]
    fn nul_is_found_wherever_it_hides() {
        let holds = |place: &str| format!("`{place}` holds the character U+0000, which cannot be stored");
        assert_eq!(refusal(br#"{"a":"b\u0000"}"#), holds("a"));
        assert_eq!(refusal(br#"{"a":[{},{"b":"\u0000"}]}"#), holds("a[1].b"));
        assert_eq!(refusal(br#"{"a":{"b\u0000":1}}"#), holds("a.b\u{fffd}"));
        assert!(Fields::parse(br#"{"a":"\\u0000"}"#).is_ok());
    }

    #[test]
    fn each_fault_names_its_field() {
        let mut fields = fields(r#"{"n":5,"empty":" ","id":"x","list":[{"role":1},7],"null":null}"#);
        assert_eq!(fields.text("gone").expect_err("absent").to_string(), "`gone` is missing");
        assert_eq!(fields.text("null").expect_err("null").to_string(), "`null` is missing");
        assert_eq!(fields.words("empty").expect_err("blank").to_string(), "`empty` must not be empty");
        assert_eq!(fields.id::<AgentId>("id").expect_err("no UUID").to_string(), "`id` is not a UUID");
        assert_eq!(fields.flag("n").expect_err("a number").to_string(), "`n` has to be a boolean, not a number");
        assert_eq!(
            fields.objects("list").expect_err("a number").to_string(),
            "`list[1]` has to be an object, not a number"
        );
    }

    #[test]
    fn what_is_in_a_list_knows_its_place() {
        let mut list = fields(r#"{"turns":[{"role":1}]}"#).objects("turns").expect("a list").expect("there");
        assert_eq!(
            list[0].text("role").expect_err("a number").to_string(),
            "`turns[0].role` has to be a string, not a number"
        );
        assert_eq!(list[0].text("content").expect_err("absent").to_string(), "`turns[0].content` is missing");
    }

    #[test]
    fn what_is_in_an_object_knows_its_place() {
        let mut fields = fields(r#"{"body":{"n":1,"list":[{}]},"text":"x"}"#);
        assert!(fields.has("body") && !fields.has("gone"));
        let mut body = fields.object("body").expect("an object");
        assert!(!fields.has("body"));
        assert_eq!(body.text("n").expect_err("a number").to_string(), "`body.n` has to be a string, not a number");
        let mut list = body.objects("list").expect("a list").expect("there");
        assert_eq!(list[0].text("role").expect_err("absent").to_string(), "`body.list[0].role` is missing");
        assert_eq!(fields.object("gone").expect_err("absent").to_string(), "`gone` is missing");
        assert_eq!(fields.object("text").expect_err("a text").to_string(), "`text` has to be an object, not a string");
    }

    #[test]
    fn a_line_says_where_it_is_broken_without_a_line_of_its_own() {
        let refusal = |line: &[u8]| Fields::parse_line(line).expect_err("no usable object").to_string();
        assert_eq!(refusal(b"{\"a\":}"), "the line is not usable JSON: expected value at column 6");
        assert_eq!(refusal(b"{} {}"), "the line is not usable JSON: trailing characters at column 4");
        assert_eq!(refusal(b"{\"a\":\"\xff\"}"), "the line is not UTF-8 after byte 6");
        assert_eq!(refusal(b"7"), "the line has to be a JSON object, not a number");
        assert_eq!(refusal(b"{\"a\":\"\\u0000\"}"), "`a` holds the character U+0000, which cannot be stored");
    }

    #[test]
    fn an_absent_flag_is_off() {
        let mut fields = fields(r#"{"yes":true,"no":null}"#);
        assert_eq!((fields.flag("yes"), fields.flag("no"), fields.flag("gone")), (Ok(true), Ok(false), Ok(false)));
    }
}
