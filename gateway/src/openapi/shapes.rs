//! Shapes of fields that a type of ours does not tell by itself.

use common::domain::{delivery::DeliveryStatus, event::EventKind};
use utoipa::openapi::{Array, ArrayBuilder, Object, ObjectBuilder, schema::Type};

/// Who says something in a conversation.
pub fn role() -> Object {
    one_of(["user", "assistant", "system"])
}

/// What becomes of a message whose caller hangs up.
pub fn on_disconnect() -> Object {
    one_of(["continue", "cancel"])
}

/// Ends of messages that a callback is told of.
pub fn message_events() -> Array {
    let events = EventKind::ALL.into_iter().filter(|event| event.is_of_message());
    ArrayBuilder::new().items(one_of(events.map(EventKind::name))).min_items(Some(1)).build()
}

/// An event that webhooks tell of.
pub fn event() -> Object {
    one_of(EventKind::ALL.map(EventKind::name))
}

/// The events that an endpoint is told of.
pub fn events() -> Array {
    ArrayBuilder::new().items(event()).build()
}

/// Where a webhook delivery stands.
pub fn delivery_status() -> Object {
    one_of(DeliveryStatus::ALL.map(DeliveryStatus::name))
}

/// A string that is one of `names`.
fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}
