//! Every way in which a request can end badly, and the status, code and sentence that its caller gets.

use axum::response::{IntoResponse, Response};
use common::domain::{
    batch::BatchStatus,
    channel::Channel,
    failure::{Failure, FailureCode},
    ids::{BatchId, MessageId},
    message::MessageStatus,
};
use http::StatusCode;

use crate::{dispatcher::answer::Answer, fault::Fault, refused::Refused};

/// Seconds to wait after a rate limit's refusal; the contract's own number.
const RATE_LIMIT_PAUSE: &str = "60";
/// Seconds to wait for a full queue to move or for a stopping gateway to be replaced.
const SHORT_PAUSE: &str = "5";

/// An error that is answered to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The body is not what the route takes; the sentence names the field.
    BadRequest(String),
    /// The head can be read in two ways, or not at all.
    AmbiguousHead(&'static str),
    /// No key, or none that is valid.
    Unauthorized,
    /// Too many of them from one address.
    TooManyFailures,
    /// The account's address is not verified.
    EmailUnverified,
    /// The account has not switched the channel on.
    ChannelDisabled(Channel),
    /// The key is at its limit.
    RateLimited,
    /// The key holds as many streams open as it may.
    TooManyStreams,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    BodyTimeout,
    /// No such agent in the caller's account.
    AgentNotFound,
    /// The key may not use this agent of its account.
    AgentForbidden,
    /// No such message in the caller's account, or not one to an agent that its key may use.
    MessageNotFound,
    /// The message has ended: it cannot be stopped.
    AlreadyEnded(MessageId, MessageStatus),
    /// The message has not ended: it cannot be purged, nor run again.
    NotEnded(MessageId, MessageStatus),
    /// The message was answered: it is not run again.
    AlreadyAnswered(MessageId),
    /// The idempotency key came with another request before.
    IdempotencyKeyReused,
    /// The idempotency key cannot be looked up, so that nobody knows whether an earlier request with it was accepted.
    KeyUnknown,
    /// The texts of the message were purged.
    Purged(MessageId),
    /// The key is limited to some agents, and this is about all of them.
    KeyLimited,
    /// The body has more lines, or more bytes, than a batch may have.
    BatchTooLarge {
        /// The most lines.
        lines: u32,
        /// The most bytes.
        bytes: u64,
    },
    /// The account sends as many bodies of batches at once as it may.
    TooManyUploads,
    /// There is no room for the body of a batch.
    NoRoom,
    /// Lines of the body make no sense.
    InvalidLines(Refused),
    /// No such batch in the caller's account, or not one that its key has made.
    BatchNotFound,
    /// The batch has ended: it cannot be stopped.
    BatchEnded(BatchId, BatchStatus),
    /// The batch has not ended: it cannot be run again.
    BatchNotEnded(BatchId, BatchStatus),
    /// The batch was cancelled, and some of its requests are still on the queue.
    BatchUnsettled(BatchId),
    /// Every request of the batch was answered.
    NothingToRetry(BatchId),
    /// Some requests of the batch may be on the queue, and others are not.
    NotEnqueued(BatchId, NotEnqueued),
    /// The account has as many unfinished jobs as it may have.
    AccountQueueFull(u64),
    /// No such webhook endpoint in the caller's account.
    EndpointNotFound,
    /// No such webhook delivery in the caller's account.
    DeliveryNotFound,
    /// Nothing is sent to the webhook endpoint, or it is gone.
    EndpointDisabled,
    /// The account has as many webhook endpoints as it may have.
    TooManyEndpoints(u64),
    /// The account has nothing left to spend.
    InsufficientCredits(Option<MessageId>),
    /// The message could not be handed to the queue, or nobody knows.
    Unreachable {
        /// The message.
        id: MessageId,
        /// Whether it was taken.
        accepted: Option<bool>,
    },
    /// The database cannot be asked. Nothing was accepted.
    StoreUnavailable,
    /// The agent ran and failed; routes differ in the status for that.
    AgentFailed {
        /// The message.
        id: MessageId,
        /// The route's status.
        status: StatusCode,
        /// Why.
        failure: Option<Failure>,
    },
    /// Somebody stopped the message while its caller waited.
    Cancelled(MessageId),
    /// The message was not begun in time.
    Expired(MessageId),
    /// The caller's time is up; the message goes on.
    Timeout(MessageId),
    /// The queue takes no more.
    QueueFull,
    /// This gateway is stopping.
    Draining,
    /// This gateway cannot do its work; the reasons.
    NotReady(Vec<String>),
    /// No such route.
    NoRoute,
    /// The route has no such method.
    NoMethod,
    /// A defect of ours.
    Internal,
}

