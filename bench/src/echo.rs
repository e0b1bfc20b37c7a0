//! A bare axum server that sends back what it gets: what HTTP alone costs on this machine.

use std::net::SocketAddr;

use anyhow::Result;
use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::post};
use bytes::Bytes;
use tokio::net::TcpListener;

/// Serves `POST /api/v1/chat` on `address` until it is killed.
///
/// # Errors
/// When the address cannot be used.
pub async fn serve(address: SocketAddr) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the bare handler has no document")]
    let app = Router::new().route("/api/v1/chat", post(echo));
    Ok(axum::serve(TcpListener::bind(address).await?, app).await?)
}

async fn echo(body: Bytes) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], body)
}
