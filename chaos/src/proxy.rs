//! A TCP proxy between any two parts, that a row can spoil.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinSet, yield_now},
    time::sleep,
};

/// How much is passed on at a time, in bytes.
const PIECE: usize = 16 * 1024;

/// What it does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Passes them on so much later.
    Delay(Duration),
    /// Keeps those of these directions until the mode is another one: a route that is gone, on connections that look
    /// open.
    BlackHole {
        /// What clients send.
        up: bool,
        /// What servers send.
        down: bool,
    },
    /// Passes on so many bytes a second and direction.
    Throttle(u32),
    /// Passes them on in pieces of so many bytes.
    Slice(usize),
}

/// A proxy on a free port of the loopback address. Everything ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    cut: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Orders {
    mode: watch::Receiver<Mode>,
    cut: watch::Receiver<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    /// Starts one in front of `server`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port for a proxy")?;
        let address = listener.local_addr()?;
        let (mode, cut) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let orders = Orders { mode: mode.subscribe(), cut: cut.subscribe() };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, orders));
        Ok(Self { address, mode, cut, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this, also with connections that are open.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Cuts every connection by an RST, on both sides; gives how many there were.
    pub fn reset(&self) -> usize {
        // The listener's task holds one receiver.
        let connections = self.cut.receiver_count().saturating_sub(1);
        self.cut.send_modify(|cuts| *cuts += 1);
        connections
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, orders: Orders) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(connect(client, server, orders.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes on until both sides are done, or one fails; then both are closed.
async fn connect(mut client: TcpStream, server: SocketAddr, mut orders: Orders) {
    orders.cut.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let was_cut = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = pump(from_client, to_server, Direction::Up, orders.mode.clone());
        let down = pump(from_server, to_client, Direction::Down, orders.mode);
        tokio::select! {
            biased;
            // What was kept is lost, also when the mode changes at the same moment.
            _ = orders.cut.changed() => true,
            done = async { tokio::try_join!(up, down) } => done.is_err(),
        }
    };
    if was_cut {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut mode: watch::Receiver<Mode>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        // A proxy that is gone keeps nobody.
        let Ok(now) = mode.wait_for(|mode| !holds(*mode, direction)).await.map(|mode| *mode) else { return Ok(()) };
        if count == 0 {
            return to.shutdown().await;
        }
        pass(&mut to, &buffer[..count], now).await?;
    }
}

fn holds(mode: Mode, direction: Direction) -> bool {
    matches!(
        (mode, direction),
        (Mode::BlackHole { up: true, .. }, Direction::Up) | (Mode::BlackHole { down: true, .. }, Direction::Down)
    )
}

async fn pass(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], mode: Mode) -> std::io::Result<()> {
    match mode {
        Mode::Pass | Mode::BlackHole { .. } => to.write_all(bytes).await,
        Mode::Delay(length) => {
            sleep(length).await;
            to.write_all(bytes).await
        }
        Mode::Throttle(rate) => {
            // Ten times a second, so that the rate is that of each moment.
            for piece in bytes.chunks((rate as usize / 10).max(1)) {
                to.write_all(piece).await?;
                sleep(Duration::from_secs_f64(piece.len() as f64 / f64::from(rate))).await;
            }
            Ok(())
        }
        Mode::Slice(length) => {
            for piece in bytes.chunks(length.max(1)) {
                to.write_all(piece).await?;
                yield_now().await;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::time::{Instant, timeout};

    use super::*;

    /// A proxy to a server that sends everything back, and a connection through it.
    async fn echo() -> (Proxy, TcpStream, JoinSet<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut echoes = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                echoes.spawn(async move {
                    let (mut reader, mut writer) = socket.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        let proxy = Proxy::to(address).await.expect("a proxy");
        let client = TcpStream::connect(proxy.address()).await.expect("a connection");
        (proxy, client, tasks)
    }

    async fn said(client: &mut TcpStream, word: &[u8; 4]) -> std::io::Result<[u8; 4]> {
        client.write_all(word).await?;
        let mut back = [0; 4];
        client.read_exact(&mut back).await?;
        Ok(back)
    }

    #[tokio::test]
    async fn what_passes_comes_back_whole_in_every_mode() {
        let (proxy, mut client, _tasks) = echo().await;
        for mode in [Mode::Pass, Mode::Delay(Duration::from_millis(30)), Mode::Throttle(400), Mode::Slice(1)] {
            proxy.set(mode);
            let began = Instant::now();
            assert_eq!(said(&mut client, b"word").await.expect("an echo"), *b"word", "{mode:?}");
            if let Mode::Delay(length) = mode {
                assert!(began.elapsed() >= length * 2, "{:?}", began.elapsed());
            }
        }
    }

    #[tokio::test]
    async fn a_black_hole_keeps_what_it_took_until_it_is_none() {
        let (proxy, mut client, _tasks) = echo().await;
        for (up, down) in [(true, true), (true, false), (false, true)] {
            proxy.set(Mode::BlackHole { up, down });
            client.write_all(b"lost").await.expect("the connection looks open");
            let mut back = [0; 4];
            let silent = timeout(Duration::from_millis(100), client.read_exact(&mut back)).await;
            assert!(silent.is_err(), "{back:?} came through");
            proxy.set(Mode::Pass);
            client.read_exact(&mut back).await.expect("what was kept");
            assert_eq!(back, *b"lost");
        }
    }

    #[tokio::test]
    async fn a_reset_is_one_and_the_next_connection_is_whole() {
        let (proxy, mut client, _tasks) = echo().await;
        said(&mut client, b"here").await.expect("an echo");
        assert_eq!(proxy.reset(), 1);
        let error = said(&mut client, b"gone").await.expect_err("a reset");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
        let mut client = TcpStream::connect(proxy.address()).await.expect("a connection");
        assert_eq!(said(&mut client, b"anew").await.expect("an echo"), *b"anew");
    }

    #[tokio::test]
    async fn an_end_is_passed_on() {
        let (_proxy, mut client, _tasks) = echo().await;
        said(&mut client, b"last").await.expect("an echo");
        client.shutdown().await.expect("half an end");
        assert_eq!(client.read(&mut [0; 4]).await.expect("the other half"), 0);
    }
}
