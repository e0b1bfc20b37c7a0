//! One connection to the sink: reads requests and does with each what is scripted for it.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{Received, Reply, State};

const MOST_HEADERS: usize = 64;

/// Serves requests until either side closes the connection.
pub(super) async fn serve(socket: TcpStream, state: Arc<State>) {
    let (mut reader, mut writer) = socket.into_split();
    let mut bytes = Vec::new();
    while let Ok(Some(request)) = read_request(&mut reader, &mut bytes).await {
        let path = request.path.clone();
        let reply = state.reply_to(request);
        let done = tokio::select! {
            done = carry_out(reply, &mut writer) => done,
            () = closed(&mut reader) => Err(io::ErrorKind::ConnectionReset.into()),
        };
        state.closed(&path);
        if done.is_err() {
            return;
        }
    }
}

/// Does what `reply` says. An error ends the connection.
async fn carry_out(reply: Reply, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    match reply {
        Reply::Status(status, headers) => answer(status, &headers, writer).await,
        Reply::Held(gate) => {
            gate.opened().await;
            answer(204, &[], writer).await
        }
        Reply::Cut => Err(io::ErrorKind::ConnectionReset.into()),
        Reply::Silence => std::future::pending().await,
    }
}

async fn answer(status: u16, headers: &[(&'static str, String)], writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if status == 204 { "" } else { "content-length: 0\r\n" };
    writer.write_all(format!("HTTP/1.1 {status} Scripted\r\n{headers}{length}\r\n").as_bytes()).await
}

/// The next request; `None` when the caller has closed the connection.
async fn read_request(reader: &mut OwnedReadHalf, bytes: &mut Vec<u8>) -> io::Result<Option<Received>> {
    loop {
        if let Some((request, length)) = parse(bytes)? {
            bytes.drain(..length);
            return Ok(Some(request));
        }
        if reader.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// The request at the beginning of `bytes` and its length; `None` while it is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Received, usize)>> {
    let mut space = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut space);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let value = |header: &httparse::Header<'_>| String::from_utf8_lossy(header.value).into_owned();
    let headers: Vec<_> = request.headers.iter().map(|header| (header.name.to_lowercase(), value(header))).collect();
    let declared = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse());
    let length = declared.transpose().map_err(io::Error::other)?.unwrap_or(0);
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    let received = Received {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        headers,
        body: body.to_vec(),
        at: std::time::Instant::now(),
    };
    Ok(Some((received, head + length)))
}

/// Ends when the caller closes the connection.
async fn closed(reader: &mut OwnedReadHalf) {
    let mut ignored = [0; 1024];
    while reader.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
}
