//! The batches of a running Frontdesk, through its HTTP API: one request each, and what came of it.

use std::time::Duration;

use common::domain::ids::BatchId;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    client_error::{ClientError, Refusal},
    server::Server,
    wire::{Batch, Batches, ErrorBody, ResultLine},
};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may say nothing, beyond what it was asked to wait.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// As much is read of an answer that is one object, or an error.
const MOST_OF_AN_ANSWER: usize = 4 << 20;
const BATCHES: &str = "/api/v1/batches";

/// The way to one server. Follows no redirects: the key would go with them.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    server: Server,
}

impl Client {
    /// A client that has not spoken yet.
    ///
    /// # Panics
    /// When no rustls crypto provider has been installed in this process.
    pub fn new(server: Server) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("frontdesk/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_LIMIT);
        if server.is_plain() {
            // Otherwise a machine without certificates could not even reach a server on its own network.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { http: builder.build().map_err(ClientError::Request)?, server })
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// Asks whether the server is there and takes the key.
    pub async fn check(&self) -> Result<(), ClientError> {
        self.answer(self.request(Method::GET, "/api/v1/health"), SILENCE_LIMIT).await.map(|_| ())
    }

    /// Sends a body of `length` bytes under `key`; how long that may take is the caller's affair. A body that came
    /// before under the same key is the same batch.
    pub async fn submit(&self, key: &str, body: Body, length: u64) -> Result<Batch, ClientError> {
        let request = self.request(Method::POST, BATCHES).header("idempotency-key", key).body(body);
        let request = request.header(CONTENT_TYPE, "application/x-ndjson").header(CONTENT_LENGTH, length);
        let answer = self.judged(request.send().await.map_err(|error| self.failed(error))?).await?;
        self.object(answer).await
    }

    /// The batch, as soon as it has ended, or after `wait`.
    pub async fn batch(&self, id: BatchId, wait: Duration) -> Result<Batch, ClientError> {
        let request = self.request(Method::GET, &format!("{BATCHES}/{id}?wait={}", wait.as_secs()));
        self.object(self.answer(request, wait + SILENCE_LIMIT).await?).await
    }

    /// The newest batches.
    pub async fn batches(&self) -> Result<Vec<Batch>, ClientError> {
        let answer = self.answer(self.request(Method::GET, BATCHES), SILENCE_LIMIT).await?;
        self.object::<Batches>(answer).await.map(|found| found.batches)
    }

    /// Stops the batch.
    pub async fn cancel(&self, id: BatchId) -> Result<Batch, ClientError> {
        let request = self.request(Method::POST, &format!("{BATCHES}/{id}/cancel"));
        self.object(self.answer(request, SILENCE_LIMIT).await?).await
    }

    /// Makes a batch of those prompts that were not answered; the same one however often it is asked for under `key`.
    pub async fn retry_failed(&self, id: BatchId, key: &str) -> Result<Batch, ClientError> {
        let request = self.request(Method::POST, &format!("{BATCHES}/{id}/retry-failed"));
        self.object(self.answer(request.header("idempotency-key", key), SILENCE_LIMIT).await?).await
    }

    /// The results behind `after` that there are now.
    pub async fn results(&self, id: BatchId, after: u64) -> Result<Results, ClientError> {
        let request = self.request(Method::GET, &format!("{BATCHES}/{id}/results?after={after}"));
        let answer = self.answer(request, SILENCE_LIMIT).await?;
        Ok(Results { answer, url: self.server.url.clone(), open: Vec::new() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.server.url);
        self.http.request(method, url).header(AUTHORIZATION, self.server.authorization.clone())
    }

    /// Sends a small request and waits for the head of a good answer.
    async fn answer(&self, request: RequestBuilder, within: Duration) -> Result<Response, ClientError> {
        let answer = timeout(within, request.send()).await.map_err(|_| ClientError::Silent)?;
        self.judged(answer.map_err(|error| self.failed(error))?).await
    }

    fn failed(&self, error: reqwest::Error) -> ClientError {
        let error = error.without_url();
        if error.is_builder() {
            ClientError::Request(error)
        } else if error.is_connect() {
            ClientError::Unreachable { url: self.server.url.clone(), cause: Box::new(error) }
        } else {
            ClientError::Broken(error)
        }
    }

    /// The answer, if it is a good one.
    async fn judged(&self, answer: Response) -> Result<Response, ClientError> {
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_success() {
            return Ok(answer);
        }
        let body = whole(answer).await?;
        let said = serde_json::from_slice(&body).unwrap_or_else(|_| said_otherwise(status, &headers));
        let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        if passing {
            return Err(ClientError::Busy {
                status: status.as_u16(),
                sentence: said.error,
                retry_after: retry_after(&headers),
            });
        }
        Err(ClientError::Refused(Box::new(Refusal {
            status: status.as_u16(),
            code: said.code,
            sentence: said.error,
            request_id: said.request_id,
            invalid_count: said.invalid_count,
            invalid_lines: said.invalid_lines,
        })))
    }

    async fn object<T: DeserializeOwned>(&self, answer: Response) -> Result<T, ClientError> {
        let body = whole(answer).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Strange { url: self.server.url.clone(), what: error.to_string() })
    }
}

/// The results that one request brings, as they come.
#[derive(Debug)]
pub struct Results {
    answer: Response,
    url: String,
    /// A line that has begun and not ended.
    open: Vec<u8>,
}

impl Results {
    /// The next whole ones, at least one; `None` when there are no more for now. A line that broke off is none.
    pub async fn next(&mut self) -> Result<Option<Vec<ResultLine>>, ClientError> {
        while let Some(piece) = next_piece(&mut self.answer).await? {
            let Some(end) = piece.iter().rposition(|byte| *byte == b'\n') else {
                self.open.extend_from_slice(&piece);
                continue;
            };
            let (lines, rest) = piece.split_at(end + 1);
            let mut whole = std::mem::replace(&mut self.open, rest.to_vec());
            whole.extend_from_slice(lines);
            return whole
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| self.read(line))
                .collect::<Result<_, _>>()
                .map(Some);
        }
        Ok(None)
    }

    fn read(&self, line: &[u8]) -> Result<ResultLine, ClientError> {
        let head = serde_json::from_slice(line)
            .map_err(|error| ClientError::Strange { url: self.url.clone(), what: error.to_string() })?;
        Ok(ResultLine { head, text: line.to_vec() })
    }
}

async fn next_piece(answer: &mut Response) -> Result<Option<bytes::Bytes>, ClientError> {
    let piece = timeout(SILENCE_LIMIT, answer.chunk()).await.map_err(|_| ClientError::Silent)?;
    piece.map_err(|error| ClientError::Broken(error.without_url()))
}

async fn whole(mut answer: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(piece) = next_piece(&mut answer).await? {
        body.extend_from_slice(&piece);
        if body.len() > MOST_OF_AN_ANSWER {
            break;
        }
    }
    Ok(body)
}

/// For an answer that is none of Frontdesk's errors: one of something between.
fn said_otherwise(status: StatusCode, headers: &HeaderMap) -> ErrorBody {
    let target = headers.get(LOCATION).and_then(|target| target.to_str().ok());
    let error = match target {
        Some(target) if status.is_redirection() => format!("it leads on to {target}: give the address behind it"),
        _ => status.canonical_reason().unwrap_or("no reason is given").to_lowercase(),
    };
    ErrorBody { error, code: "no Frontdesk error".to_owned(), ..ErrorBody::default() }
}

/// Only seconds are read; a date, as some proxy may send one, is as good as nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
