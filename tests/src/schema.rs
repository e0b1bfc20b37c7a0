//! As much of JSON Schema as the API's document uses, to hold answers against it.

use serde_json::Value;

/// What of `value` does not fit `schema`; references lead into `document`.
pub fn misfits(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(document, schema, value, "$", &mut found);
    found
}

/// The part of the document that a `$ref` leads to, or the part itself.
pub fn resolved<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => {
            document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => part,
    }
}

fn look(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let schema = resolved(document, schema);
    for part in schema["allOf"].as_array().into_iter().flatten() {
        look(document, part, value, place, found);
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array())
        && !choices.iter().any(|choice| misfits(document, choice, value).is_empty())
    {
        found.push(format!("{place}: {value} is none of {choices:?}"));
    }
    if !has_type(&schema["type"], value) {
        found.push(format!("{place}: {value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|names| !names.contains(value)) {
        found.push(format!("{place}: {value} is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            found.push(format!("{place}.{name} is missing"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        if let Some(schema) = schema["properties"].get(name) {
            look(document, schema, member, &format!("{place}.{name}"), found);
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        look(document, &schema["items"], item, &format!("{place}[{index}]"), found);
    }
}

fn has_type(types: &Value, value: &Value) -> bool {
    match types {
        Value::String(name) => is_a(name, value),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(|name| is_a(name, value)),
        _ => true,
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let document = json!({ "components": { "schemas": { "Name": { "type": ["string", "null"] } } } });
        let schema = json!({
            "type": "object", "required": ["a"],
            "properties": { "a": { "$ref": "#/components/schemas/Name" }, "b": { "type": "array", "items": { "enum": [1] } } },
        });
        let fits = |value: Value| misfits(&document, &schema, &value);
        assert!(fits(json!({ "a": null, "b": [1, 1], "c": {} })).is_empty());
        assert_eq!(
            fits(json!({ "a": 1, "b": [2] })),
            ["$.a: 1 is no [\"string\",\"null\"]", "$.b[0]: 2 is none of [1]"]
        );
        assert_eq!(fits(json!({})), ["$.a is missing"]);
        assert_eq!(fits(json!([])), ["$: [] is no \"object\""]);
    }
}
