//! The outermost layer: names each request, turns panics into errors, writes the errors, and logs one line.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use common::metrics::Metrics;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use tracing::{debug, error, info};

use crate::{
    context::RequestContext,
    error::ApiError,
    fault::{self, X_MESSAGE_ID},
    framing,
};

/// What the log says of a request whose caller hung up before the answer.
const HUNG_UP: u16 = 499;

/// Handles a request with everything that is the same for all.
pub async fn observe(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let context = RequestContext::new(request.headers());
    let as_problem = fault::wants_problem(request.headers());
    let mut line = Line::new(&request, context.clone(), metrics);
    request.extensions_mut().insert(context.clone());
    let response = match framing::refusal(&request) {
        Some(refusal) => refusal.into_response(),
        None => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
            error!(request_id = %context.request_id, "a handler panicked");
            ApiError::Internal.into_response()
        }),
    };
    let mut response = fault::render(response, &context.request_id, as_problem);
    context.write(response.headers_mut());
    line.status = response.status().as_u16();
    line.message_id = response.headers().get(X_MESSAGE_ID).cloned();
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| watched(body, line))
}

/// A streamed answer's line is written at the end of its body.
fn watched(body: Body, mut line: Line) -> Body {
    Body::new(body.map_err(move |error| {
        line.break_off();
        error
    }))
}

/// The line that a request leaves in the log, and its counts; written when it is dropped.
struct Line {
    context: Arc<RequestContext>,
    metrics: Arc<Metrics>,
    method: &'static str,
    route: Option<MatchedPath>,
    begun: Instant,
    status: u16,
    message_id: Option<HeaderValue>,
    broke_off: bool,
}

impl Line {
    fn new(request: &Request, context: Arc<RequestContext>, metrics: Arc<Metrics>) -> Self {
        Self {
            context,
            metrics,
            method: name(request.method()),
            route: request.extensions().get::<MatchedPath>().cloned(),
            begun: Instant::now(),
            status: HUNG_UP,
            message_id: None,
            broke_off: false,
        }
    }

    /// The answer was not sent to its end.
    fn break_off(&mut self) {
        self.broke_off = true;
    }

    fn write(&self, took: Duration) {
        // A path is made by the caller and may hold anything; its route is ours.
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        self.metrics.request(route, self.method, self.status, took);
        let message_id = self.message_id.as_ref().and_then(|id| id.to_str().ok());
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let RequestContext { request_id, traceparent, .. } = &*self.context;
        let (method, status, broke_off) = (self.method, self.status, self.broke_off.then_some(true));
        let trace_id = traceparent.trace_id();
        if matches!(route, "/livez" | "/readyz") {
            debug!(request_id, method, route, status, duration_ms, "{method} {route} {status}");
        } else {
            info!(
                request_id,
                message_id, trace_id, method, route, status, duration_ms, broke_off, "{method} {route} {status}"
            );
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.write(self.begun.elapsed());
    }
}

/// The names of methods are labels: a caller must not be able to make up new ones.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
