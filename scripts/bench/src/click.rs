//! Approvals, and clicks on them as Slack sends and signs them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The secret of `scripts/rig.py`.
const SECRET: &[u8] = b"8f742231b10e8888abcd99yyyzzz85a5";
/// The click whose every field is present.
const PAYLOAD: &str = include_str!("../../../fixtures/slack/block_actions_approve.json");

/// The name of an approval.
pub fn name(number: usize) -> String {
    format!("apr-bench-{number}")
}

/// Puts pending approvals into a directory, whole from the beginning.
pub fn file(folder: &str, first: usize, count: usize) -> String {
    for number in first..first + count {
        let name = name(number);
        let approval = format!(
            "{{\n  \"id\": \"{name}\",\n  \"operation\": \"scale_ecs_service\",\n  \"args\": {{\n    \
             \"service\": \"checkout-api\",\n    \"desiredCount\": 8\n  }},\n  \"riskLevel\": \"high\",\n  \
             \"rollbackCommand\": \"aws ecs update-service --desired-count 4\",\n  \
             \"requestedAt\": \"2024-01-15T15:30:00Z\",\n  \"slackMessageTs\": \"1705333800.000100\",\n  \
             \"slackChannel\": \"C1234567890\",\n  \"status\": \"pending\"\n}}\n"
        );
        let unfinished = format!("{folder}/.{name}.unfinished");
        fs::write(&unfinished, approval).expect("write an approval");
        fs::rename(&unfinished, format!("{folder}/{name}.json")).expect("rename an approval");
    }
    format!("{{\"filed\":{count}}}")
}

/// The whole request of a click on Approve, signed now or by somebody else.
pub fn request(number: usize, forged: bool) -> Vec<u8> {
    let body = body(&name(number));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let timestamp = now.as_secs().to_string();
    let secret: &[u8] = if forged { b"another" } else { SECRET };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    for part in [b"v0:", timestamp.as_bytes(), b":", body.as_bytes()] {
        mac.update(part);
    }
    let signature: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let head = format!(
        "POST /slack/interactions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Slackbot 1.0 (+https://api.slack.com/robots)\r\n\
         Accept-Encoding: gzip,deflate\r\nAccept: application/json,*/*\r\n\
         X-Slack-Signature: v0={signature}\r\nX-Slack-Request-Timestamp: {timestamp}\r\n\
         Content-Length: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// The form. The fixture's `response_url` is left out: without a bot token it would be called.
fn body(name: &str) -> String {
    let lines = PAYLOAD
        .lines()
        .filter(|line| !line.contains("\"response_url\""));
    let payload: String = lines.map(str::trim).collect();
    let payload = payload.replace("apr-abc123", name);
    let mut form = String::from("payload=");
    for byte in payload.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                form.push(char::from(byte))
            }
            b' ' => form.push('+'),
            _ => form += &format!("%{byte:02X}"),
        }
    }
    form
}
