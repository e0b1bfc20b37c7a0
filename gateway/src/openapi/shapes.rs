//! Shapes of fields that a type of ours does not tell by itself.

use utoipa::openapi::{Object, ObjectBuilder, schema::Type};

/// Who says something in a conversation.
pub fn role() -> Object {
    one_of(["user", "assistant", "system"])
}

/// A string that is one of `names`.
fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}
