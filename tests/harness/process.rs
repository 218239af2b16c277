//! A program under way: what it says, and how it ends.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A program under way. Dropping it kills it.
pub struct Process {
    pub pid: u32,
    pub stdout: Arc<Transcript>,
    pub stderr: Arc<Transcript>,
    /// How it was started.
    pub command: String,
    child: Mutex<Child>,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            pid: child.id(),
            stdout: Transcript::of(child.stdout.take().expect("standard output is piped")),
            stderr: Transcript::of(child.stderr.take().expect("standard error is piped")),
            command: format!("{command:?}"),
            child: Mutex::new(child),
        }
    }

    /// Writes to its standard input, which is piped, and closes that.
    pub fn feed(&self, input: Vec<u8>) {
        let stdin = self.child().stdin.take();
        let mut stdin = stdin.expect("standard input is piped");
        // Whoever does not read its input leaves it; that is no failure of this.
        thread::spawn(move || stdin.write_all(&input));
    }

    pub fn is_running(&self) -> bool {
        self.ended().is_none()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if child.try_wait().expect("look at the program").is_none() {
            kill_process(Pid::from_child(&child), signal).expect("signal the program");
        }
    }

    /// Waits until it ends.
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.command);
        let status = eventually(&what, deadline, || self.ended());
        self.read_to_the_end();
        status
    }

    /// Waits until it ends, and returns what it left.
    pub fn finish(&self, deadline: Duration) -> Finished {
        let status = self.wait(deadline);
        Finished {
            status: status.code(),
            stdout: self.stdout.so_far(),
            stderr: self.stderr.so_far(),
        }
    }

    /// Ends it as a crash does, with SIGKILL, and hears all that it has said.
    pub fn kill(&self) {
        self.end();
        self.read_to_the_end();
    }

    /// Ends it. What a child of it holds open is not waited for.
    pub fn end(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("look at the program")
    }

    /// A child of the program may hold its pipes open for longer than it lives, hence the bound.
    fn read_to_the_end(&self) {
        for transcript in [&self.stdout, &self.stderr] {
            transcript.wait_for_end(Duration::from_secs(2));
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a program that ended left.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What a program has written to one of its streams, read by a thread of its own.
pub struct Transcript {
    heard: Mutex<Heard>,
    grew: Condvar,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

impl Transcript {
    fn of(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let transcript = Arc::new(Self {
            heard: Mutex::default(),
            grew: Condvar::new(),
        });
        let writing = Arc::clone(&transcript);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut heard = writing.heard();
                heard.bytes.extend_from_slice(&buffer[..read]);
                heard.ended = read == 0;
                writing.grew.notify_all();
                if heard.ended {
                    break;
                }
            }
        });
        transcript
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.heard().bytes.clone()
    }

    pub fn so_far(&self) -> String {
        self.heard().text()
    }

    /// Everything up to now once it holds this text; `None` when the stream ends or the time is up without it.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Option<String> {
        let said = |heard: &Heard| heard.text().contains(text);
        let heard = self.wait_until(timeout, |heard| heard.ended || said(heard));
        said(&heard).then(|| heard.text())
    }

    fn wait_for_end(&self, timeout: Duration) {
        drop(self.wait_until(timeout, |heard| heard.ended));
    }

    fn wait_until(
        &self,
        timeout: Duration,
        condition: impl Fn(&Heard) -> bool,
    ) -> MutexGuard<'_, Heard> {
        let waiting = |heard: &mut Heard| !condition(heard);
        self.grew
            .wait_timeout_while(self.heard(), timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl Heard {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}
