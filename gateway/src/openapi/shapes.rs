//! Shapes of fields that a type of ours does not tell by itself. What a request may leave out may be `null` as well.

use common::domain::{delivery::DeliveryStatus, event::EventKind};
use serde_json::Value;
use utoipa::openapi::{
    Array, ArrayBuilder, Object, ObjectBuilder,
    schema::{SchemaType, Type},
};

/// Who says something in a conversation.
pub fn role() -> Object {
    let names = ["user", "assistant", "system"];
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).description(Some("Who said it.")).build()
}

/// What becomes of a message whose caller hangs up.
pub fn on_disconnect() -> Object {
    ObjectBuilder::new()
        .schema_type(or_null(Type::String))
        .enum_values(Some([Value::from("continue"), Value::from("cancel"), Value::Null]))
        .description(Some("What becomes of the message when its caller hangs up before its end; absent: it goes on."))
        .build()
}

/// Ends of messages that a callback is told of.
pub fn message_events() -> Array {
    let events = EventKind::ALL.into_iter().filter(|event| event.is_of_message());
    let event = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(events.map(EventKind::name)));
    ArrayBuilder::new()
        .schema_type(or_null(Type::Array))
        .items(event)
        .min_items(Some(1))
        .description(Some("Which ends are told to `callback_url`; absent: all."))
        .build()
}

/// Where a webhook delivery stands.
pub fn delivery_status() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(DeliveryStatus::ALL.map(DeliveryStatus::name)))
        .description(Some(
            "`pending`, `delivered`, `failed` (every try was in vain) or `dropped` (its endpoint was switched off or \
             removed).",
        ))
        .build()
}

fn or_null(kind: Type) -> SchemaType {
    SchemaType::from_iter([kind, Type::Null])
}