/// Why not all requests of a batch are known to be on the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEnqueued {
    /// The queue takes no more.
    Full,
    /// The queue, or the store, cannot be reached.
    Unreachable,
    /// This gateway has to stop.
    Draining,
    /// Not all of the lines that were accepted before can be used now: an agent of theirs is gone.
    Changed,
}

impl ApiError {
    /// What the end of a message without an answer means on a route that answers a failed agent with `agent_failed`.
    pub fn ended(answer: Answer, agent_failed: StatusCode) -> Self {
        let (id, failure) = (answer.id, answer.outcome.failure);
        match answer.outcome.status {
            MessageStatus::Cancelled => Self::Cancelled(id),
            MessageStatus::Expired => Self::Expired(id),
            _ if failure.as_ref().is_some_and(|failure| failure.code == FailureCode::InsufficientCredits) => {
                Self::InsufficientCredits(Some(id))
            }
            _ => Self::AgentFailed { id, status: agent_failed, failure },
        }
    }

    /// The table of statuses in docs/using.md, line by line.
    pub fn into_fault(self) -> Fault {
        use StatusCode as S;
        match self {
            Self::BadRequest(sentence) => Fault::new(S::BAD_REQUEST, "invalid_request", sentence),
            Self::AmbiguousHead(sentence) => Fault::new(S::BAD_REQUEST, "invalid_request", sentence).closing(),
            Self::Unauthorized => Fault::new(
                S::UNAUTHORIZED,
                "unauthorized",
                "a valid API key is needed, as `Authorization: Bearer <key>` or `X-API-Key: <key>`",
            )
            .challenging(),
            Self::TooManyFailures => Fault::new(
                S::TOO_MANY_REQUESTS,
                "too_many_failures",
                "too many requests without a valid API key came from this address",
            )
            .retryable(true)
            .retry_after(RATE_LIMIT_PAUSE),
            Self::InsufficientCredits(id) => {
                let fault = Fault::new(S::PAYMENT_REQUIRED, "insufficient_credits", "the account has no credits left");
                id.into_iter().fold(fault, Fault::about)
            }
            Self::EmailUnverified => {
                Fault::new(S::FORBIDDEN, "email_not_verified", "the account's email address is not verified")
            }
            Self::ChannelDisabled(channel) => Fault::new(
                S::FORBIDDEN,
                "channel_disabled",
                format!("the channel `{channel}` is not enabled for this account"),
            ),
            Self::AgentForbidden => {
                Fault::new(S::FORBIDDEN, "agent_forbidden", "this API key has no access to that agent")
            }
            Self::AgentNotFound => {
                Fault::new(S::NOT_FOUND, "agent_not_found", "there is no such agent in this account")
            }
            Self::KeyLimited => Fault::new(
                S::FORBIDDEN,
                "key_limited",
                "this API key is limited to some agents; webhook endpoints are told of all of them",
            ),
            Self::EndpointNotFound => {
                Fault::new(S::NOT_FOUND, "endpoint_not_found", "there is no such webhook endpoint in this account")
            }
            Self::DeliveryNotFound => {
                Fault::new(S::NOT_FOUND, "delivery_not_found", "there is no such webhook delivery in this account")
            }
            Self::EndpointDisabled => {
                Fault::new(S::CONFLICT, "endpoint_disabled", "the webhook endpoint is disabled or gone")
            }
            Self::TooManyEndpoints(most) => Fault::new(
                S::CONFLICT,
                "too_many_endpoints",
                format!("the account has {most} webhook endpoints, as many as it may have"),
            ),
            Self::NoRoute => Fault::new(S::NOT_FOUND, "not_found", "there is nothing at this path"),
            Self::NoMethod => {
                Fault::new(S::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method")
            }
            Self::BodyTimeout => Fault::new(S::REQUEST_TIMEOUT, "body_timeout", "the body did not arrive in time")
                .retryable(true)
                .closing(),
            Self::Cancelled(id) => {
                Fault::new(S::CONFLICT, "cancelled", "the message was cancelled").about(id).retryable(false)
            }
            Self::Purged(id) => {
                Fault::new(S::GONE, "purged", "the texts of the message were purged").about(id).retryable(false)
            }
            Self::IdempotencyKeyReused => Fault::new(
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "the idempotency key was used for another request before",
            )
            .retryable(false),
            Self::KeyUnknown => {
                Fault::new(S::BAD_GATEWAY, "unreachable", "the idempotency key could not be looked up for now")
                    .accepted(None)
                    .retryable(true)
            }
            Self::BodyTooLarge(limit) => {
                Fault::new(S::PAYLOAD_TOO_LARGE, "body_too_large", format!("the body is larger than {limit} bytes"))
            }
            Self::RateLimited => {
                Fault::new(S::TOO_MANY_REQUESTS, "rate_limited", "this API key is over its rate limit")
                    .retryable(true)
                    .retry_after(RATE_LIMIT_PAUSE)
            }
            Self::TooManyStreams => Fault::new(
                S::TOO_MANY_REQUESTS,
                "too_many_streams",
                "this API key holds as many streams open as it may",
            )
            .retryable(true)
            .retry_after(RATE_LIMIT_PAUSE),
            Self::Internal => Fault::new(S::INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side"),
            Self::AgentFailed { id, status, failure } => {
                let (sentence, retryable) = match failure {
                    Some(failure) => (failure.message, failure.retryable),
                    None => ("the agent failed".to_owned(), true),
                };
                Fault::new(status, "agent_failed", sentence).about(id).accepted(Some(true)).retryable(retryable)
            }
            Self::Unreachable { id, accepted } => {
                let fault = Fault::new(S::BAD_GATEWAY, "unreachable", "the employee could not be reached");
                let fault = fault.about(id).accepted(accepted);
                if accepted == Some(false) { fault.retryable(true) } else { fault }
            }
            Self::MessageNotFound => {
                Fault::new(S::NOT_FOUND, "message_not_found", "there is no such message in this account")
            }
            Self::AlreadyEnded(id, status) => {
                Fault::new(S::CONFLICT, "already_ended", "the message has ended").about(id).standing_at(status)
            }
            Self::NotEnded(id, status) => {
                Fault::new(S::CONFLICT, "not_ended", "the message has not ended yet; it can be cancelled")
                    .about(id)
                    .standing_at(status)
            }
            Self::AlreadyAnswered(id) => {
                Fault::new(S::CONFLICT, "already_answered", "the message was answered; a new one asks again")
                    .about(id)
                    .standing_at(MessageStatus::Completed)
            }
            Self::BatchTooLarge { lines, bytes } => Fault::new(
                S::PAYLOAD_TOO_LARGE,
                "batch_too_large",
                format!("a batch has at most {lines} requests and {bytes} bytes"),
            ),
            Self::TooManyUploads => Fault::new(
                S::TOO_MANY_REQUESTS,
                "too_many_uploads",
                "the account sends as many batches at once as it may",
            )
            .accepted(Some(false))
            .retryable(true)
            .retry_after(RATE_LIMIT_PAUSE),
            Self::NoRoom => Fault::new(S::SERVICE_UNAVAILABLE, "no_room", "there is no room for the body now")
                .accepted(Some(false))
                .retryable(true)
                .retry_after(SHORT_PAUSE),
            Self::InvalidLines(refused) => Fault::new(
                S::UNPROCESSABLE_ENTITY,
                "invalid_lines",
                format!("{} of the lines cannot be used; nothing was accepted", refused.count),
            )
            .accepted(Some(false))
            .retryable(false)
            .listing(refused),
            Self::BatchNotFound => {
                Fault::new(S::NOT_FOUND, "batch_not_found", "there is no such batch in this account")
            }
            Self::BatchEnded(id, status) => {
                Fault::new(S::CONFLICT, "already_ended", "the batch has ended").about_batch(id).batch_at(status)
            }
            Self::BatchNotEnded(id, status) => {
                Fault::new(S::CONFLICT, "not_ended", "the batch has not ended yet; it can be cancelled")
                    .about_batch(id)
                    .batch_at(status)
            }
            Self::BatchUnsettled(id) => Fault::new(
                S::CONFLICT,
                "not_ended",
                "the requests of the batch are still being taken off the queue; it can be run again in a moment",
            )
            .about_batch(id)
            .batch_at(BatchStatus::Cancelled)
            .retryable(true),
            Self::NothingToRetry(id) => {
                Fault::new(S::CONFLICT, "nothing_to_retry", "every request of the batch was answered").about_batch(id)
            }
            Self::NotEnqueued(id, reason) => {
                let is_retryable = reason != NotEnqueued::Changed;
                reason.fault().about_batch(id).accepted(None).retryable(is_retryable)
            }
            Self::AccountQueueFull(limit) => Fault::new(
                S::TOO_MANY_REQUESTS,
                "account_queue_full",
                format!("the account would have more than {limit} unfinished jobs"),
            )
            .accepted(Some(false))
            .retryable(true)
            .retry_after(RATE_LIMIT_PAUSE),
            Self::StoreUnavailable => {
                Fault::new(S::BAD_GATEWAY, "unreachable", "the request could not be looked into for now")
                    .accepted(Some(false))
                    .retryable(true)
            }
            Self::QueueFull => Fault::new(S::SERVICE_UNAVAILABLE, "queue_full", "the queue is full")
                .accepted(Some(false))
                .retryable(true)
                .retry_after(SHORT_PAUSE),
            Self::Draining => Fault::new(S::SERVICE_UNAVAILABLE, "draining", "this gateway is stopping")
                .accepted(Some(false))
                .retryable(true)
                .retry_after(SHORT_PAUSE),
            Self::NotReady(reasons) => Fault::new(S::SERVICE_UNAVAILABLE, "not_ready", "this gateway cannot serve now")
                .because(&reasons)
                .retryable(true)
                .retry_after(SHORT_PAUSE),
            Self::Expired(id) => {
                Fault::new(S::GATEWAY_TIMEOUT, "expired", "the message was not begun in time").about(id).retryable(true)
            }
            Self::Timeout(id) => Fault::new(S::GATEWAY_TIMEOUT, "timeout", "the employee did not answer in time")
                .about(id)
                .accepted(Some(true))
                .found_at(MessageStatus::InProgress, status_url(id)),
        }
    }
}

impl NotEnqueued {
    fn fault(self) -> Fault {
        use StatusCode as S;
        match self {
            Self::Full => Fault::new(
                S::SERVICE_UNAVAILABLE,
                "queue_full",
                "the queue is full; the same body under the same idempotency key goes on from here",
            )
            .retry_after(SHORT_PAUSE),
            Self::Unreachable => Fault::new(
                S::BAD_GATEWAY,
                "unreachable",
                "the queue could not be reached; the same body under the same idempotency key goes on from here",
            ),
            Self::Changed => Fault::new(
                S::CONFLICT,
                "batch_changed",
                "not all of the lines that were accepted before can be used now; the batch can be cancelled",
            ),
            Self::Draining => Fault::new(
                S::SERVICE_UNAVAILABLE,
                "draining",
                "this gateway is stopping; the same body under the same idempotency key goes on from here",
            )
            .retry_after(SHORT_PAUSE),
        }
    }
}

/// Where a message can be read.
pub fn status_url(id: MessageId) -> String {
    format!("/api/v1/messages/{id}")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.into_fault().into_response()
    }
}

#[cfg(test)]
mod tests {
    use common::domain::{message::Usage, reply::Outcome, time::Millis};
    use http::header::{CONNECTION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};

