//! A request as a test wants it, and the answer to it.

use std::io;

use serde_json::Value;

use crate::wire::{Head, Unframed, header};

/// An HTTP/1.1 request, byte for byte as the test wants it.
///
/// `Host`, `Connection: close` and, for a body or a POST, `Content-Length` are added unless the test gives its own.
#[derive(Clone)]
pub struct RawRequest {
    pub(super) method: String,
    pub(super) target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl RawRequest {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// One more field; the same name twice is sent twice.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Takes back every field of this name.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers
            .retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut field = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        };
        for (name, value) in self.added() {
            field(name, value.as_bytes());
        }
        for (name, value) in &self.headers {
            field(name, value);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn added(&self) -> impl Iterator<Item = (&'static str, String)> {
        let has_body = !self.body.is_empty() || self.method == "POST";
        let length = has_body.then(|| ("Content-Length", self.body.len().to_string()));
        [
            ("Host", "localhost".to_owned()),
            ("Connection", "close".to_owned()),
        ]
        .into_iter()
        .chain(length)
        .filter(|(name, _)| !self.gives(name))
    }

    fn gives(&self, name: &str) -> bool {
        let mut names = self.headers.iter().map(|(name, _)| name);
        names.any(|given| given.eq_ignore_ascii_case(name))
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads the answer to a request of this method, past any interim ones (1xx).
    pub fn read(from: &mut impl io::BufRead, method: &str) -> io::Result<Self> {
        loop {
            let head = Head::read(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = head.first_line.split(' ').nth(1).unwrap_or_default();
            let status = status
                .parse()
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, head.first_line.clone()))?;
            let body = match status {
                100..200 => continue,
                204 | 304 => Vec::new(),
                _ if method == "HEAD" => Vec::new(),
                _ => head.read_body(from, Unframed::UntilClose)?,
            };
            return Ok(Self {
                status,
                headers: head.headers,
                body,
            });
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?} {:?}", self.text()))
    }
}
