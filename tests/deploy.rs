//! What `scripts/deploy` ships, as far as a machine can try it that runs no systemd, Docker or Kubernetes; and the
//! binary alone in an empty root.
//!
//! Not tried here: what a running systemd enforces of a unit, and a container runtime.

mod front;
mod images;
mod trust;
mod units;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;

use crate::edge::secured;
use crate::harness::{Click, Server, runbook};

const PATIENCE: Duration = Duration::from_secs(10);

fn shipped(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/deploy")
        .join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("these tests need {program}: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn this_binary() -> PathBuf {
    runbook(Path::new("/")).get_program().into()
}

/// A click through TLS.
fn clicks(port: u16, client: &Arc<ClientConfig>, server: &Server, id: &str) -> u16 {
    let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut wire = secured(socket, client).unwrap();
    wire.say(server.interaction(&Click::approve(id).payload()).to_bytes());
    wire.status("POST")
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
