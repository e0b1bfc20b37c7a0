//! The operator's port: `/metrics`, `/scale`, `/livez` and `/readyz`, on a listener of their own.

use std::{convert::Infallible, sync::Arc};

use ::http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tracing::error;

use crate::{
    domain::{backlog::Backlog, time::Millis},
    http::{body::RequestBody, listener::Listener},
    lifecycle::Lifecycle,
    metrics::{MEDIA_TYPE, Metrics},
    queue::backlog::BacklogGauge,
    readiness::Readiness,
};

/// What the operator's port tells.
#[derive(Clone)]
pub struct Pages {
    /// What this process counts.
    pub metrics: Arc<Metrics>,
    /// Whether it can do its work.
    pub readiness: Readiness,
    /// The whole pool's backlog, for whoever scales it. Gateways tell it: they are there when no worker is.
    pub backlog: Option<BacklogGauge>,
}

/// Serves the operator's port until the stop begins.
pub async fn serve(listener: Listener, pages: Pages, lifecycle: Lifecycle) {
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &pages).await) }
    });
    listener.serve(service, lifecycle).await;
}

async fn answer(method: &Method, path: &str, pages: &Pages) -> Response<Full<Bytes>> {
    let is_known = ["/metrics", "/livez", "/readyz"].contains(&path) || path == "/scale" && pages.backlog.is_some();
    if !is_known {
        return page(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n".to_owned());
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", String::new());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => {
            pages.metrics.backlog_read(backlog(pages).await);
            metrics_page(&pages.metrics)
        }
        "/scale" => scale_page(backlog(pages).await),
        "/readyz" => readiness_page(&pages.readiness.reasons().await),
        _ => page(StatusCode::OK, "application/json", json!({"status": "ok"}).to_string()),
    }
}

async fn backlog(pages: &Pages) -> Option<Backlog> {
    pages.backlog.as_ref()?.read().await
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

/// The backlog for scalers that read JSON. They must not take a queue that does not answer for an empty one.
fn scale_page(backlog: Option<Backlog>) -> Response<Full<Bytes>> {
    let Some(backlog) = backlog else {
        let body = json!({"error": "the queue does not tell how much work there is"});
        return page(StatusCode::SERVICE_UNAVAILABLE, "application/json", body.to_string());
    };
    let now = Millis::now();
    let lanes: Map<String, Value> = backlog
        .lanes()
        .map(|(lane, counts)| {
            let age = counts.oldest_age(now).as_secs_f64();
            let counts = json!({"pending": counts.pending, "running": counts.running, "oldest_age_s": age});
            (lane.name().to_owned(), counts)
        })
        .collect();
    let body = json!({
        "lanes": lanes,
        "pending": backlog.pending(),
        "running": backlog.running(),
        "unfinished": backlog.unfinished(),
        "drain_s": backlog.drain.map(|drain| drain.as_secs_f64()),
    });
    page(StatusCode::OK, "application/json", body.to_string())
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
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{domain::backlog::LaneBacklog, readiness::check};

    fn pages(readiness: Readiness) -> Pages {
        Pages { metrics: Arc::new(Metrics::new(|| 0)), readiness, backlog: None }
    }

    async fn status(method: Method, path: &str, pages: &Pages) -> u16 {
        answer(&method, path, pages).await.status().as_u16()
    }

    #[tokio::test]
    async fn each_page_answers_for_itself() {
        let ready = pages(Readiness::default());
        let unready = pages(Readiness::new(vec![("database", check(|| async { Err("gone".to_owned()) }))]));
        assert_eq!(status(Method::GET, "/metrics", &ready).await, 200);
        assert_eq!(status(Method::GET, "/readyz", &ready).await, 200);
        assert_eq!(status(Method::GET, "/readyz", &unready).await, 503);
        assert_eq!(status(Method::GET, "/livez", &unready).await, 200);
        assert_eq!(status(Method::POST, "/livez", &ready).await, 405);
        assert_eq!(status(Method::GET, "/", &ready).await, 404);
        assert_eq!(status(Method::GET, "/scale", &ready).await, 404, "whoever knows no backlog has no such page");
    }

    #[tokio::test]
    async fn a_scaler_reads_each_lane_and_the_whole() {
        let mut backlog = Backlog { drain: Some(Duration::from_millis(1_500)), ..Backlog::default() };
        backlog.lanes[2] = LaneBacklog { pending: 7, running: 2, oldest: None };
        let body = async |page: Response<Full<Bytes>>| {
            let body = page.into_body().collect().await.expect("a body").to_bytes();
            serde_json::from_slice::<Value>(&body).expect("JSON")
        };
        let none = json!({"pending": 0, "running": 0, "oldest_age_s": 0.0});
        let expected = json!({
            "lanes": {
                "interactive": none,
                "background": none,
                "batch": {"pending": 7, "running": 2, "oldest_age_s": 0.0},
            },
            "pending": 7, "running": 2, "unfinished": 9, "drain_s": 1.5,
        });
        assert_eq!(body(scale_page(Some(backlog))).await, expected);
        let unknown = scale_page(Some(Backlog { drain: None, ..backlog }));
        assert_eq!(body(unknown).await["drain_s"], Value::Null);
        assert_eq!(scale_page(None).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
