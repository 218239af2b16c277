//! Everything that parses, met with fixtures that somebody has damaged: the same ones every time. The
//! long version is scripts/fuzz.

use std::fs;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use runbook::approval::{Approval, ApprovalId};
use runbook::slack::event::Delivery;
use runbook::slack::interaction::{Interaction, is_ssl_check};
use runbook::slack::message::Message;

use crate::harness::{Click, Scratch, Server, interaction_form, sample, write_approval};
use crate::stand_in::StandIn;

/// How many children each seed has.
const CHILDREN: usize = 300;

/// Numbers that are the same on every run: xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % limit.max(1)
    }

    /// Some bytes with a few changes: other bytes, a piece less, a piece twice, a word that parsers
    /// stumble over.
    fn damage(&mut self, seed: &[u8]) -> Vec<u8> {
        const WORDS: [&[u8]; 12] = [
            b"\0",
            b"\xff",
            b"\"",
            b"{",
            b"[",
            b"%",
            b"\\u0000",
            b"1e999",
            b"-1",
            b"null",
            b"\r\n",
            b"\xe2\x80\xae",
        ];
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below(bytes.len() - at + 1).min(64);
            match self.below(4) {
                0 => drop(bytes.splice(at..end, [])),
                1 => {
                    let piece = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                2 => {
                    let word = WORDS[self.below(WORDS.len())];
                    drop(bytes.splice(at..at, word.iter().copied()));
                }
                _ if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                _ => {}
            }
        }
        bytes
    }
}

fn fixtures(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Calls `parse` with the children of all seeds. What it dies of is shown.
fn survive(seeds: &[Vec<u8>], parse: impl Fn(&[u8])) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for seed in seeds {
        for _ in 0..CHILDREN {
            let child = dice.damage(seed);
            let survived = catch_unwind(AssertUnwindSafe(|| parse(&child)));
            assert!(survived.is_ok(), "{}", String::from_utf8_lossy(&child));
        }
    }
}

#[test]
fn damaged_payloads_and_events_kill_nobody() {
    let payloads = fixtures("slack");
    survive(&payloads, |bytes| {
        let _ = Delivery::parse(bytes);
        if let Ok(json) = serde_json::from_slice(bytes) {
            let _ = Interaction::parse(interaction_form(&json).as_bytes());
        }
    });
    let form = |payload: &Vec<u8>| {
        let json = serde_json::from_slice(payload).ok()?;
        Some(interaction_form(&json).into_bytes())
    };
    let forms: Vec<Vec<u8>> = payloads.iter().filter_map(form).collect();
    assert!(!forms.is_empty());
    survive(&forms, |bytes| {
        let _ = is_ssl_check(bytes);
        let _ = Interaction::parse(bytes);
    });
}

#[test]
fn damaged_approval_files_are_written_as_they_were_read() {
    let id = ApprovalId::parse("apr-abc123").unwrap();
    survive(&fixtures("approvals"), |bytes| {
        let Ok(approval) = Approval::parse(&id, bytes) else {
            return;
        };
        let again = Approval::parse(&id, &approval.to_bytes()).unwrap();
        assert_eq!(again.to_bytes(), approval.to_bytes());
        let _ = (approval.digest(), Message::outcome(&approval));
    });
}

#[test]
fn a_server_lives_through_damaged_requests_files_and_clicks_that_wait() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    let mut dice = Dice(0xDEAD_BEEF_CAFE_F00D);
    let request = server
        .interaction(&Click::approve("apr-1").payload())
        .to_bytes();
    for _ in 0..CHILDREN {
        let mut socket = server.connect().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        // Whatever it says, it may end the connection at once.
        let _ = socket.write_all(&dice.damage(&request));
        let _ = socket.read(&mut [0; 64]);
    }
    let approvals = fixtures("approvals");
    let ballot = br#"{"id":"apr-1","choice":"approve","voter":{"person":{"id":"UA","username":"a","name":"a"},
        "external":false},"route":{},"mayPrecedeFile":false,"at":"2024-01-15T15:30:45Z"}"#;
    for n in 0..CHILDREN / 10 {
        let seed = &approvals[dice.below(approvals.len())];
        fs::write(dir.join(format!("mut-{n}.json")), dice.damage(seed)).unwrap();
        fs::write(dir.join(format!("mut-{n}_pending.json")), dice.damage(seed)).unwrap();
        let name = format!("{}.{n}.json", "a".repeat(16));
        fs::write(dir.join(".ballots").join(name), dice.damage(ballot)).unwrap();
    }
    write_approval(&dir, &sample("apr-1"));
    let answer = server.interact(&Click::approve("apr-1").payload());
    assert_eq!(answer.status, 200);
    assert_eq!(server.get("/health").status, 200);
    assert!(!server.log().contains("this is a bug"), "{}", server.log());
    assert!(server.terminate().success());
}
