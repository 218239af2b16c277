//! Slack's request signature: `v0=` + hex HMAC-SHA256 of `v0:{timestamp}:{raw body}`.
//!
//! Source: <https://docs.slack.dev/authentication/verifying-requests-from-slack>

use std::fmt;

use base16ct::{lower, mixed};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;

/// How far the timestamp may be from our clock, either way, in seconds.
pub const WINDOW: u64 = 300;

/// A signing secret of the Slack app. It cannot be displayed.
#[derive(Clone)]
pub struct SigningSecret(Box<str>);

impl SigningSecret {
    /// `None` when nothing but white space is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// Whether it looks as Slack makes them: 32 letters and digits.
    pub fn is_shaped(&self) -> bool {
        self.0.len() == 32 && self.0.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }

    /// The signature of a body at a time: `v0=` and 64 hex digits.
    pub fn sign(&self, timestamp: &str, body: &[u8]) -> String {
        let mac = self.mac(timestamp, body).finalize().into_bytes();
        format!("v0={}", lower::encode_string(&mac))
    }

    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn mac(&self, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("any length");
        for part in [b"v0:", timestamp.as_bytes(), b":", body] {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

/// A body that Slack has signed. Only [`verify`] makes one.
#[derive(Debug)]
pub struct SignedBody<'a> {
    bytes: &'a [u8],
    sent: u64,
}

impl<'a> SignedBody<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The signed timestamp: seconds since 1970.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// Why a request is not Slack's. For our own log; the peer learns nothing of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Forged {
    /// One of the two headers is absent, or there more than once.
    Headers,
    /// The timestamp is no number of seconds.
    Timestamp,
    /// The timestamp is too far from our clock: behind it, or ahead of it.
    Stale { seconds: u64, ahead: bool },
    /// It was made with another secret or for another body. The first six digits of both.
    Mismatch { expected: String, received: String },
}

/// Checks the signature over the body as it came.
///
/// # Errors
/// `Forged`: the request is not Slack's, or not of now.
pub fn verify<'a>(
    secrets: &[SigningSecret],
    timestamps: &[&str],
    signatures: &[&str],
    body: &'a [u8],
    now: Timestamp,
) -> Result<SignedBody<'a>, Forged> {
    let (&[timestamp], &[signature]) = (timestamps, signatures) else {
        return Err(Forged::Headers);
    };
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let sent: u64 = timestamp
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or(Forged::Timestamp)?;
    if sent.abs_diff(now.unix()) > WINDOW {
        return Err(Forged::Stale {
            seconds: sent.abs_diff(now.unix()),
            ahead: sent > now.unix(),
        });
    }
    let received = signature.strip_prefix("v0=").and_then(decode);
    let matches = |secret: &SigningSecret| {
        // `verify_slice` compares in constant time.
        received.is_some_and(|received| secret.mac(timestamp, body).verify_slice(&received).is_ok())
    };
    // Every secret is tried, so that time does not tell which one fits.
    if secrets
        .iter()
        .fold(false, |any, secret| matches(secret) | any)
    {
        return Ok(SignedBody { bytes: body, sent });
    }
    let expected = secrets
        .first()
        .map(|secret| secret.mac(timestamp, body).finalize());
    let expected = expected.map(|mac| lower::encode_string(&mac.into_bytes()[..3]));
    Err(Forged::Mismatch {
        expected: expected.unwrap_or_default(),
        received: signature
            .trim_start_matches("v0=")
            .chars()
            .take(6)
            .collect(),
    })
}

/// 64 hex digits as 32 bytes.
fn decode(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let decoded = mixed::decode(digits, &mut bytes).ok()?.len();
    (decoded == bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Slack's documentation of request verification.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const TIMESTAMP: &str = "1531420618";
    const BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&\
channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&\
text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn check(
        timestamps: &[&str],
        signatures: &[&str],
        body: &[u8],
        now: u64,
    ) -> Result<(), Forged> {
        let secrets = [
            SigningSecret::new("another").unwrap(),
            SigningSecret::new(SECRET).unwrap(),
        ];
        verify(
            &secrets,
            timestamps,
            signatures,
            body,
            Timestamp::from_unix(now),
        )
        .map(drop)
    }

    #[test]
    fn slacks_published_example_verifies_within_five_minutes_either_way() {
        let sent = 1_531_420_618;
        for now in [sent - WINDOW, sent, sent + WINDOW] {
            assert_eq!(check(&[TIMESTAMP], &[SIGNATURE], BODY, now), Ok(()));
        }
        let stale = |seconds, ahead| Err(Forged::Stale { seconds, ahead });
        assert_eq!(
            check(&[TIMESTAMP], &[SIGNATURE], BODY, sent + WINDOW + 1),
            stale(301, false)
        );
        assert_eq!(
            check(&[TIMESTAMP], &[SIGNATURE], BODY, sent - WINDOW - 1),
            stale(301, true)
        );
    }

    #[test]
    fn anything_but_exactly_one_of_each_header_is_refused() {
        for (timestamps, signatures) in [
            (&[][..], &[SIGNATURE][..]),
            (&[TIMESTAMP], &[]),
            (&[TIMESTAMP, TIMESTAMP], &[SIGNATURE]),
            (&[TIMESTAMP], &[SIGNATURE, SIGNATURE]),
        ] {
            assert_eq!(
                check(timestamps, signatures, BODY, 1_531_420_618),
                Err(Forged::Headers)
            );
        }
        for timestamp in [
            "",
            "+1531420618",
            "1531420618 ",
            "0x5b47",
            "1531420618.0",
            "-1",
            "99999999999999999999",
        ] {
            assert_eq!(
                check(&[timestamp], &[SIGNATURE], BODY, 1_531_420_618),
                Err(Forged::Timestamp),
                "{timestamp}"
            );
        }
    }

    #[test]
    fn a_changed_byte_is_refused_and_only_six_digits_are_told() {
        let mut body = BODY.to_vec();
        body[0] ^= 1;
        let Err(Forged::Mismatch { expected, received }) =
            check(&[TIMESTAMP], &[SIGNATURE], &body, 1_531_420_618)
        else {
            panic!("a changed body was accepted")
        };
        assert_eq!((expected.len(), received.as_str()), (6, "a2114d"));
        for signature in [
            "",
            "v0=",
            "v1=00",
            &SIGNATURE[..66],
            &format!("{SIGNATURE}0"),
            &SIGNATURE.replace("v0", "v9"),
        ] {
            assert!(
                check(&[TIMESTAMP], &[signature], BODY, 1_531_420_618).is_err(),
                "{signature}"
            );
        }
    }

    #[test]
    fn a_secret_cannot_be_printed() {
        assert_eq!(
            format!("{:?}", SigningSecret::new(SECRET)),
            "Some(SigningSecret(..))"
        );
        assert!(SigningSecret::new(" \n").is_none());
    }
}
