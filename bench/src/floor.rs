//! The floor: the least that is still an HTTP server in front of the job path, in two processes as the product is.
//!
//! A bare axum handler, a map of waiters, the product's publisher, pull loop and payloads; no auth, no database.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::post,
};
use bytes::Bytes;
use common::{
    domain::{
        ids::{AgentId, MessageId},
        reply::{Frame, FrameBody},
    },
    lifecycle::Lifecycle,
    queue::{
        config::{QueueConfig, QueueRole},
        connection::Connection,
        consumer::Puller,
        delivery::Delivery,
        place::Place,
        publisher::Publisher,
        replies::{ReplyReceiver, ReplySender},
        streams,
        wakes::Wakes,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::oneshot};

use crate::payload::{self, Asker};

/// As many jobs at a time as a worker of the product runs as shipped.
const SLOTS: usize = 64;

#[derive(Deserialize)]
struct Question {
    employee_id: AgentId,
    prompt: String,
}

#[derive(Serialize)]
struct Answer {
    message_id: MessageId,
    employee_id: AgentId,
    content: Option<String>,
}

type Waiting = HashMap<MessageId, oneshot::Sender<Bytes>>;

struct Front {
    asker: Asker,
    publisher: Publisher,
    waiting: Mutex<Waiting>,
}

impl Front {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, question: Question) -> Option<Answer> {
        let job = self.asker.job(question.employee_id, question.prompt);
        let (tx, rx) = oneshot::channel();
        let (id, agent) = (job.id, job.agent);
        self.waiting().insert(id, tx);
        self.publisher.publish(job, Place::Front, None).await.ok()?;
        let frame: Frame = serde_json::from_slice(&rx.await.ok()?).ok()?;
        let FrameBody::Terminal { outcome } = frame.body else { return None };
        Some(Answer { message_id: id, employee_id: agent, content: outcome.content })
    }
}

/// Serves `POST /api/v1/chat` on `address` until it is killed.
///
/// # Errors
/// When the address or NATS cannot be used.
pub async fn gateway(address: SocketAddr, lifecycle: &Lifecycle) -> Result<()> {
    let connection = connect(QueueRole::Gateway).await?;
    let asker = Asker::new();
    let mut replies = ReplyReceiver::subscribe(&connection, asker.gateway).await?;
    let publisher = Publisher::new(connection.clone(), Wakes::start(connection, lifecycle), Duration::from_secs(2));
    let front = Arc::new(Front { asker, publisher, waiting: Mutex::default() });
    #[expect(clippy::disallowed_methods, reason = "the floor has no document")]
    let app = Router::new().route("/api/v1/chat", post(chat)).with_state(front.clone());
    lifecycle.spawn(async move {
        while let Some((id, frame)) = replies.next().await {
            let waiter = front.waiting().remove(&id);
            let _ = waiter.map(|waiter| waiter.send(frame));
        }
    });
    Ok(axum::serve(TcpListener::bind(address).await?, app).await?)
}

async fn chat(State(front): State<Arc<Front>>, body: Bytes) -> Result<impl IntoResponse, StatusCode> {
    let question = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let answer = front.ask(question).await.ok_or(StatusCode::BAD_GATEWAY)?;
    let body = serde_json::to_vec(&answer).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, "application/json")], body))
}

/// Echoes jobs until it is killed.
///
/// # Errors
/// When NATS cannot be used.
pub async fn worker(lifecycle: &Lifecycle) -> Result<()> {
    let connection = connect(QueueRole::Worker).await?;
    let ack_wait = streams::wait_until_fit(&connection, 0).await;
    let mut puller = Puller::new(connection.clone(), SLOTS, ack_wait, Wakes::start(connection.clone(), lifecycle));
    let replies = ReplySender::new(connection);
    loop {
        lifecycle.spawn(echo(puller.next().await, replies.clone()));
    }
}

async fn echo(delivery: Delivery, replies: ReplySender) {
    let Ok(job) = delivery.job() else { return delivery.reject().await };
    replies.terminal(job.reply_to, payload::end(&job, delivery.info().attempt)).await;
    delivery.ack().await;
}

async fn connect(role: QueueRole) -> Result<Connection> {
    let connection = Connection::open(&QueueConfig::from_environment(role)?).await?;
    ensure!(connection.wait_until_up(Duration::from_secs(10)).await, "no connection to NATS");
    Ok(connection)
}