    use super::*;

    fn answer(status: MessageStatus, code: Option<FailureCode>) -> Answer {
        let failure = code.map(|code| Failure { code, message: "no luck".to_owned(), retryable: false });
        let outcome = Outcome {
            status,
            content: None,
            model: None,
            usage: Usage::default(),
            credits_charged: 0,
            failure,
            attempts: 1,
            started_at: None,
            completed_at: Millis(0),
        };
        Answer { id: MessageId::new(), created_at: Millis(0), outcome }
    }

    fn ended(status: MessageStatus, code: Option<FailureCode>) -> u16 {
        ApiError::ended(answer(status, code), StatusCode::BAD_GATEWAY).into_response().status().as_u16()
    }

    #[test]
    fn ends_without_an_answer_have_the_contracts_statuses() {
        assert_eq!(ended(MessageStatus::Failed, Some(FailureCode::ProviderTimeout)), 502);
        assert_eq!(ended(MessageStatus::Failed, None), 502);
        assert_eq!(ended(MessageStatus::Failed, Some(FailureCode::InsufficientCredits)), 402);
        assert_eq!(ended(MessageStatus::Cancelled, Some(FailureCode::Cancelled)), 409);
        assert_eq!(ended(MessageStatus::Expired, Some(FailureCode::Expired)), 504);
    }

    #[test]
    fn headers_that_tell_callers_what_to_do() {
        for error in [ApiError::RateLimited, ApiError::TooManyFailures, ApiError::TooManyStreams] {
            assert_eq!(error.into_response().headers()[RETRY_AFTER], "60");
        }
        for error in [ApiError::QueueFull, ApiError::Draining, ApiError::NotReady(vec![])] {
            assert!(error.into_response().headers().contains_key(RETRY_AFTER));
        }
        assert_eq!(ApiError::Unauthorized.into_response().headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(ApiError::AmbiguousHead("").into_response().headers()[CONNECTION], "close");
        let id = MessageId::new();
        assert_eq!(ApiError::Timeout(id).into_response().headers()[LOCATION], format!("/api/v1/messages/{id}"));
    }
}
