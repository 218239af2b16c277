//! Slack's own Python SDK signs a click: our server accepts it, and our harness signs alike.
//!
//! Both our server and our harness could be wrong in the same way; the SDK is not ours.

use std::process::Command;

use crate::excuse;
use crate::harness::{
    Click, SECRET, Scratch, Server, fixture, read_approval, sample, sign, write_approval,
};

/// What the witness saw.
struct Testimony {
    status: u16,
    timestamp: String,
    signature: String,
    body: String,
}

/// Whether this machine is excused from having Python and the SDK.
pub fn is_excused() -> bool {
    excuse::is_excused("RUNBOOK_SKIP_WITNESS")
}

fn sign_and_post(server: &Server, secret: &str, click: &Click) -> Testimony {
    const HELP: &str =
        "install Python 3 and `pip install slack_sdk`, or set RUNBOOK_SKIP_WITNESS=1";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk_witness.py");
    let run = Command::new("python3")
        .args([script, &server.port().to_string(), secret])
        .arg(click.payload().to_string())
        .output()
        .unwrap_or_else(|error| panic!("python3: {error}; {HELP}"));
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(
        !complaint.contains("No module named"),
        "{complaint}\n{HELP}"
    );
    assert!(run.status.success(), "{complaint}");
    let said = String::from_utf8(run.stdout).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    let [status, timestamp, signature, body] = words[..] else {
        panic!("four words expected: {said}")
    };
    Testimony {
        status: status.parse().unwrap(),
        timestamp: timestamp.to_owned(),
        signature: signature.to_owned(),
        body: body.to_owned(),
    }
}

#[test]
fn a_click_that_slacks_own_sdk_signed_is_decided() {
    if is_excused() {
        return;
    }
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    server.expect_errors();
    // Names beyond ASCII make the signed bytes differ from the characters.
    let click = Click::approve("apr-1").by("U061F7AUR", "ålice & böb + 100% ✅");

    let forged = sign_and_post(&server, "another secret", &click);
    assert_eq!(forged.status, 401);
    assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");

    let signed = sign_and_post(&server, SECRET, &click);
    assert_eq!(signed.status, 200);
    let stored = read_approval(&dir, "apr-1");
    assert_eq!(stored["status"], "approved");
    assert_eq!(stored["decidedBy"]["username"], "ålice & böb + 100% ✅");
    assert_eq!(
        sign(SECRET, &signed.timestamp, signed.body.as_bytes()),
        signed.signature
    );
}

#[test]
fn the_harness_signs_slacks_published_example_as_slack_does() {
    let vector = fixture("slack/signature_vector.json");
    let text = |name: &str| vector[name].as_str().unwrap().to_owned();
    let signature = sign(
        &text("signingSecret"),
        &text("timestamp"),
        text("body").as_bytes(),
    );
    assert_eq!(signature, text("signature"));
}
