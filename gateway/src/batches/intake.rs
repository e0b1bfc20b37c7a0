//! Reads the body of a batch as it comes, and has it judged meanwhile: what is in memory of it is a portion or two.

use std::{mem, time::Duration};

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use common::{domain::fingerprint::BodyHash, lifecycle::Lifecycle};
use http_body_util::BodyExt as _;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tracing::error;

use super::{
    judge::{Judge, Judged, Stopped},
    rules::{MOST_BYTES, TOO_LARGE},
    splitter::Splitter,
};
use crate::error::ApiError;

/// How many bytes are judged at once.
const PORTION: usize = 256 * 1024;

/// A body that was read to its end.
#[derive(Debug)]
pub struct Received {
    /// Its lines.
    pub judged: Judged,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A body while it is read.
struct Intake {
    hash: BodyHash,
    splitter: Splitter,
    judge: Judge,
}

/// Refuses a body whose declared length is too large, before a byte of it was read.
///
/// # Errors
/// 413 then.
pub fn check_declared(body: &Body) -> Result<(), ApiError> {
    if body.size_hint().lower() > MOST_BYTES { Err(TOO_LARGE) } else { Ok(()) }
}

/// Reads `body`, in which the sender may pause for `pause`, and has it judged by `judge`.
///
/// # Errors
/// When it is too large, comes too slowly, breaks off, or this gateway stops.
pub async fn receive(body: Body, judge: Judge, pause: Duration, lifecycle: &Lifecycle) -> Result<Received, ApiError> {
    let mut pieces = Pieces { body, pause, total: 0 };
    let intake = Intake { hash: BodyHash::default(), splitter: Splitter::default(), judge };
    let mut judging = spawn_blocking(move || Ok(intake));
    loop {
        // Comes while the portion before is judged.
        let portion = tokio::select! {
            portion = pieces.next_portion() => portion?,
            () = lifecycle.stopping() => return Err(ApiError::Draining),
        };
        let intake = done(judging).await?;
        if portion.is_empty() {
            return done(spawn_blocking(move || intake.finish())).await;
        }
        judging = spawn_blocking(move || intake.take(&portion));
    }
}

/// What came of work that was done where it holds up nobody else.
///
/// # Errors
/// Its own, as callers see it.
pub async fn done<T>(work: JoinHandle<Result<T, Stopped>>) -> Result<T, ApiError> {
    match work.await {
        Ok(done) => done.map_err(|stopped| refusal(&stopped)),
        Err(error) => {
            error!(%error, "could not judge the lines of a batch");
            Err(ApiError::Internal)
        }
    }
}

fn refusal(stopped: &Stopped) -> ApiError {
    match stopped {
        Stopped::TooMany => TOO_LARGE,
        Stopped::Spool(error) => {
            error!(%error, "could not write the body of a batch to FRONTDESK_SPOOL_DIR");
            ApiError::NoRoom
        }
    }
}

struct Pieces {
    body: Body,
    pause: Duration,
    total: u64,
}

impl Pieces {
    /// What comes next, until it is enough for a portion; empty after the end.
    async fn next_portion(&mut self) -> Result<Vec<Bytes>, ApiError> {
        let (mut portion, mut size) = (Vec::new(), 0);
        while size < PORTION {
            let frame = match timeout(self.pause, self.body.frame()).await {
                Err(_) => return Err(ApiError::BodyTimeout),
                Ok(None) => break,
                Ok(Some(Err(_))) => {
                    return Err(ApiError::BadRequest("the body broke off, or its chunks make no sense".to_owned()));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else { continue };
            self.total += piece.len() as u64;
            if self.total > MOST_BYTES {
                return Err(TOO_LARGE);
            }
            if !piece.is_empty() {
                size += piece.len();
                portion.push(piece);
            }
        }
        Ok(portion)
    }
}

impl Intake {
    fn take(mut self, portion: &[Bytes]) -> Result<Self, Stopped> {
        for piece in portion {
            self.hash.update(piece);
            let judge = &mut self.judge;
            self.splitter.split(piece, |line| judge.take(line))?;
        }
        Ok(self)
    }

    fn finish(mut self) -> Result<Received, Stopped> {
        let splitter = mem::take(&mut self.splitter);
        splitter.finish(|line| self.judge.take(line))?;
        Ok(Received { judged: self.judge.finish()?, hash: self.hash.finish() })
    }
}
