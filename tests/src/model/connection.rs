//! One connection to the model server: reads requests and carries out what is scripted for each.

use std::{io, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    Call, State,
    behaviour::{Answer, Ending, Form},
};

const MOST_HEADERS: usize = 64;

/// Whether the connection can take another request.
#[derive(PartialEq, Eq)]
enum After {
    Open,
    Closed,
}

/// Serves requests until either side closes the connection.
pub(super) async fn serve(socket: TcpStream, state: Arc<State>) {
    // Without it, small pieces would be gathered again.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let (mut reader, mut writer) = socket.into_split();
    let mut received = Vec::new();
    while let Ok(Some(call)) = read_call(&mut reader, &mut received).await {
        let prompt = call.prompt().to_owned();
        let (behaviour, number) = state.answer_to(call);
        let carried_out = tokio::select! {
            after = carry_out(behaviour.form, &prompt, number, &mut writer) => after.ok(),
            () = closed(&mut reader) => None,
        };
        match carried_out {
            Some(After::Open) => {}
            Some(After::Closed) => return,
            None => {
                state.hang_ups.send_modify(|count| *count += 1);
                return;
            }
        }
    }
}

/// The next request; `None` when the caller has closed the connection.
async fn read_call(reader: &mut OwnedReadHalf, received: &mut Vec<u8>) -> io::Result<Option<Call>> {
    loop {
        if let Some((call, length)) = parse(received)? {
            received.drain(..length);
            return Ok(Some(call));
        }
        if reader.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// The request at the beginning of `received` and its length; `None` while it is not complete.
fn parse(received: &[u8]) -> io::Result<Option<(Call, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let value = |header: &httparse::Header<'_>| String::from_utf8_lossy(header.value).into_owned();
    let headers: Vec<_> = request.headers.iter().map(|header| (header.name.to_lowercase(), value(header))).collect();
    let declared = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse());
    let length = declared.transpose().map_err(io::Error::other)?.unwrap_or(0);
    let Some(body) = received.get(head..head + length) else { return Ok(None) };
    let call = Call {
        path: request.path.unwrap_or_default().to_owned(),
        headers,
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
        at: std::time::Instant::now(),
    };
    Ok(Some((call, head + length)))
}

/// Ends when the caller closes the connection.
async fn closed(reader: &mut OwnedReadHalf) {
    let mut ignored = [0; 1024];
    while reader.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
}

async fn carry_out(form: Form, prompt: &str, number: usize, writer: &mut OwnedWriteHalf) -> io::Result<After> {
    match form {
        Form::HangBeforeHead => std::future::pending().await,
        Form::Raw(bytes) => {
            writer.write_all(&bytes).await?;
            Ok(After::Closed)
        }
        Form::Page { status, headers, body } => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {status} Scripted\r\n{headers}content-length: {}\r\n\r\n", body.len());
            writer.write_all(&[head.into_bytes(), body].concat()).await?;
            Ok(After::Open)
        }
        Form::Answer(answer) => stream(&answer, writer).await,
        Form::Echo(mut answer) => {
            let mark = answer.is_numbered.then(|| format!("#{number} "));
            answer.texts = mark.into_iter().chain(prompt.split_inclusive(' ').map(str::to_owned)).collect();
            stream(&answer, writer).await
        }
    }
}

async fn stream(answer: &Answer, writer: &mut OwnedWriteHalf) -> io::Result<After> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n", answer.content_type);
    writer.write_all(head.as_bytes()).await?;
    for (sent, piece) in answer.pieces().iter().filter(|piece| !piece.is_empty()).enumerate() {
        if let Some((_, gate)) = answer.gate.as_ref().filter(|(pieces, _)| *pieces == sent) {
            gate.opened().await;
        }
        if answer.pace > Duration::ZERO {
            tokio::time::sleep(answer.pace).await;
        }
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        writer.write_all(&chunk).await?;
    }
    match answer.ending {
        Ending::Hang => std::future::pending().await,
        Ending::Cut => Ok(After::Closed),
        Ending::Orderly | Ending::Error(_) => {
            writer.write_all(b"0\r\n\r\n").await?;
            Ok(After::Open)
        }
    }
}
