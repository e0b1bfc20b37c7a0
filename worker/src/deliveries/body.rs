//! What a webhook says: the event with what it is of as its caller sees that, or, when it is large, where to read it.

use bytes::Bytes;
use common::{
    domain::{
        batch::Batch,
        batch_object::BatchObject,
        delivery::Delivery,
        event::EventKind,
        ids::{AgentId, EndpointId, MessageId},
        message::MessageStatus,
        object::MessageObject,
        time::{Millis, Moment},
    },
    sabotage::{self, Bug},
};
use serde::Serialize;
use uuid::Uuid;

/// A body of more bytes becomes a thin one.
const MOST_BYTES: usize = 20_000;

#[derive(Serialize)]
struct Envelope<T> {
    r#type: EventKind,
    timestamp: Moment,
    data: T,
}

#[derive(Serialize)]
struct Thin {
    message_id: MessageId,
    employee_id: AgentId,
    conversation_id: Option<Uuid>,
    batch_id: Option<Uuid>,
    status: MessageStatus,
    status_url: String,
}

#[derive(Serialize)]
struct Tried {
    endpoint_id: Option<EndpointId>,
}

/// The body for `event`, which happened `at`, with the message that it is of.
pub fn of_message(event: EventKind, at: Millis, message: MessageObject) -> serde_json::Result<Bytes> {
    let thin = Thin {
        message_id: message.message_id,
        employee_id: message.employee_id,
        conversation_id: message.conversation_id,
        batch_id: message.batch_id,
        status: message.status,
        status_url: format!("/api/v1/messages/{}", message.message_id),
    };
    let whole = serialized(event, at, message)?;
    if whole.len() > MOST_BYTES { serialized(event, at, thin) } else { Ok(whole) }
}

/// The body for `event`, which happened `at`, with the batch that it is of.
pub fn of_batch(event: EventKind, at: Millis, batch: &Batch) -> serde_json::Result<Bytes> {
    serialized(event, at, BatchObject::from(batch))
}

/// The body for a try of `endpoint`.
pub fn of_test(at: Millis, endpoint: Option<EndpointId>) -> serde_json::Result<Bytes> {
    serialized(EventKind::WebhookTest, at, Tried { endpoint_id: endpoint })
}

fn serialized<T: Serialize>(event: EventKind, at: Millis, data: T) -> serde_json::Result<Bytes> {
    serde_json::to_vec(&Envelope { r#type: event, timestamp: Moment(at), data }).map(Bytes::from)
}

/// The `webhook-id` of `delivery`: the same for one event on every try, at every receiver, and when it is sent again.
pub fn webhook_id(delivery: &Delivery) -> String {
    let of = delivery.message.map(|message| message.0).or(delivery.batch.map(|batch| batch.0)).unwrap_or(delivery.id.0);
    let of = if sabotage::has(Bug::NewWebhookId) { MessageId::new().0 } else { of };
    format!("evt_{}_{}", of.simple(), delivery.event.name().replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use common::domain::{
        batch::{BatchCounts, BatchStatus},
        ids::{AccountId, BatchId, KeyId},
        job::Job,
        message::Usage,
        reply::Outcome,
    };
    use serde_json::{Value, json};

    use super::*;

    fn message(content: &str) -> MessageObject {
        let id = MessageId::new();
        let envelope = json!({
            "v": 1, "id": id, "account": id, "key": id, "agent": id, "agent_version": 1, "channel": "webhooks",
            "lane": "background", "turns": [], "created_at": 1, "publish_by": 2, "start_by": 3,
        });
        let job: Job = serde_json::from_value(envelope).expect("a job");
        MessageObject::queued(&job).ended(Outcome {
            status: MessageStatus::Completed,
            content: Some(content.to_owned()),
            model: None,
            usage: Usage::default(),
            credits_charged: 0,
            failure: None,
            attempts: 1,
            started_at: None,
            completed_at: Millis(9),
        })
    }

    fn body(message: MessageObject) -> (usize, Value) {
        let bytes = of_message(EventKind::MessageCompleted, Millis(1_795_253_400_125), message).expect("JSON");
        (bytes.len(), serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[test]
    fn a_body_has_the_message_up_to_20_000_bytes_and_then_its_place() {
        let (empty, shown) = body(message(""));
        assert_eq!(shown["type"], "message.completed");
        assert_eq!(shown["timestamp"], "2026-11-21T09:30:00.125Z");
        assert_eq!((&shown["data"]["content"], &shown["data"]["status"]), (&json!(""), &json!("completed")));
        let (length, shown) = body(message(&"x".repeat(MOST_BYTES - empty)));
        assert_eq!((length, shown["data"]["content"].is_string()), (MOST_BYTES, true));

        let large = message(&"x".repeat(MOST_BYTES - empty + 1));
        let id = large.message_id;
        let (length, shown) = body(large);
        assert!(length < 1_000);
        assert_eq!(shown["data"]["message_id"], json!(id));
        assert_eq!(shown["data"]["status_url"], json!(format!("/api/v1/messages/{id}")));
        assert_eq!(shown["data"].get("content"), None);
    }

    #[test]
    fn a_test_names_its_endpoint() {
        let endpoint = EndpointId::new();
        let body: Value = serde_json::from_slice(&of_test(Millis(0), Some(endpoint)).expect("JSON")).expect("JSON");
        assert_eq!((&body["type"], &body["data"]), (&json!("webhook.test"), &json!({ "endpoint_id": endpoint })));
    }

    #[test]
    fn a_batch_is_told_as_it_is_shown() {
        let (id, owner, at) = (BatchId::new(), MessageId::new().0, Millis(1_795_253_400_125));
        let batch = Batch {
            id,
            account: AccountId(owner),
            key: KeyId(owner),
            status: BatchStatus::Completed,
            counts: BatchCounts { total: 3, completed: 2, failed: 1, cancelled: 0 },
            skipped: 0,
            retry_of: None,
            created_at: at,
            enqueued_at: Some(at),
            completed_at: Some(at),
        };
        let body = of_batch(EventKind::BatchCompleted, at, &batch).expect("JSON");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (&body["type"], &body["timestamp"]),
            (&json!("batch.completed"), &json!("2026-11-21T09:30:00.125Z"))
        );
        assert_eq!(body["data"], serde_json::to_value(BatchObject::from(&batch)).expect("JSON"));
        assert_eq!(body["data"]["request_counts"]["completed"], 2);
    }
}
