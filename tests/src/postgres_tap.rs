//! A tap on the wire to PostgreSQL: hands all bytes on, and notes which statements are executed, with what.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

/// What asks whether the server speaks TLS, before anything else (PostgreSQL's protocol 3.0, "SSLRequest").
const TLS_ASKED: u32 = 80_877_103;

/// A statement that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its text.
    pub sql: String,
    /// What was bound to it, in the binary form; `None` for NULL.
    pub values: Vec<Option<Vec<u8>>>,
}

/// A listener in front of a PostgreSQL server. It ends when it is dropped.
pub struct PostgresTap {
    address: SocketAddr,
    executed: Arc<Mutex<Vec<Executed>>>,
    _tasks: JoinSet<()>,
}

impl PostgresTap {
    /// Starts one in front of the server of `url` (`postgres://user@host:port/database`).
    pub async fn start(url: &str) -> Self {
        let server = place(url).to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let executed = Arc::<Mutex<Vec<Executed>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&executed)));
        Self { address, executed, _tasks: tasks }
    }

    /// `url` with the tap in place of the server.
    pub fn url(&self, url: &str) -> String {
        url.replace(place(url), &self.address.to_string())
    }

    /// What was executed since the last call.
    pub fn take(&self) -> Vec<Executed> {
        std::mem::take(&mut *locked(&self.executed))
    }
}

/// The host and port in `url`.
fn place(url: &str) -> &str {
    let (_, rest) = url.split_once("://").expect("a URL");
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit('@').next().unwrap_or(authority)
}

fn locked(executed: &Mutex<Vec<Executed>>) -> MutexGuard<'_, Vec<Executed>> {
    executed.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: String, executed: Arc<Mutex<Vec<Executed>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(join(client, server.clone(), Arc::clone(&executed)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn join(client: TcpStream, server: String, executed: Arc<Mutex<Vec<Executed>>>) {
    let Ok(server) = TcpStream::connect(&server).await else { return };
    // Small messages would wait for each other.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, mut to_client), (mut from_server, to_server)) = (client.into_split(), server.into_split());
    let statements = Statements { texts: HashMap::new(), executed };
    tokio::select! {
        _ = pass(from_client, to_server, statements) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// Hands on what the client sends, message by message.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut statements: Statements) -> std::io::Result<()> {
    // What begins a connection has no kind.
    loop {
        let length = from.read_u32().await?;
        let body = body(&mut from, length).await?;
        to.write_all(&[&length.to_be_bytes()[..], &body].concat()).await?;
        if body[..4] != TLS_ASKED.to_be_bytes() {
            break;
        }
    }
    loop {
        let (kind, length) = (from.read_u8().await?, from.read_u32().await?);
        let body = body(&mut from, length).await?;
        statements.note(kind, &body);
        to.write_all(&[&[kind][..], &length.to_be_bytes(), &body].concat()).await?;
    }
}

async fn body(from: &mut OwnedReadHalf, length: u32) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// The prepared statements of one connection.
struct Statements {
    texts: HashMap<String, String>,
    executed: Arc<Mutex<Vec<Executed>>>,
}

impl Statements {
    fn note(&mut self, kind: u8, body: &[u8]) {
        let mut rest = body;
        match kind {
            b'Q' => self.push(text(&mut rest), Vec::new()),
            b'P' => {
                let (name, sql) = (text(&mut rest), text(&mut rest));
                self.texts.insert(name, sql);
            }
            b'B' => {
                let (_portal, name) = (text(&mut rest), text(&mut rest));
                let sql = self.texts.get(&name).cloned().unwrap_or_default();
                self.push(sql, values(&mut rest));
            }
            _ => {}
        }
    }

    fn push(&self, sql: String, values: Vec<Option<Vec<u8>>>) {
        locked(&self.executed).push(Executed { sql, values });
    }
}

/// The text that ends with a zero byte.
fn text(rest: &mut &[u8]) -> String {
    let end = rest.iter().position(|byte| *byte == 0).expect("an end");
    let text = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 1..];
    text
}

fn number<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (number, after) = rest.split_first_chunk().expect("a number");
    *rest = after;
    *number
}

/// What a Bind message binds: formats, then values.
fn values(rest: &mut &[u8]) -> Vec<Option<Vec<u8>>> {
    for _ in 0..u16::from_be_bytes(number(rest)) {
        number::<2>(rest);
    }
    let count = u16::from_be_bytes(number(rest));
    let value = |_| {
        let length = usize::try_from(i32::from_be_bytes(number(rest))).ok()?;
        let (value, after) = rest.split_at(length);
        *rest = after;
        Some(value.to_vec())
    };
    (0..count).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_is_read() {
        let bound = [&[0, 1, 0, 1, 0, 3][..], &[0, 0, 0, 2], b"ab", &[255; 4], &[0, 0, 0, 0]].concat();
        assert_eq!(values(&mut &bound[..]), [Some(b"ab".to_vec()), None, Some(Vec::new())]);
    }

    #[test]
    fn the_place_is_found_in_a_url() {
        assert_eq!(place("postgres://user:a@127.0.0.1:5432/test"), "127.0.0.1:5432");
        assert_eq!(place("postgres://127.0.0.1:5432/test"), "127.0.0.1:5432");
    }
}
