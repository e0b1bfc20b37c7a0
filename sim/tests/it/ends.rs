//! Ends of messages as cases need them.

use common::domain::{
    message::{MessageStatus, Usage},
    reply::Outcome,
    time::Millis,
};

/// The end of a message that run `attempts` has answered with `content`.
pub fn completed(content: &str, attempts: u32) -> Outcome {
    Outcome {
        status: MessageStatus::Completed,
        content: Some(content.to_owned()),
        model: Some("demo".to_owned()),
        usage: Usage { input_tokens: 3, output_tokens: 4, estimated: true },
        credits_charged: 0,
        failure: None,
        attempts,
        started_at: Some(Millis(1)),
        completed_at: Millis(2),
    }
}

/// The same without an answer.
pub fn without_answer(status: MessageStatus, attempts: u32) -> Outcome {
    Outcome { status, content: None, ..completed("", attempts) }
}
