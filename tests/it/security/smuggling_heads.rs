//! Forms whose head is wrong: lengths that are no numbers or several, lines that are no headers, and no HTTP at all.

use super::smuggling_forms::{Reading, Table, shown};

impl Table<'_> {
    pub(super) fn wrong_lengths(&mut self) {
        let (body, count) = (self.body(), self.body().len());
        let wrapped = (1_u128 << 64) + count as u128;
        for length in [
            format!("Content-Length: +{count}"),
            format!("Content-Length: -{count}"),
            format!("Content-Length: {count:#x}"),
            format!("Content-Length: {count:x}h"),
            format!("Content-Length: {count}.0"),
            format!("Content-Length: {count}e0"),
            format!("Content-Length: {count} 0"),
            format!("Content-Length: {count};"),
            format!("Content-Length: {count}, {count}"),
            format!("Content-Length: {count},0"),
            format!("Content-Length: \"{count}\""),
            format!("Content-Length: {count}\0"),
            format!("Content-Length: \x0b{count}"),
            format!("Content-Length: {wrapped}"),
            "Content-Length: ９９".to_owned(),
            "Content-Length:".to_owned(),
            "Content-Length: two".to_owned(),
            format!("Content-Length : {count}"),
            format!("Content-Length\0: {count}"),
            format!("Content-Length: {count}\r\nContent-Length: 0"),
            format!("Content-Length: 0\r\nContent-Length: {count}"),
            format!("Content-Length: {count}\r\nContent-Length: {}", count + 1),
            format!("X: y\rContent-Length: {count}"),
        ] {
            let bytes = self.head(&format!("Host: a\r\n{length}")) + &body + &self.smuggled();
            self.add(Reading::Refused, format!("{length:?}"), bytes);
        }
    }

    pub(super) fn wrong_heads(&mut self) {
        let (body, length) = (self.body(), format!("Content-Length: {}", self.body().len()));
        for lines in [
            length.clone(),
            format!("Host: a\r\nHost: b\r\n{length}"),
            format!("Host: a\r\nHost: a\r\n{length}"),
            format!("Host: a\r\nX y: z\r\n{length}"),
            format!("Host: a\r\nX\r\n{length}"),
            format!("Host: a\r\n: x\r\n{length}"),
            format!("Host: a\r\nX: a\0b\r\n{length}"),
            format!("Host: a\r\nX: a\rb\r\n{length}"),
            format!("Host: a\r\nX\x01: y\r\n{length}"),
            format!("Host: a\r\nX: y\r\n z\r\n{length}"),
            format!("Host:\r\n a\r\n{length}"),
            format!("Host: a\r\n{length}\r\nX: {}", "x".repeat(100_000)),
            format!("Host: a\r\n{length}{}", "\r\nX: y".repeat(2_000)),
        ] {
            let bytes = self.head(&lines) + &body + &self.smuggled();
            self.add(Reading::Refused, format!("{:?}", shown(&lines)), bytes);
        }
    }

    pub(super) fn wrong_request_lines(&mut self) {
        let lines = format!("Host: a\r\nContent-Length: {}", self.body().len());
        for line in [
            "POST /api/v1/chat HTTP/9.9",
            "POST /api/v1/chat HTTP/2.0",
            "POST /api/v1/chat http/1.1",
            "POST /api/v1/chat HTTP/1.1 ",
            "POST /api/v1/chat HTTP/01.1",
            "POST /api/v1/chat",
            "POST /api/v1/ch at HTTP/1.1",
            "POST  /api/v1/chat HTTP/1.1",
            "POST\t/api/v1/chat HTTP/1.1",
            "POST /api/v1/chat\0 HTTP/1.1",
            "PO(ST /api/v1/chat HTTP/1.1",
            " POST /api/v1/chat HTTP/1.1",
        ] {
            let bytes = self.head_of(line, &lines) + &self.body() + &self.smuggled();
            self.add(Reading::Refused, format!("{line:?}"), bytes);
        }
        let smuggled = self.smuggled();
        self.add(Reading::Refused, "HTTP/0.9", format!("GET /livez\r\n{smuggled}"));
        let bytes = self.head(&lines).replace("\r\n", "\r") + &self.body() + &self.smuggled();
        self.add(Reading::Refused, "lines that end in CR", bytes);
        self.add(Reading::Refused, "a TLS greeting", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".repeat(10) + &self.smuggled());
        self.add(Reading::Refused, "no HTTP", "hello\r\n\r\n".to_owned() + &self.smuggled());
    }
}
