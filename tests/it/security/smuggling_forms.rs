//! Requests that two servers on the way could read in two ways, each with a whole second request in it or behind it.
//!
//! The second one names itself in its path and its prompt, so that whoever took it for a request of its own is found.

use serde_json::json;

/// One such request.
pub struct Form {
    /// What is wrong with it.
    pub name: String,
    /// All that is sent.
    pub bytes: Vec<u8>,
    /// What has to come of it.
    pub reading: Reading,
    /// How many good requests stand before it, in the same piece.
    pub before: usize,
}

/// How a gateway has to take a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It cannot be read: one answer of 4xx or 501, and the connection ends.
    Refused,
    /// HTTP reads it in one way only, with the second request in its body: one answer to it, whatever that is.
    One,
}

/// The path and prompt of every second request.
pub const SMUGGLED: &str = "smuggled";

/// All forms, of a caller with `key` who asks `agent`.
pub fn all(key: &str, agent: &str) -> Vec<Form> {
    let mut table = Table { key, agent, forms: Vec::new() };
    table.two_lengths();
    table.disguised_encodings();
    table.wrong_lengths();
    table.wrong_heads();
    table.wrong_request_lines();
    table.wrong_chunks();
    table.honest_ones();
    table.forms
}

/// `data` as a chunk.
fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// The beginning of a long text.
pub(super) fn shown(text: &str) -> &str {
    text.get(..60).unwrap_or(text)
}

/// The table while it is made, for one caller.
pub(super) struct Table<'a> {
    key: &'a str,
    agent: &'a str,
    forms: Vec<Form>,
}

