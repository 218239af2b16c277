//! What `scripts/bench/run` measures with. Each command does one thing on loopback or in one directory and prints
//! one line of JSON.
//!
//! ```text
//! file DIR FIRST COUNT              puts so many pending approvals there, as a program would
//! clicks|forged|health PORT CONNECTIONS … [--tls ROOT]     loads a server (see `load`)
//! handshakes PORT THREADS SECONDS ROOT                     full TLS handshakes, one request each
//! start PORT -- COMMAND…            starts a server: how long until it answers
//! fsync DIR THREADS SECONDS         the floor of a durable answer: temporary, fsync, rename, fsync of the directory
//! echo ANSWER                       the floor of an HTTP server; also a Slack that answers at once
//! hang                              a Slack that never answers
//! tls CERTIFICATE KEY               the floor of a TLS server
//! ```

mod click;
mod floor;
mod load;
mod start;

use std::env;
use std::process::exit;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let line = match words.as_slice() {
        ["file", folder, first, count] => click::file(folder, number(first), number(count)),
        ["fsync", folder, threads, seconds] => {
            floor::fsync(folder, number(threads), number(seconds))
        }
        ["echo", answer] => floor::echo(answer),
        ["hang"] => floor::hang(),
        ["tls", certificate, key] => floor::tls(certificate, key),
        ["handshakes", port, threads, seconds, root] => {
            load::handshakes(number(port), number(threads), number(seconds), root)
        }
        ["start", port, "--", command @ ..] => start::start(number(port), command),
        [
            what @ ("clicks" | "forged" | "health"),
            port,
            connections,
            rest @ ..,
        ] => load::load(what, number(port), number(connections), rest),
        _ => {
            eprintln!("runbook-bench: see the top of src/main.rs");
            exit(2);
        }
    };
    println!("{line}");
}

/// A number from the command line.
fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| {
        eprintln!("runbook-bench: {word} is no number that fits");
        exit(2);
    })
}
