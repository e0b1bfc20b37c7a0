//! What the API says of itself, without a key: the document, and a page that shows it. Nothing is loaded from elsewhere.

use axum::{Extension, Router, body::Body, extract::Path, response::IntoResponse};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};
use tracing::error;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    openapi::{answers::passing, step::Step},
    state::AppState,
};

const PAGE: &[u8] = include_bytes!("../../assets/docs/index.html");
const START: &[u8] = include_bytes!("../../assets/docs/start.js");
const VIEWER: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js.gz");
const STYLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui.css.gz");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// The page runs its own script and asks its own server; no inline script, no frame, nobody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The files change with the program alone.
const KEEP: &str = "public, max-age=3600";

/// The document as it is sent.
#[derive(Clone)]
struct Written(Bytes);

/// The document of this API, as OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "reference",
    responses((status = 200, description = "The document.", body = Object)),
)]
async fn openapi(Extension(Written(document)): Extension<Written>) -> impl IntoResponse {
    file("application/json", document)
}

/// A page that shows this document.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "reference",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html; charset=utf-8")),
)]
async fn docs() -> impl IntoResponse {
    let policy = [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (policy, file("text/html; charset=utf-8", Bytes::from_static(PAGE)))
}

/// What the page is made of.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "docs_file",
    tag = "reference",
    params(("file" = String, Path, description = "The file's name.", example = "start.js")),
    responses((
        status = 200,
        description = "The file. Scripts and style sheets of the viewer are compressed with gzip.",
        content((String = "text/javascript; charset=utf-8"), (String = "text/css; charset=utf-8")),
    )),
)]
async fn docs_file(Path(name): Path<String>) -> Result<impl IntoResponse, ApiError> {
    let compressed = Some((CONTENT_ENCODING, "gzip"));
    let (media_type, encoding, content) = match name.as_str() {
        "start.js" => (JAVASCRIPT, None, START),
        "swagger-ui.js" => (JAVASCRIPT, compressed, VIEWER),
        "swagger-ui.css" => ("text/css; charset=utf-8", compressed, STYLE),
        _ => return Err(ApiError::NoRoute),
    };
    let mut response = ([(CACHE_CONTROL, KEEP)], file(media_type, Bytes::from_static(content))).into_response();
    response.headers_mut().extend(encoding.map(|(name, value)| (name, HeaderValue::from_static(value))));
    Ok(response)
}

fn file(media_type: &'static str, content: Bytes) -> ([(HeaderName, &'static str); 2], Body) {
    ([(CONTENT_TYPE, media_type), (X_CONTENT_TYPE_OPTIONS, "nosniff")], Body::from(content))
}

/// The routes of the reference; `document` describes all others.
pub fn routes(mut document: OpenApi) -> Router<AppState> {
    let (routes, own) = OpenApiRouter::new()
        .routes(passing(&[], routes!(openapi)))
        .routes(passing(&[], routes!(docs)))
        .routes(passing(&[Step::Path], routes!(docs_file)))
        .split_for_parts();
    document.merge(own);
    let written = document.to_json().unwrap_or_else(|error| {
        error!(%error, "could not write the document of the API");
        String::new()
    });
    routes.layer(Extension(Written(Bytes::from(written))))
}
