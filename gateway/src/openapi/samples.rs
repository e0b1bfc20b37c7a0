//! The ids that stand in the document's examples.

use common::domain::ids::{AgentId, BatchId, DeliveryId, EndpointId, MessageId};
use serde_json::json;
use uuid::Uuid;

/// The agent of the examples.
pub const AGENT: AgentId = AgentId(Uuid::from_u128(0x01a2_0041_b6d5_7731_bd55_c170_ed77_31b2));
/// The message of the examples.
pub const MESSAGE: MessageId = MessageId(Uuid::from_u128(0x01a2_0041_b7f8_71fc_b820_9ed8_6ed9_b996));
/// The webhook endpoint of the examples.
pub const ENDPOINT: EndpointId = EndpointId(Uuid::from_u128(0x01a2_0041_b7f8_71fc_b820_9eda_4c5e_0d11));
/// The webhook delivery of the examples.
pub const DELIVERY: DeliveryId = DeliveryId(Uuid::from_u128(0x01a2_0041_b7f8_71fc_b820_9edb_9a3f_7c22));
/// The batch of the examples.
pub const BATCH: BatchId = BatchId(Uuid::from_u128(0x01a2_0041_b7f8_71fc_b820_9edc_51b7_3a08));
/// The request of the examples.
pub const REQUEST: &str = "01a20041-b7f8-71fc-b820-9ed7f03d1b0a";

/// A line of a batch.
pub fn batch_line() -> String {
    json!({ "custom_id": "first", "employee_id": AGENT, "prompt": "Hello!" }).to_string()
}
