//! Whether the server writes to disk before it acknowledges: asked of the server, not of a file.

use std::time::Duration;

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(2);

/// The server's effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `sync_interval: always`: what is acknowledged survives a loss of power.
    Always,
    /// It syncs from time to time: a loss of power loses what was acknowledged since.
    Interval(Duration),
    /// It could not be asked; the reason.
    Unknown(String),
}

#[derive(Deserialize)]
struct Varz {
    jetstream: JetStream,
}

#[derive(Deserialize)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    sync_interval: u64,
}

/// Asks the monitoring port of the server (`http://host:port`).
pub async fn effective(monitor_url: Option<&str>) -> Durability {
    let Some(url) = monitor_url else { return Durability::Unknown("NATS_MONITOR_URL is not set".to_owned()) };
    match timeout(LIMIT, varz(url)).await {
        Ok(Ok(found)) => found,
        Ok(Err(reason)) => Durability::Unknown(reason),
        Err(_) => Durability::Unknown(format!("{url} did not answer")),
    }
}

async fn varz(url: &str) -> Result<Durability, String> {
    let host = url.strip_prefix("http://").ok_or("NATS_MONITOR_URL has to begin with http://")?.trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await.map_err(|e| e.to_string())?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    stream.take(4 << 20).read_to_end(&mut answer).await.map_err(|e| e.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    read(body)
}

fn read(body: &str) -> Result<Durability, String> {
    let varz: Varz = serde_json::from_str(body).map_err(|e| e.to_string())?;
    let config = varz.jetstream.config.ok_or("JetStream is off")?;
    if config.sync_always {
        return Ok(Durability::Always);
    }
    Ok(Durability::Interval(Duration::from_nanos(config.sync_interval)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_server_is_understood() {
        let varz = |config: &str| read(&format!(r#"{{"jetstream":{{"config":{config}}}}}"#));
        assert_eq!(varz(r#"{"sync_always":true,"sync_interval":120000000000}"#), Ok(Durability::Always));
        assert_eq!(varz(r#"{"sync_interval":120000000000}"#), Ok(Durability::Interval(Duration::from_secs(120))));
        assert!(varz("null").is_err());
    }

    #[tokio::test]
    async fn an_absent_server_is_unknown() {
        assert!(matches!(effective(Some("http://127.0.0.1:1")).await, Durability::Unknown(_)));
        assert!(matches!(effective(None).await, Durability::Unknown(_)));
    }
}
