//! What streaming stands on: core NATS carries the frames of many answers to one process, which writes the text of each
//! frame to the HTTP body that it is for. The product's frames, and nothing else of it: no queue, no auth, no order.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use async_nats::{Client, Subject};
use axum::{Router, body::Body, extract::State, http::StatusCode, routing::post};
use bytes::Bytes;
use common::{
    domain::{
        ids::{AgentId, MessageId},
        reply::{Attempt, Frame, FrameBody},
    },
    lifecycle::Lifecycle,
    queue::config::{QueueConfig, QueueRole},
};
use futures_util::{StreamExt as _, stream};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::sleep,
};

use crate::{
    bare,
    payload::{self, Asker},
};

const ASK: &str = "fan.ask";
/// Fragments that each answer is made of.
pub const FRAGMENTS: u32 = 200;
/// How long it takes to make each.
const PACE: Duration = Duration::from_millis(1);

type Streams = HashMap<MessageId, UnboundedSender<String>>;

struct Front {
    client: Client,
    /// Subject that frames come back on, before the id.
    back: String,
    streams: Mutex<Streams>,
}

impl Front {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the text of `frame` to the body that it is for; after the last frame the body ends.
    fn pass(&self, id: MessageId, frame: &[u8]) {
        match serde_json::from_slice::<Frame>(frame).map(|frame| frame.body) {
            Ok(FrameBody::Delta { text, .. }) => {
                let _ = self.streams().get(&id).map(|body| body.send(text));
            }
            _ => drop(self.streams().remove(&id)),
        }
    }
}

/// Serves `POST /api/agents/chat` on `address` until it is killed.
///
/// # Errors
/// When the address or NATS cannot be used.
pub async fn gateway(address: SocketAddr, lifecycle: &Lifecycle) -> Result<()> {
    let client = connect().await?;
    let back = format!("fan.back.{}", MessageId::new());
    let mut frames = client.subscribe(format!("{back}.*")).await?;
    let front = Arc::new(Front { client, back, streams: Mutex::default() });
    #[expect(clippy::disallowed_methods, reason = "the floor has no document")]
    let app = Router::new().route("/api/agents/chat", post(chat)).with_state(front.clone());
    lifecycle.spawn(async move {
        while let Some(frame) = frames.next().await {
            let id = frame.subject.rsplit('.').next().and_then(|id| id.parse().ok());
            id.into_iter().for_each(|id| front.pass(id, &frame.payload));
        }
    });
    Ok(axum::serve(TcpListener::bind(address).await?, app).await?)
}

async fn chat(State(front): State<Arc<Front>>, _: Bytes) -> Result<Body, StatusCode> {
    let id = MessageId::new();
    let (tx, rx) = unbounded_channel();
    front.streams().insert(id, tx);
    let back = format!("{}.{id}", front.back);
    front.client.publish_with_reply(ASK, back, Bytes::new()).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let texts = stream::unfold(rx, async |mut rx| rx.recv().await.map(|text| (Ok::<_, Infallible>(text), rx)));
    Ok(Body::from_stream(texts))
}

/// Sends the frames of an answer for each question until it is killed.
///
/// # Errors
/// When NATS cannot be used.
pub async fn worker(lifecycle: &Lifecycle) -> Result<()> {
    let client = connect().await?;
    let mut questions = client.subscribe(ASK).await?;
    while let Some(question) = questions.next().await {
        let Some(back) = question.reply else { continue };
        lifecycle.spawn(answer(client.clone(), back));
    }
    Ok(())
}

async fn answer(client: Client, back: Subject) {
    if let Err(error) = all_frames(&client, &back).await {
        eprintln!("{back}: {error:#}");
    }
}

async fn all_frames(client: &Client, back: &Subject) -> Result<()> {
    let id = back.rsplit('.').next().and_then(|id| id.parse().ok()).context("an id")?;
    let asker = Asker::new();
    let (mut at, attempt) = (0, Attempt { seq: 1, delivery: 1, restart: 0 });
    for n in 1..=FRAGMENTS {
        sleep(PACE).await;
        let text = if n == FRAGMENTS { format!("tok{n}") } else { format!("tok{n} ") };
        let next = at + text.len();
        let frame = Frame { id, attempt, n, body: FrameBody::Delta { at, text } };
        client.publish(back.clone(), serde_json::to_vec(&frame)?.into()).await?;
        at = next;
    }
    let end = payload::end(&asker.job(AgentId::new(), payload::PROMPT.to_owned()), attempt);
    Ok(client.publish(back.clone(), serde_json::to_vec(&end)?.into()).await?)
}

async fn connect() -> Result<Client> {
    bare::connect(QueueConfig::from_environment(QueueRole::Admin)?).await
}
