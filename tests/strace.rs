//! System calls that fail or kill, by strace.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::excuse;
use crate::harness::Server;

/// Whether this machine need not have strace.
fn is_excused() -> bool {
    excuse::is_excused("RUNBOOK_SKIP_STRACE")
}

/// What a command is started through, so that this is done to a system call of its main thread. What it runs itself is
/// left alone. `None` when this machine is excused.
pub fn tampering(inject: &str) -> Option<[String; 7]> {
    let call = inject.split(':').next().unwrap();
    let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
    let words = ["strace", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    (!is_excused()).then(|| words.map(str::to_owned))
}

/// Kills somebody at their first, second, … call of this kind, until they live through it. `ordeal` tells whether they
/// did; `None` when this machine is excused.
pub fn killing_at_every(call: &str, at_least: usize, ordeal: impl Fn(&str) -> Option<bool>) {
    for n in 1..160 {
        match ordeal(&format!("{call}:signal=KILL:when={n}")) {
            None => return,
            Some(false) => {}
            Some(true) => {
                assert!(n > at_least, "only {} crashes at {call}", n - 1);
                return;
            }
        }
    }
    panic!("{call}: still dying");
}

/// `strace` on a running server, which does something to one of its system calls.
pub struct Strace(Child);

impl Strace {
    /// Attaches to all threads. `None` when this machine is excused from having strace.
    pub fn attach(server: &Server, inject: &str) -> Option<Self> {
        const HELP: &str = "install strace (`apt-get install strace`) and allow ptrace, or set RUNBOOK_SKIP_STRACE=1";
        if is_excused() {
            return None;
        }
        let call = inject.split(':').next().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={inject}")])
            .args(["-p", &server.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("strace: {error}; {HELP}"));
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}\n{HELP}");
        // Nobody reads the rest, but it must go somewhere.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Some(Self(strace))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Told nicely, it may wait for ever for threads of a process that it has killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
