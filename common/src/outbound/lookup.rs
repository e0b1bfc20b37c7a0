//! From a host's name to its addresses.

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// How many look-ups of one resolver are open at once. A name that no server answers for takes a thread for up to half
/// a minute, and the calls of models look names up on the same 512 threads.
const PLACES: usize = 64;
/// How long a look-up waits for a place.
const PATIENCE: Duration = Duration::from_secs(5);

/// What knows the addresses of names.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// All addresses of `host`, as they are now.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] when nobody was asked, because too many look-ups are open.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver, with a room for look-ups.
#[derive(Debug)]
pub struct SystemLookup {
    places: Arc<Semaphore>,
    patience: Duration,
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl SystemLookup {
    /// A resolver with a room of its own.
    pub fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), patience: PATIENCE, ask }
    }
}

impl Default for SystemLookup {
    fn default() -> Self {
        Self::new()
    }
}

impl Lookup for SystemLookup {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let free = timeout(self.patience, Arc::clone(&self.places).acquire_owned());
            let place = free.await.map_err(|_| io::ErrorKind::ResourceBusy)?.map_err(io::Error::other)?;
            let (host, ask) = (host.to_owned(), self.ask);
            let asked = spawn_blocking(move || {
                // The thread's place, also when nobody waits for the answer any more.
                let _place = place;
                ask(&host)
            });
            asked.await.map_err(io::Error::other)?
        })
    }
}

fn ask(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    static GIVES_UP: AtomicBool = AtomicBool::new(false);

    /// Says nothing about `dead` for long.
    fn slow(host: &str) -> io::Result<Vec<IpAddr>> {
        while host == "dead" && !GIVES_UP.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }

    #[tokio::test]
    async fn dead_names_take_the_places_of_one_room_until_the_machine_gives_them_up() {
        let room =
            || SystemLookup { places: Arc::new(Semaphore::new(2)), patience: Duration::from_millis(50), ask: slow };
        let (full, other) = (room(), room());
        for _ in 0..2 {
            timeout(Duration::from_millis(10), full.addresses("dead")).await.expect_err("nobody knows it");
        }
        let refused = full.addresses("alive").await.map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ResourceBusy), "their threads are still at it");
        assert!(other.addresses("alive").await.is_ok());
        GIVES_UP.store(true, Ordering::Relaxed);
        while full.addresses("alive").await.is_err() {}
    }
}
