//! What a certificate says of itself: when it holds, and for whom. Its signatures are rustls' matter.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;

/// `notBefore` and `notAfter` of a certificate (RFC 5280, section 4.1).
pub fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let mut validity = Der(up_to_validity(certificate)?.next(0x30)?);
    Some((validity.time()?, validity.time()?))
}

/// Whom a certificate is for: the DNS names and addresses of its subjectAltName (RFC 5280, section
/// 4.2.1.6). Empty when it has none, or cannot be read.
pub fn names(certificate: &[u8]) -> Vec<String> {
    alternative_names(certificate).unwrap_or_default()
}

/// Whole days until a certificate ends, negative when it has.
pub fn days_until(ends: Timestamp, now: Timestamp) -> i64 {
    let days = |span: Duration| i64::try_from(span.as_secs() / 86400).unwrap_or(i64::MAX);
    if ends > now {
        days(ends.since(now))
    } else {
        -1 - days(now.since(ends))
    }
}

fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    /// 2.5.29.17.
    const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    let mut tbs = up_to_validity(certificate)?;
    for tag in [0x30, 0x30, 0x30] {
        tbs.next(tag)?; // validity, subject, public key
    }
    for unique_id in [0x81, 0x82] {
        if tbs.0.first() == Some(&unique_id) {
            tbs.next(unique_id)?;
        }
    }
    let mut extensions = Der(Der(tbs.next(0xa3)?).next(0x30)?);
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.next(0x30)?);
        if extension.next(0x06)? != SUBJECT_ALT_NAME {
            continue;
        }
        if extension.0.first() == Some(&0x01) {
            extension.next(0x01)?; // critical
        }
        let mut list = Der(Der(extension.next(0x04)?).next(0x30)?);
        let mut names = Vec::new();
        while let Some(&tag) = list.0.first() {
            let name = list.next(tag)?;
            match tag {
                0x82 => names.push(String::from_utf8_lossy(name).into_owned()),
                0x87 => names.extend(address(name)),
                _ => {}
            }
        }
        return Some(names);
    }
    None
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok().map(|address| address.to_string())
}

/// What is to be signed of a certificate, from its validity on.
fn up_to_validity(certificate: &[u8]) -> Option<Der<'_>> {
    let mut tbs = Der(Der(Der(certificate).next(0x30)?).next(0x30)?);
    if tbs.0.first() == Some(&0xa0) {
        tbs.next(0xa0)?; // version
    }
    for tag in [0x02, 0x30, 0x30] {
        tbs.next(tag)?; // serial number, signature algorithm, issuer
    }
    Some(tbs)
}

/// What is left of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, which must have this tag.
    fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (
                    digits
                        .iter()
                        .fold(0, |length, digit| length << 8 | usize::from(*digit)),
                    rest,
                )
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(content)
    }

    /// `UTCTime` (`YYMMDDHHMMSSZ`, years 1950 to 2049) or `GeneralizedTime` (`YYYYMMDDHHMMSSZ`).
    fn time(&mut self) -> Option<Timestamp> {
        let text = match self.0.first()? {
            0x17 => {
                let text = std::str::from_utf8(self.next(0x17)?).ok()?;
                let century = if text.get(..2)? < "50" { "20" } else { "19" };
                format!("{century}{text}")
            }
            _ => std::str::from_utf8(self.next(0x18)?).ok()?.to_owned(),
        };
        let part = |from: usize, to: usize| text.get(from..to);
        let (date, time) = (
            (part(0, 4)?, part(4, 6)?, part(6, 8)?),
            (part(8, 10)?, part(10, 12)?, part(12, 14)?),
        );
        Timestamp::parse(&format!(
            "{}-{}-{}T{}:{}:{}Z",
            date.0, date.1, date.2, time.0, time.1, time.2
        ))
    }
}
