//! One connection on loopback: its requests, read as strictly as the server reads its own, and the answers.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::webhook::{Request, Response, head};

/// Bytes of a head, and its headers.
const HEAD: usize = 1 << 16;
const HEADERS: usize = 64;
/// Bytes of a body. Slack takes no view beyond 250 kB.
const BODY: usize = 4 << 20;

/// What was said on one connection so far.
pub(super) struct Line<'a> {
    stream: &'a TcpStream,
    /// What has arrived and is not used yet.
    buffer: Vec<u8>,
    keep_alive: bool,
}

impl<'a> Line<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            keep_alive: true,
        }
    }

    /// The next request; `None` when the other side wants no more.
    ///
    /// # Errors
    /// What comes is no request, or too large, or ends in the middle.
    pub(super) fn request(&mut self) -> io::Result<Option<Request>> {
        if !self.keep_alive || (self.buffer.is_empty() && !self.fill()?) {
            return Ok(None);
        }
        let mut seen = 0;
        let end = loop {
            if let Some(end) = head::end(&self.buffer, seen).map_err(|_| malformed())? {
                break end;
            }
            seen = self.buffer.len();
            if seen > HEAD || !self.fill()? {
                return Err(malformed());
            }
        };
        let head = head::parse(&self.buffer[..end], HEADERS).map_err(|_| malformed())?;
        self.buffer.drain(..end);
        while self.buffer.len() < head.length {
            if head.length > BODY || !self.fill()? {
                return Err(malformed());
            }
        }
        let rest = self.buffer.split_off(head.length);
        self.keep_alive = head.keep_alive;
        Ok(Some(Request {
            method: head.method,
            target: head.target,
            headers: head.headers,
            body: std::mem::replace(&mut self.buffer, rest),
            ..Request::default()
        }))
    }

    pub(super) fn answer(&mut self, response: &Response) -> io::Result<()> {
        let (status, length) = (response.status, response.body.len());
        let mut wire = format!("HTTP/1.1 {status} Stand-in\r\nContent-Length: {length}\r\n");
        for (name, value) in &response.headers {
            wire.extend([name, ": ", value, "\r\n"]);
        }
        let mut wire = (wire + "\r\n").into_bytes();
        wire.extend_from_slice(&response.body);
        self.stream.write_all(&wire)
    }

    /// Waits for more bytes. `false` at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 8192];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
