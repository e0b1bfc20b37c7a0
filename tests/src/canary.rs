//! A listener on all addresses of this machine that nobody may ever reach: it counts who does.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::patience::until;

/// A running canary. It ends when it is dropped.
#[derive(Debug)]
pub struct Canary {
    port: u16,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Canary {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        // On Linux the first takes IPv4 as well; not every machine has IPv6.
        let listener = match TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind("0.0.0.0:0").await.expect("a free port"),
        };
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { port, connections, _tasks: tasks }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many have connected so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connects by every address that it is known to have, to see that it counts; returns how many these were.
    ///
    /// # Panics
    /// When it counts otherwise.
    pub async fn sing(&self) -> usize {
        let (addresses, before) = (own_addresses(), self.connections());
        for address in &addresses {
            TcpStream::connect(SocketAddr::new(*address, self.port)).await.expect("a canary that listens");
        }
        until("the canary counts", async || (self.connections() == before + addresses.len()).then_some(())).await;
        addresses.len()
    }
}

/// The loopback, and the address by which this machine would call the Internet, if it has one.
pub fn own_addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    // Nothing is sent: the system only chooses where it would go out.
    let outward = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("8.8.8.8:53")?;
        Ok(socket.local_addr()?.ip())
    });
    addresses.extend(outward.ok().filter(|address| !address.is_loopback()));
    addresses
}
