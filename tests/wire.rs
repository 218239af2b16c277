//! HTTP/1.1 as the ends of the tests read it: answers of the server, callbacks to an agent.

use std::io::{self, BufRead, Read};

/// The start line and the header fields of a message.
pub struct Head {
    pub first_line: String,
    pub headers: Vec<(String, String)>,
}

/// What a message without `Content-Length` and `Transfer-Encoding` carries.
#[derive(Clone, Copy)]
pub enum Unframed {
    /// Nothing, as in a request.
    Empty,
    /// Everything until the peer closes, as in an answer.
    UntilClose,
}

impl Head {
    /// Reads up to the empty line; `None` when the peer closed before the first byte.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first_line = line(from)?;
        let mut headers = Vec::new();
        loop {
            let field = line(from)?;
            if field.is_empty() {
                return Ok(Some(Self {
                    first_line,
                    headers,
                }));
            }
            let (name, value) = field.split_once(':').ok_or_else(|| malformed(&field))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The first field of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn read_body(&self, from: &mut impl BufRead, unframed: Unframed) -> io::Result<Vec<u8>> {
        if self.header("transfer-encoding") == Some("chunked") {
            return chunks(from);
        }
        let mut body = Vec::new();
        match (self.header("content-length"), unframed) {
            (Some(length), _) => {
                body = exactly(from, length.parse().map_err(|_| malformed(length))?)?;
            }
            (None, Unframed::Empty) => {}
            (None, Unframed::UntilClose) => {
                from.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }
}

/// The first value of this name, in whatever case.
pub fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let mut fields = headers.iter();
    fields
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches('\r').to_owned())
}

fn exactly(from: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes)?;
    if read as u64 == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| malformed(&size))?;
        body.extend(exactly(from, length)?);
        if length == 0 {
            while !line(from)?.is_empty() {}
            return Ok(body);
        }
        line(from)?;
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what:?}"))
}
