//! The operator's port: `/metrics`, `/livez` and `/readyz`, on a listener of their own.

use std::{convert::Infallible, sync::Arc};

use ::http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use tracing::error;

use crate::{
    http::{body::RequestBody, listener::Listener},
    lifecycle::Lifecycle,
    metrics::{MEDIA_TYPE, Metrics},
    readiness::Readiness,
};

/// Serves the operator's port until the stop begins.
pub async fn serve(listener: Listener, metrics: Arc<Metrics>, readiness: Readiness, lifecycle: Lifecycle) {
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &metrics, &readiness).await) }
    });
    listener.serve(service, lifecycle).await;
}

async fn answer(method: &Method, path: &str, metrics: &Metrics, readiness: &Readiness) -> Response<Full<Bytes>> {
    if !["/metrics", "/livez", "/readyz"].contains(&path) {
        return page(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n".to_owned());
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", String::new());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => metrics_page(metrics),
        "/readyz" => readiness_page(&readiness.reasons().await),
        _ => page(StatusCode::OK, "application/json", json!({"status": "ok"}).to_string()),
    }
}

fn metrics_page(metrics: &Metrics) -> Response<Full<Bytes>> {
    match metrics.encode() {
        Ok(text) => page(StatusCode::OK, MEDIA_TYPE, text),
        Err(error) => {
            error!(%error, "cannot encode the metrics");
            page(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", String::new())
        }
    }
}

fn readiness_page(reasons: &[String]) -> Response<Full<Bytes>> {
    let (status, body) = if reasons.is_empty() {
        (StatusCode::OK, json!({"status": "ready"}))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "unavailable", "reasons": reasons}))
    };
    page(status, "application/json", body.to_string())
}

fn page(status: StatusCode, media_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::check;

    async fn status(method: Method, path: &str, readiness: &Readiness) -> u16 {
        answer(&method, path, &Metrics::new(|| 0), readiness).await.status().as_u16()
    }

    #[tokio::test]
    async fn each_page_answers_for_itself() {
        let ready = Readiness::default();
        let unready = Readiness::new(vec![("database", check(|| async { Err("gone".to_owned()) }))]);
        assert_eq!(status(Method::GET, "/metrics", &ready).await, 200);
        assert_eq!(status(Method::GET, "/readyz", &ready).await, 200);
        assert_eq!(status(Method::GET, "/readyz", &unready).await, 503);
        assert_eq!(status(Method::GET, "/livez", &unready).await, 200);
        assert_eq!(status(Method::POST, "/livez", &ready).await, 405);
        assert_eq!(status(Method::GET, "/", &ready).await, 404);
    }
}
