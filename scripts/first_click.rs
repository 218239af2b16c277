//! One click's whole story on one machine, without Slack: `scripts/first-click` builds and runs it.
//!
//! The server is the real one, as are the signature, the files and the HTTP; only Slack is played,
//! by the stand-in that the tests use.

#![allow(
    clippy::expect_used,
    reason = "the harness says what it expects by unwrapping it"
)]

#[path = "../tests/harness.rs"]
mod harness;
#[path = "../tests/stand_in.rs"]
mod stand_in;

use std::time::Duration;

use harness::{Click, Scratch, Server, read_approval, sample, write_approval};
use stand_in::StandIn;

const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    print!("{}", server.banner());

    println!("\nSomething risky is about to happen, so a file appears in the pending directory:\n");
    write_approval(&dir, &sample("apr-abc123"));
    println!("{:#}\n", read_approval(&dir, "apr-abc123"));

    println!("Alice clicks Approve; Slack signs the click and posts it:\n");
    let click = Click::approve("apr-abc123").by("U061F7AUR", "alice");
    let answer = server.interact(&click.payload());
    print!("{}", server.wait_for_log("Notifying agent...", PATIENCE));
    println!(
        "\nSlack got its {}, and by then the file said:\n",
        answer.status
    );
    println!("{:#}\n", read_approval(&dir, "apr-abc123"));

    let update = &slack.wait_for("chat.update", 1, PATIENCE)[0];
    println!(
        "Then the message changed to:\n\n{}\n",
        update.body["text"].as_str().unwrap_or_default()
    );
    server.terminate();
}