impl Table<'_> {
    pub(super) fn add(&mut self, reading: Reading, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.forms.push(Form { name: name.into(), bytes: bytes.into(), reading, before: 0 });
    }

    /// A request with these lines in its head, whatever ends them, and nothing behind its head.
    pub(super) fn head(&self, lines: &str) -> String {
        self.head_of("POST /api/v1/chat HTTP/1.1", lines)
    }

    pub(super) fn head_of(&self, request_line: &str, lines: &str) -> String {
        let content_type = "Content-Type: application/json";
        format!("{request_line}\r\nAuthorization: Bearer {}\r\n{content_type}\r\n{lines}\r\n\r\n", self.key)
    }

    /// What the first request of a form asks.
    pub(super) fn body(&self) -> String {
        json!({ "employee_id": self.agent, "prompt": "outer" }).to_string()
    }

    /// The second request of the next form.
    pub(super) fn smuggled(&self) -> String {
        self.second(|body| (format!("Content-Length: {}", body.len()), body.to_owned()))
    }

    /// The same without a length of its own, which a chunked first request must not seem to have.
    fn smuggled_in_chunks(&self) -> String {
        self.second(|body| ("Transfer-Encoding: chunked".to_owned(), chunk(body) + "0\r\n\r\n"))
    }

    fn second(&self, framed: impl Fn(&str) -> (String, String)) -> String {
        let name = format!("{SMUGGLED}-{}", self.forms.len());
        let body = json!({ "employee_id": self.agent, "prompt": name }).to_string();
        let (length, body) = framed(&body);
        self.head_of(&format!("POST /api/v1/chat?{name} HTTP/1.1"), &format!("Host: a\r\n{length}")) + &body
    }

    /// For who goes by chunks, an empty body and the second request; for who goes by the length, one body.
    fn hidden_from_length(&mut self, reading: Reading, name: &str, lines: impl Fn(usize) -> String) {
        let body = format!("0\r\n\r\n{}", self.smuggled());
        let bytes = self.head(&format!("Host: a\r\n{}", lines(body.len()))) + &body;
        self.add(reading, name, bytes);
    }

    fn two_lengths(&mut self) {
        let te = "Transfer-Encoding: chunked";
        self.hidden_from_length(Reading::Refused, "length, then encoding", |n| format!("Content-Length: {n}\r\n{te}"));
        self.hidden_from_length(Reading::Refused, "encoding, then length", |n| format!("{te}\r\nContent-Length: {n}"));
        self.hidden_from_length(Reading::Refused, "both in odd case", |n| {
            format!("cONTENT-lENGTH: {n}\r\ntRANSFER-eNCODING: CHUNKED")
        });
        // The other way round: for who goes by the length, the second request begins behind the chunk's size.
        let smuggled = self.smuggled();
        let size = format!("{:x}\r\n", smuggled.len());
        let head = self.head(&format!("Host: a\r\nContent-Length: {}\r\n{te}", size.len()));
        self.add(Reading::Refused, "encoding hides the length", format!("{head}{size}{smuggled}\r\n0\r\n\r\n"));
        for length in ["0", "1", "-1", "x"] {
            let body = chunk(&self.body()) + "0\r\n\r\n" + &self.smuggled();
            let head = self.head(&format!("Host: a\r\n{te}\r\nContent-Length: {length}"));
            self.add(Reading::Refused, format!("encoding and length {length}"), head + &body);
        }
        // Sent in one piece with a good request before it, its head is not the first thing on the connection.
        let second = format!("0\r\n\r\n{}", self.smuggled());
        let head = self.head(&format!("Host: a\r\nContent-Length: {}\r\n{te}", second.len()));
        let good = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
        self.add(Reading::Refused, "two lengths behind a good request", good.to_owned() + &head + &second);
        self.forms.last_mut().expect("a form").before = 1;
    }

    fn disguised_encodings(&mut self) {
        for encoding in [
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding:\tchunked",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: chunked\x0c",
            "Transfer-Encoding: chun\0ked",
            "Transfer-Encoding:",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\r\n\tTransfer-Encoding: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding\r\n : chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
        ] {
            self.hidden_from_length(Reading::Refused, &format!("{encoding:?}"), |n| {
                format!("Content-Length: {n}\r\n{encoding}")
            });
        }
        let body = chunk(&self.body()) + "0\r\n\r\n" + &self.smuggled();
        let head = self.head_of("POST /api/v1/chat HTTP/1.0", "Host: a\r\nTransfer-Encoding: chunked");
        self.add(Reading::Refused, "an encoding in HTTP/1.0", head + &body);
    }

    fn wrong_chunks(&mut self) {
        let (data, end) = (self.body(), "0\r\n\r\n");
        let size = data.len();
        let wrapped = (1_u128 << 64) + size as u128;
        for chunks in [
            format!("zz\r\n{data}\r\n{end}"),
            format!("\r\n{data}\r\n{end}"),
            format!("-{size:x}\r\n{data}\r\n{end}"),
            format!("+{size:x}\r\n{data}\r\n{end}"),
            format!("0x{size:x}\r\n{data}\r\n{end}"),
            format!(" {size:x}\r\n{data}\r\n{end}"),
            format!("{size:x}\0\r\n{data}\r\n{end}"),
            format!("{wrapped:x}\r\n{data}\r\n{end}"),
            format!("fffffffffffffff{size:x}\r\n{data}\r\n{end}"),
            format!("{size:x}\n{data}\r\n{end}"),
            format!("{size:x}\r{data}\r\n{end}"),
            format!("{size:x}\r\r\n{data}\r\n{end}"),
            format!("{size:x}\r\n{data}\n{end}"),
            format!("{size:x}\r\n{data}{end}"),
            format!("{size:x}\r\n{data}xx{end}"),
            format!("{:x}\r\n{data}\r\n{end}", size - 1),
            format!("{size:x};a\nb\r\n{data}\r\n{end}"),
            format!("{size:x};{}\r\n{data}\r\n{end}", "x".repeat(100_000)),
            format!("{size:x};a\r\n{data}\r\n0;a\n\r\n\r\n"),
            format!("{}0\r\n{}\r\n", chunk(&data), "X: y\r\n".repeat(20_000)),
            format!("{}0\r\nX\0: y\r\n\r\n", chunk(&data)),
        ] {
            let head = self.head("Host: a\r\nTransfer-Encoding: chunked");
            let bytes = head + &chunks + &self.smuggled_in_chunks();
            self.add(Reading::Refused, format!("chunks {:?}", shown(&chunks.replace(&data, "…"))), bytes);
        }
    }

    /// Odd, and yet HTTP's own: the second request is in the body of the first, and stays there.
    fn honest_ones(&mut self) {
        self.hidden_from_length(Reading::One, "an underscore is another name", |n| {
            format!("Content-Length: {n}\r\nTransfer_Encoding: chunked")
        });
        self.hidden_from_length(Reading::One, "a length with zeros before it", |n| format!("Content-Length: 000{n}"));
        self.hidden_from_length(Reading::One, "no trailer comes without chunks", |n| {
            format!("Content-Length: {n}\r\nTrailer: Transfer-Encoding\r\nTE: trailers, chunked")
        });
        self.hidden_from_length(Reading::One, "the same length twice", |n| {
            format!("Content-Length: {n}\r\nContent-Length: {n}")
        });
        for (name, target, end) in [
            ("another host in the target", "http://b/api/v1/chat", "\r\n"),
            ("lines that end in LF", "/api/v1/chat", "\n"),
        ] {
            let inside = self.smuggled();
            let lines = format!("Host: a\r\nContent-Length: {}", inside.len());
            let head = self.head_of(&format!("POST {target} HTTP/1.1"), &lines).replace("\r\n", end);
            self.add(Reading::One, name, head + &inside);
        }
        for (name, begin, end) in [
            ("an extension of a chunk", ";name=\"a;b\"", "0\r\n\r\n"),
            ("a length among the trailers", "", "0\r\nContent-Length: 5\r\n\r\n"),
            ("an encoding among the trailers", "", "0\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"),
            ("a last chunk of many zeros", "", "0000000\r\n\r\n"),
        ] {
            let inside = self.smuggled_in_chunks();
            let head = self.head("Host: a\r\nTransfer-Encoding: chunked");
            let bytes = format!("{head}{:x}{begin}\r\n{inside}\r\n{end}", inside.len());
            self.add(Reading::One, name, bytes);
        }
    }
}
