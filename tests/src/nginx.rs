//! An nginx of the test's own in front of a gateway, as people run it: connections to the gateway are kept and shared.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use crate::{nats::free_port, process::Process};

/// A running nginx.
pub struct Nginx {
    process: Process,
    folder: TempDir,
    ports: [u16; 2],
}

/// How it passes on the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// Once it is whole, with a length.
    Whole,
    /// As it comes, in chunks if it came so.
    AsTheyCome,
}

impl Nginx {
    /// Starts one in front of the gateway at `http://host:port`.
    ///
    /// # Errors
    /// When there is no `nginx` in `PATH`, or it does not come up.
    pub async fn before(gateway: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let ports = [free_port()?, free_port()?];
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration(gateway, ports))?;
        let mut command = Command::new(binary());
        command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(&file);
        let process = Process::start("nginx", command, folder.path()).context("nginx has to be installed")?;
        let mut nginx = Self { process, folder, ports };
        nginx.wait_until_up().await?;
        Ok(nginx)
    }

    /// Where it is called, as `http://host:port`.
    pub fn url(&self, bodies: Bodies) -> String {
        format!("http://127.0.0.1:{}", self.ports[bodies as usize])
    }

    /// What it has answered so far, a line a request: `request`, `status`, and of the gateway's answer `upstream` (its
    /// status) and `id` (its request id); empty when the gateway was not asked, or did not understand.
    pub fn answered(&self) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn wait_until_up(&mut self) -> Result<()> {
        for _ in 0..1_000 {
            if self.process.has_ended()? {
                break;
            }
            if TcpStream::connect(("127.0.0.1", self.ports[1])).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("nginx did not come up:\n{}", self.process.output())
    }
}

/// Debian puts it where only root looks.
fn binary() -> PathBuf {
    let places = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].map(PathBuf::from);
    places.into_iter().find(|place| place.exists()).unwrap_or_else(|| "nginx".into())
}

fn configuration(gateway: &str, [whole, as_they_come]: [u16; 2]) -> String {
    let gateway = gateway.trim_start_matches("http://");
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {name};\n"))
        .collect();
    let server = |port: u16, buffering: &str| {
        format!(
            "  server {{\n    listen 127.0.0.1:{port};\n    location / {{\n      proxy_pass http://frontdesk;\n      \
             proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n      \
             proxy_request_buffering {buffering};\n    }}\n  }}\n"
        )
    };
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{ worker_connections 1024; }}\nhttp {{\n{places}  \
         log_format answered escape=json '{{\"request\":\"$request\",\"status\":\"$status\",\
         \"upstream\":\"$upstream_status\",\"id\":\"$upstream_http_x_request_id\"}}';\n  \
         access_log access.log answered;\n  keepalive_timeout 1s;\n  client_header_timeout 1s;\n  \
         client_body_timeout 1s;\n  upstream frontdesk {{ server {gateway}; keepalive 4; }}\n{}{}}}\n",
        server(whole, "on"),
        server(as_they_come, "off"),
    )
}
