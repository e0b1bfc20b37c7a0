//! The provider for every OpenAI-compatible endpoint: one streamed call of `chat/completions`, and what came of it.
//!
//! What is accepted is wider than what OpenAI sends, since llama.cpp, vLLM, Ollama, gateways and others differ:
//! every mark that the answer is complete counts, usage may be missing, and a plain completion passes for a stream.

mod answer;
mod body;
mod config;
pub mod events;
mod lines;
mod refusal;
mod request;
mod wire;

use async_trait::async_trait;
use reqwest::{Client, Response, header};

pub use self::config::{Limits, OpenAiConfig};
use self::{
    answer::Answer,
    body::{Body, Form},
    request::ChatBody,
};
use super::provider::{Completion, ErrorKind, ModelRequest, Provider, ProviderError, TextSink};

/// A client for one endpoint.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
    config: OpenAiConfig,
}

impl OpenAi {
    /// A client as `config` says. Follows no redirects and knows no proxies; connections are kept for later calls.
    ///
    /// # Panics
    /// When no rustls crypto provider has been installed in this process.
    pub fn new(config: OpenAiConfig) -> Result<Self, reqwest::Error> {
        let mut builder = Client::builder()
            .user_agent(concat!("frontdesk/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(config.limits.connect);
        if !config.uses_tls() {
            // Otherwise a machine without certificates could not even reach its own model server.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { client: builder.build()?, config })
    }

    /// Sends the request and waits for the head of the answer.
    async fn send(&self, request: &ModelRequest<'_>) -> Result<Response, ProviderError> {
        let body = ChatBody::new(request, self.config.wants_completion_tokens()).to_bytes()?;
        let mut call = self.client.post(self.config.endpoint()).header(header::CONTENT_TYPE, "application/json");
        call = call.header(header::ACCEPT, "text/event-stream, application/json");
        if let Some(key) = &self.config.authorization {
            call = call.header(header::AUTHORIZATION, key.clone());
        }
        call.body(body).send().await.map_err(|error| {
            let kind = if error.is_builder() { ErrorKind::BadRequest } else { ErrorKind::Connect };
            ProviderError::new(kind).because(error.without_url())
        })
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    async fn complete(&self, request: ModelRequest<'_>, text: &mut TextSink<'_>) -> Result<Completion, ProviderError> {
        let first_byte_by = tokio::time::Instant::now() + self.config.limits.first_byte;
        let response = tokio::time::timeout_at(first_byte_by, self.send(&request))
            .await
            .map_err(|_| ProviderError::new(ErrorKind::Timeout))??;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Body::new(response, first_byte_by, self.config.limits.idle);
        if !status.is_success() {
            let page = body.beginning().await;
            return Err(refusal::of_status(status.as_u16(), &headers, &page));
        }
        let answer = Answer::new(text);
        let end = match body.form().await? {
            Form::Events => answer.read_events(body).await?,
            Form::Json => answer.read_json(&body.rest().await?)?,
            Form::Other => return Err(ProviderError::new(ErrorKind::Protocol).because("not an answer but a web page")),
        };
        Ok(Completion { model: end.model.unwrap_or_else(|| request.model.to_owned()), usage: end.usage })
    }
}
