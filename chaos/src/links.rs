//! Proxies between any two parts of the product, and between it and those who call it or whom it calls.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tests::{model::ModelServer, stack::Stack};

use crate::proxy::Proxy;

/// All links of a site.
pub struct Links {
    /// From callers to each gateway.
    pub callers: Vec<Proxy>,
    /// From gateways to the queue.
    pub gateways: Proxy,
    /// From workers to the queue.
    pub workers: Proxy,
    /// From workers to the model.
    pub model: Proxy,
    /// From gateways and workers to the database, if it is a server.
    pub database: Option<Proxy>,
}

impl Links {
    /// Lays them, and starts `gateways` and `workers` on them, in a stack that has none.
    pub async fn lay(stack: &mut Stack, model: &ModelServer, gateways: usize, workers: usize) -> Result<Self> {
        let nats = stack.nats.url();
        let server = address(&nats)?;
        let to_model = Proxy::to(address(&model.url())?).await?;
        stack.set("FRONTDESK_OPENAI_URL", format!("http://{}/v1", to_model.address()));
        let database = database(stack).await?;
        let (of_gateways, of_workers) = (Proxy::to(server).await?, Proxy::to(server).await?);
        stack.set("NATS_URL", format!("nats://{}", of_gateways.address()));
        for _ in 0..gateways {
            stack.add_gateway().await;
        }
        stack.set("NATS_URL", format!("nats://{}", of_workers.address()));
        for _ in 0..workers {
            stack.add_worker().await;
        }
        // Operators have a way of their own.
        stack.set("NATS_URL", &nats);
        stack.set("DATABASE_URL", stack.database_url.clone());
        let mut callers = Vec::new();
        for gateway in &stack.gateways {
            callers.push(Proxy::to(address(&gateway.url)?).await?);
        }
        Ok(Self { callers, gateways: of_gateways, workers: of_workers, model: to_model, database })
    }

    /// Where callers find the gateways.
    pub fn urls(&self) -> Vec<String> {
        self.callers.iter().map(|proxy| format!("http://{}", proxy.address())).collect()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<(&'static str, &Proxy)> {
        let callers = self.callers.iter().map(|proxy| ("caller to gateway", proxy));
        let inner = [
            ("gateway to queue", &self.gateways),
            ("worker to queue", &self.workers),
            ("worker to model", &self.model),
        ];
        callers.chain(inner).chain(self.database.iter().map(|proxy| ("to database", proxy))).collect()
    }
}

/// A proxy in front of PostgreSQL; SQLite is a file.
async fn database(stack: &mut Stack) -> Result<Option<Proxy>> {
    if !stack.database_url.starts_with("postgres") {
        return Ok(None);
    }
    let server = address(&stack.database_url)?;
    let proxy = Proxy::to(server).await?;
    let url = stack.database_url.replace(&server.to_string(), &proxy.address().to_string());
    stack.set("DATABASE_URL", url);
    Ok(Some(proxy))
}

/// The address in a URL.
fn address(url: &str) -> Result<SocketAddr> {
    let (_, rest) = url.split_once("://").context("a URL")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    address.parse().with_context(|| format!("an address in {url}"))
}
