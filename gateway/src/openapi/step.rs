//! The steps that a request passes, and how each can refuse it.

use common::domain::{
    batch::BatchStatus,
    failure::{Failure, FailureCode},
    message::MessageStatus,
};
use http::StatusCode;

use super::samples;
use crate::{
    auth::gate::Needs,
    batches::rules::TOO_LARGE,
    endpoints::MOST_ENDPOINTS,
    error::{ApiError, NotEnqueued},
    refused::{InvalidLine, Refused},
};

/// The account's room in the examples.
const ACCOUNT_QUEUE: u64 = 200_000;

/// One step on a request's way, in the contract's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The head, and whatever happens to us.
    Any,
    /// A path that leads nowhere.
    Path,
    /// The key, and what the door asks for beyond it.
    Gate(Needs),
    /// A JSON body.
    Body,
    /// An agent of the account.
    Agent,
    /// The message that an earlier request with the same idempotency key made.
    Repeat,
    /// What the path and the query say.
    Query,
    /// A message of the account.
    Message,
    /// A message that has to run yet or still.
    Unended,
    /// A message that has to have ended.
    Ended,
    /// A message that has to have ended without an answer.
    Unanswered,
    /// A message whose texts have to be there.
    Unpurged,
    /// One more open stream.
    Seat,
    /// A key that is good for all agents.
    WholeKey,
    /// One more webhook endpoint.
    EndpointRoom,
    /// A webhook endpoint of the account.
    Endpoint,
    /// One that is enabled.
    EnabledEndpoint,
    /// A webhook delivery of the account.
    Delivery,
    /// A body of lines, each a request to an agent of the account.
    Lines,
    /// A batch of the account.
    Batch,
    /// A batch that has to run yet or still.
    UnendedBatch,
    /// A batch that has ended, with requests that were not answered, to agents of the account.
    UnansweredLines,
    /// The batch that an earlier request with the same idempotency key made.
    BatchRepeat,
    /// The credits, the account's room and the queue, for all requests of a batch.
    BatchQueue,
    /// The credits, the account's room and the queue.
    Queue,
    /// The end of a message that is waited for, and the route's status for an agent that failed.
    End(StatusCode),
    /// Whether this process can serve.
    Readiness,
}

impl Step {
    /// Every way in which the step can refuse a request, with the sample's ids in it.
    pub fn refusals(self) -> Vec<ApiError> {
        match self {
            Self::Any => vec![ApiError::AmbiguousHead("exactly one `Host` header is needed"), ApiError::Internal],
            Self::Path => vec![ApiError::NoRoute],
            Self::Gate(needs) => gate(needs),
            Self::Body => vec![
                ApiError::BodyTooLarge(65_536),
                ApiError::BadRequest("the body is empty; a JSON object is needed".to_owned()),
                ApiError::BodyTimeout,
            ],
            Self::Agent => vec![ApiError::AgentNotFound, ApiError::AgentForbidden],
            Self::Repeat => vec![
                ApiError::IdempotencyKeyReused,
                ApiError::KeyUnknown,
                ApiError::Purged(samples::MESSAGE),
                ApiError::Unreachable { id: samples::MESSAGE, accepted: None },
            ],
            Self::Query => vec![ApiError::BadRequest("`wait` has to be a number from 0 to 300".to_owned())],
            Self::Message => vec![ApiError::MessageNotFound],
            Self::Unended => vec![ApiError::AlreadyEnded(samples::MESSAGE, MessageStatus::Completed)],
            Self::Ended => vec![ApiError::NotEnded(samples::MESSAGE, MessageStatus::InProgress)],
            Self::Unanswered => vec![
                ApiError::NotEnded(samples::MESSAGE, MessageStatus::InProgress),
                ApiError::AlreadyAnswered(samples::MESSAGE),
            ],
            Self::Unpurged => vec![ApiError::Purged(samples::MESSAGE)],
            Self::Seat => vec![ApiError::TooManyStreams],
            Self::WholeKey => vec![ApiError::KeyLimited],
            Self::EndpointRoom => vec![ApiError::TooManyEndpoints(MOST_ENDPOINTS)],
            Self::Endpoint => vec![ApiError::EndpointNotFound],
            Self::EnabledEndpoint => vec![ApiError::EndpointDisabled],
            Self::Delivery => vec![ApiError::DeliveryNotFound],
            Self::Lines => vec![
                TOO_LARGE,
                ApiError::BadRequest("`Content-Type` has to be application/x-ndjson".to_owned()),
                ApiError::BodyTimeout,
                ApiError::TooManyUploads,
                ApiError::NoRoom,
                invalid("`custom_id` is missing"),
            ],
            Self::Batch => vec![ApiError::BatchNotFound],
            Self::UnendedBatch => vec![ApiError::BatchEnded(samples::BATCH, BatchStatus::Completed)],
            Self::UnansweredLines => vec![
                ApiError::BatchNotEnded(samples::BATCH, BatchStatus::InProgress),
                ApiError::NothingToRetry(samples::BATCH),
                ApiError::NoRoom,
                invalid("there is no such agent in this account"),
            ],
            Self::BatchRepeat => vec![
                ApiError::IdempotencyKeyReused,
                ApiError::KeyUnknown,
                ApiError::NotEnqueued(samples::BATCH, NotEnqueued::Changed),
            ],
            Self::BatchQueue => vec![
                ApiError::InsufficientCredits(None),
                ApiError::AccountQueueFull(ACCOUNT_QUEUE),
                ApiError::NotEnqueued(samples::BATCH, NotEnqueued::Unreachable),
                ApiError::NotEnqueued(samples::BATCH, NotEnqueued::Full),
                ApiError::Draining,
            ],
            Self::Queue => vec![
                ApiError::InsufficientCredits(None),
                ApiError::AccountQueueFull(ACCOUNT_QUEUE),
                ApiError::Unreachable { id: samples::MESSAGE, accepted: Some(false) },
                ApiError::QueueFull,
                ApiError::Draining,
            ],
            Self::End(agent_failed) => vec![
                failed(agent_failed),
                ApiError::Cancelled(samples::MESSAGE),
                ApiError::Timeout(samples::MESSAGE),
                ApiError::Expired(samples::MESSAGE),
            ],
            Self::Readiness => vec![ApiError::NotReady(vec!["database: no connection".to_owned()])],
        }
    }
}

fn invalid(error: &str) -> ApiError {
    ApiError::InvalidLines(Refused { count: 1, named: vec![InvalidLine { line: 3, error: error.to_owned() }] })
}

fn gate(needs: Needs) -> Vec<ApiError> {
    let mut refusals =
        vec![ApiError::TooManyFailures, ApiError::Unauthorized, ApiError::RateLimited, ApiError::StoreUnavailable];
    if needs != Needs::Nothing {
        refusals.push(ApiError::EmailUnverified);
    }
    if let Needs::Channel(channel) = needs {
        refusals.push(ApiError::ChannelDisabled(channel));
    }
    refusals
}

fn failed(status: StatusCode) -> ApiError {
    let message = "the model could not be reached".to_owned();
    let failure = Failure { code: FailureCode::ProviderUnavailable, message, retryable: true };
    ApiError::AgentFailed { id: samples::MESSAGE, status, failure: Some(failure) }
}
