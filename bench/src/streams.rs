//! Many answers streamed at a time: fragments that the model makes, and chunks that reach the callers, in a second.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use crate::{fan, http::Connection, load::on_one_thread, procfs, request, sample::Sample, sites::Site};

/// Answers that are streamed at a time.
const STREAMS: u64 = 100;
/// Fragments that each is made of.
const FRAGMENTS: u64 = fan::FRAGMENTS as u64;

/// What the callers found.
#[derive(Clone, Copy, Default)]
struct Found {
    chunks: u64,
    complete: u64,
}

/// Has every caller read `turns` answers one after the other; the agent pauses for `pace` between fragments.
/// Without a pause a whole answer would be made before its first piece could leave.
///
/// # Errors
/// When nobody listens there, or a process is gone.
pub async fn run(site: &Site, pace: &str, turns: u64) -> Result<Sample> {
    let message = format!("/pace {pace}\\n/tokens {FRAGMENTS}");
    let request = request::stream(site.address, &site.key, &site.agent, &message);
    let address = site.address;
    let before = used(site)?;
    let began = Instant::now();
    let found = spawn_blocking(move || on_one_thread(all(address, request, turns))).await??;
    let seconds = began.elapsed().as_secs_f64();
    let after = used(site)?;
    let chunks = found.chunks.max(1) as f64;
    Ok(Sample {
        rate: found.chunks as f64 / seconds,
        errors: STREAMS * turns - found.complete,
        cpu: [0, 1, 2, 3].map(|i| Some((after[i] - before[i]) * 10_000.0 / chunks)),
        answered: Some(found.complete as f64),
        fragments: Some((found.complete * FRAGMENTS) as f64 / seconds),
        ..Sample::default()
    })
}

async fn all(address: SocketAddr, request: Vec<u8>, turns: u64) -> Result<Found> {
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        let request = request.clone();
        tasks.spawn(async move {
            let mut found = Found::default();
            for _ in 0..turns {
                if let Ok(chunks) = one(address, &request).await {
                    found.complete += 1;
                    found.chunks += chunks;
                }
            }
            found
        });
    }
    let mut sum = Found::default();
    while let Some(found) = tasks.join_next().await {
        let found = found?;
        sum = Found { chunks: sum.chunks + found.chunks, complete: sum.complete + found.complete };
    }
    Ok(sum)
}

/// In how many chunks one whole answer came.
async fn one(address: SocketAddr, request: &[u8]) -> Result<u64> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.ask(request).await?;
    anyhow::ensure!(answer.status == 200 && is_whole(connection.body()), "not the whole answer");
    Ok(answer.chunks)
}

/// Whether `body` says `tok1 tok2 …` up to the last one.
fn is_whole(body: &[u8]) -> bool {
    let words = body.split(|byte| *byte == b' ');
    words.clone().count() == usize::try_from(FRAGMENTS).unwrap_or_default()
        && words.zip(1..).all(|(word, number)| word == format!("tok{number}").as_bytes())
}

/// Processor seconds used so far by each process, ourselves last.
fn used(site: &Site) -> Result<[f64; 4]> {
    let [gateway, worker, nats] = site.processes();
    let mut used = [0.0; 4];
    for (used, child) in used.iter_mut().zip([gateway, worker, nats]) {
        *used = child.map_or(Ok(std::time::Duration::ZERO), |child| child.cpu())?.as_secs_f64();
    }
    used[3] = procfs::cpu(std::process::id())?.as_secs_f64();
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_counts_to_the_end() {
        let whole: Vec<String> = (1..=FRAGMENTS).map(|number| format!("tok{number}")).collect();
        assert!(is_whole(whole.join(" ").as_bytes()));
        assert!(!is_whole(whole[..199].join(" ").as_bytes()));
        assert!(!is_whole(whole.join(" ").replace("tok77 ", "tok78 ").as_bytes()));
    }
}
