//! A command that asks, runs, waits or decides.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Finished, Process};
use super::{CONFIG, PATIENCE, Scratch, eventually, runbook_through, write_files};
use crate::stand_in::StandIn;

/// A command that asks, runs, waits or decides, to be started.
///
/// It has a fresh working directory, which is its home, too, and of the environment only `PATH` and what the test gives.
pub struct Client {
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    files: Vec<(String, String)>,
    stdin: Vec<u8>,
    wrapper: Vec<OsString>,
    place: Option<PathBuf>,
}

/// The channel of requests that name none.
pub const CHANNEL: &str = "C0DEPLOYS";

/// How long a command may take that nothing holds up.
const ERRAND: Duration = Duration::from_secs(20);

impl Client {
    /// `request`, `run`, `wait`… and what follows it.
    pub fn new<I: IntoIterator<Item: Into<OsString>>>(args: I) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            files: Vec::new(),
            stdin: Vec::new(),
            wrapper: Vec::new(),
            place: None,
        }
    }

    /// Further arguments.
    pub fn and(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(Into::into));
        self
    }

    /// The directory of pending approvals; without one it is below the working directory.
    pub fn dir(self, dir: impl AsRef<Path>) -> Self {
        self.env("RUNBOOK_PENDING_DIR", dir.as_ref())
    }

    /// Slack, with a token and a channel to post to.
    pub fn slack(self, slack: &StandIn) -> Self {
        self.env("SLACK_API_URL", slack.url())
            .env("SLACK_BOT_TOKEN", slack.token())
            .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(OsStr::new(name));
        self
    }

    /// The text of `.runbook/config.yaml` in the working directory.
    pub fn config(mut self, yaml: &str) -> Self {
        self.files.push((CONFIG.into(), yaml.to_owned()));
        self
    }

    /// What it finds on its standard input; nothing unless the test says so.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Starts it through another program, as [`Builder::wrapper`](super::Builder::wrapper) does.
    pub fn wrapper<I: IntoIterator<Item: Into<OsString>>>(mut self, wrapper: I) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Starts it in this directory instead of a fresh one.
    pub fn place(mut self, place: impl AsRef<Path>) -> Self {
        self.place = Some(place.as_ref().to_owned());
        self
    }

    /// Runs it to its end.
    pub fn finish(self) -> Finished {
        self.start().wait()
    }

    pub fn start(self) -> Errand {
        let working_dir = Scratch::new();
        write_files(&working_dir, &self.files);
        let mut command = runbook_through(&self.wrapper, working_dir.path());
        command
            .args(&self.args)
            .envs(&self.env)
            .current_dir(self.place.as_deref().unwrap_or(working_dir.path()))
            .stdin(Stdio::piped());
        let process = Process::start(command);
        process.feed(self.stdin);
        Errand {
            process,
            working_dir,
        }
    }
}

/// A [`Client`] under way. Dropping it kills it.
pub struct Errand {
    process: Process,
    working_dir: Scratch,
}

impl Errand {
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    pub fn working_dir(&self) -> &Path {
        self.working_dir.path()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it as a crash does, with SIGKILL.
    pub fn kill(&self) -> Finished {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Waits until it sleeps in `poll`, which is where it waits for a decision. A wrapper that has not become it is
    /// looked through.
    pub fn wait_until_asleep(&self) {
        eventually("it waits", PATIENCE, || {
            let children = format!("/proc/{0}/task/{0}/children", self.pid());
            let children = fs::read_to_string(children).unwrap_or_default();
            let child = children.split(' ').next().filter(|pid| !pid.is_empty());
            let pid = child.map_or_else(|| self.pid().to_string(), str::to_owned);
            let call = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
            // `poll` on x86-64, `ppoll` there and on AArch64.
            let polls = ["7 ", "271 ", "73 "]
                .iter()
                .any(|number| call.starts_with(number));
            polls.then_some(())
        });
    }

    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end.
    pub fn wait(&self) -> Finished {
        self.process.finish(ERRAND)
    }

    /// Standard output, byte for byte.
    pub fn output(&self) -> Vec<u8> {
        self.process.stdout.bytes()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.process.stderr.so_far()
    }

    /// Waits until standard output holds this text; panics when it does not come.
    pub fn wait_for(&self, text: &str) -> String {
        let stdout = &self.process.stdout;
        stdout.wait_for(text, PATIENCE).unwrap_or_else(|| {
            let (stdout, stderr) = (stdout.so_far(), self.stderr());
            panic!("no {text:?} on standard output: {stdout:?}, {stderr:?}")
        })
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.process.end();
        let (command, stderr) = (&self.process.command, self.stderr());
        if thread::panicking() {
            let stdout = self.process.stdout.so_far();
            let shown: String = stdout.chars().take(2000).collect();
            eprintln!("command: {command}\nstandard output:\n{shown}\nstandard error:\n{stderr}");
        } else {
            assert!(!stderr.contains("panicked"), "{command}: {stderr}");
        }
    }
}
