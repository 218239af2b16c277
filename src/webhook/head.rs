//! The head of a request, read strictly: what two readers could understand differently is refused.

use memchr::memchr2_iter;

use super::Refusal;

/// A request's line and headers, and what they say about the body and the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Bytes of the body.
    pub(crate) length: usize,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether the client wants to go on after this request.
    pub(crate) keep_alive: bool,
}

/// Where a head ends in what has arrived: behind the first empty line.
///
/// # Errors
/// `Malformed` as soon as there is a NUL, or a line ends in anything but CRLF.
pub(crate) fn end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    for found in memchr2_iter(b'\n', 0, &bytes[seen..]) {
        let line = &bytes[..seen + found];
        if bytes[line.len()] == 0 || !line.ends_with(b"\r") {
            return Err(Refusal::Malformed);
        }
        if line.ends_with(b"\r\n\r") {
            return Ok(Some(line.len() + 1));
        }
    }
    Ok(None)
}

/// Reads a complete head.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn parse(bytes: &[u8], most_headers: usize) -> Result<Head, Refusal> {
    let mut headers = vec![httparse::EMPTY_HEADER; most_headers];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal::Malformed),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::Malformed);
    };
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|header| {
            (
                header.name.to_owned(),
                String::from_utf8_lossy(header.value).trim().to_owned(),
            )
        })
        .collect();
    let http_1_1 = version == 1;
    let all = |name: &str| {
        headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect::<Vec<_>>()
    };
    match all("host").len() {
        1 => {}
        0 if !http_1_1 => {}
        _ => return Err(Refusal::Malformed),
    }
    let expects_continue = match *all("expect") {
        [] => false,
        [expected] if expected.eq_ignore_ascii_case("100-continue") => http_1_1,
        _ => return Err(Refusal::Expectation),
    };
    let length = length(&all("content-length"), &all("transfer-encoding"))?;
    let connection = all("connection").join(",").to_ascii_lowercase();
    let says = |word: &str| connection.split(',').any(|token| token.trim() == word);
    let keep_alive = !says("close") && (http_1_1 || says("keep-alive"));
    let target = path_and_query(target)?.to_owned();
    Ok(Head {
        method: method.to_owned(),
        target,
        headers,
        length,
        expects_continue,
        keep_alive,
    })
}

/// The body's length: one number of digits, or none. Chunked bodies are not taken: Slack sends
/// none, and proxies can be told to send a length.
fn length(lengths: &[&str], encodings: &[&str]) -> Result<usize, Refusal> {
    match (lengths, encodings) {
        ([], []) => Ok(0),
        ([], [encoding]) if encoding.eq_ignore_ascii_case("chunked") => {
            Err(Refusal::LengthRequired)
        }
        ([digits], []) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            // More than fits a number is more than fits any limit.
            Ok(digits.parse().unwrap_or(usize::MAX))
        }
        _ => Err(Refusal::Malformed),
    }
}

/// The target without the scheme and authority that a client may write before it.
fn path_and_query(target: &str) -> Result<&str, Refusal> {
    let path = match target.split_once("://") {
        Some(("http" | "https", rest)) => &rest[rest.find('/').ok_or(Refusal::Malformed)?..],
        _ => target,
    };
    if path.starts_with('/') || path == "*" {
        Ok(path)
    } else {
        Err(Refusal::Malformed)
    }
}

/// The fuzzer's door. Reads what may be a head, once whole and once in two pieces, and checks what
/// the rest of the server relies upon.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8], cut: usize) {
    let whole = end(bytes, 0);
    let cut = cut.min(bytes.len());
    let pieces = match end(&bytes[..cut], 0) {
        Ok(None) => end(bytes, cut),
        found => found,
    };
    assert_eq!(
        whole, pieces,
        "a head ends where it ends, however it arrives"
    );
    let Ok(Some(end)) = whole else {
        return;
    };
    let Ok(head) = parse(&bytes[..end], 64) else {
        return;
    };
    assert!(head.target.starts_with('/') || head.target == "*");
    assert!(head.headers.len() <= 64);
    let is_quiet = |text: &str| !text.contains(['\r', '\n', '\0']);
    assert!(is_quiet(&head.method) && is_quiet(&head.target));
    assert!(
        head.headers
            .iter()
            .all(|(name, value)| is_quiet(name) && is_quiet(value))
    );
    let says = |name: &str| {
        let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        head.headers.iter().filter(same).count()
    };
    assert_eq!(says("transfer-encoding"), 0);
    assert!(says("content-length") == 1 || head.length == 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Head, Refusal> {
        assert_eq!(end(head.as_bytes(), 0)?, Some(head.len()), "{head:?}");
        parse(head.as_bytes(), 64)
    }

    #[test]
    fn a_plain_head_is_read() {
        let head = read(
            "POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (head.method.as_str(), head.target.as_str(), head.length),
            ("POST", "/x?y", 12)
        );
        assert!(head.expects_continue && head.keep_alive);
        assert_eq!(
            read("GET http://a:1/x HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap()
                .target,
            "/x"
        );
    }

    #[test]
    fn the_connection_lives_as_the_version_and_the_client_say() {
        for (head, keep_alive) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n",
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(read(head).unwrap().keep_alive, keep_alive, "{head}");
        }
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        for lines in [
            "Content-Length: 38, 38",
            "Content-Length: 38\r\nContent-Length: 38",
            "Content-Length: -1",
            "Content-Length: +1",
            "Content-Length: 0x10",
            "Content-Length:",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "X: a\r\n folded",
            "Content-Length : 5",
            "Host: b",
            "X: a\rb",
            "X: \u{1}",
            "no colon",
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
            assert_eq!(read(&head), Err(Refusal::Malformed), "{lines}");
        }
        for head in [
            "POST / HTTP/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
        ] {
            assert_eq!(read(head), Err(Refusal::Malformed), "{head:?}");
        }
    }

    #[test]
    fn what_we_do_not_do_is_named() {
        let with = |lines: &str| read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
        assert_eq!(
            with("Transfer-Encoding: chunked"),
            Err(Refusal::LengthRequired)
        );
        assert_eq!(with("Expect: cheese"), Err(Refusal::Expectation));
        assert_eq!(
            with(&vec!["A: b"; 64].join("\r\n")),
            Err(Refusal::HeadTooLarge)
        );
        assert_eq!(
            with("Content-Length: 99999999999999999999999")
                .unwrap()
                .length,
            usize::MAX
        );
    }
}
