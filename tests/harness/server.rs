//! A server, and whoever speaks to it as Slack does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::click::{Click, interaction_form};
use super::http::{Answer, RawRequest};
use super::process::{Finished, Process};
use super::{CONFIG, PATIENCE, SECRET, Scratch, now, runbook_through, sign, write_files};
use crate::stand_in::StandIn;

/// How long a server may take to end after SIGTERM: its own ten seconds for what is in flight, and a little.
const FAREWELL: Duration = Duration::from_secs(12);

/// A `runbook webhook` to be started.
pub struct Builder {
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    unset: BTreeSet<OsString>,
    pending_dir: Option<PathBuf>,
    files: Vec<(String, String)>,
    bare: bool,
    wrapper: Vec<OsString>,
    stdin: Option<OwnedFd>,
}

impl Builder {
    /// Further arguments. A `--port` or `--host` among them replaces the harness's own.
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Takes a variable away, whoever set it.
    pub fn without_env(mut self, name: impl Into<OsString>) -> Self {
        self.unset.insert(name.into());
        self
    }

    /// The directory of pending approvals; without one the server makes its own.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.pending_dir = Some(dir.as_ref().to_owned());
        self
    }

    pub fn slack(self, slack: &StandIn) -> Self {
        self.env("SLACK_API_URL", slack.url())
            .env("SLACK_BOT_TOKEN", slack.token())
    }

    pub fn without_token(self) -> Self {
        self.without_env("SLACK_BOT_TOKEN")
    }

    /// The text of `.runbook/config.yaml` in the server's working directory.
    pub fn config(self, yaml: &str) -> Self {
        self.file(CONFIG, yaml)
    }

    /// A further file in the server's working directory, which is its home, too.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Takes away every option and variable that the harness itself gives.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Starts the server through another program, which gets the server's program and arguments
    /// behind its own and must become it (`exec`): `["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]`.
    pub fn wrapper<I: IntoIterator<Item: Into<OsString>>>(mut self, wrapper: I) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// What the server, or its wrapper, finds as its standard input.
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Starts the server and waits until it takes interactions.
    pub fn start(self) -> Server {
        let mut server = self.spawn();
        let stdout = &server.process.stdout;
        let waiting = stdout.wait_for("Waiting for interactions...", PATIENCE);
        let port = waiting.as_deref().and_then(announced_port);
        server.port = port.unwrap_or_else(|| {
            let stdout = stdout.so_far();
            panic!("the server did not start; standard output:\n{stdout}")
        });
        server
    }

    /// Runs a server that is to end by itself.
    pub fn start_expecting_failure(self) -> Finished {
        let server = self.spawn();
        server.expect_errors();
        server.process.finish(PATIENCE)
    }

    fn spawn(self) -> Server {
        let working_dir = Scratch::new();
        write_files(&working_dir, &self.files);
        let pending_dir = self
            .pending_dir
            .unwrap_or_else(|| working_dir.join("pending-approvals"));
        let secret = self
            .env
            .get(OsStr::new("SLACK_SIGNING_SECRET"))
            .map_or_else(
                || SECRET.to_owned(),
                |set| set.to_string_lossy().into_owned(),
            );

        let mut command = runbook_through(&self.wrapper, working_dir.path());
        if let Some(stdin) = self.stdin {
            command.stdin(stdin);
        }
        command.arg("webhook");
        if !self.bare {
            for (option, value) in [("--port", "0"), ("--host", "127.0.0.1")] {
                if !self.args.iter().any(|arg| is_option(arg, option)) {
                    command.args([option, value]);
                }
            }
            command.arg("--pending-dir").arg(&pending_dir);
            command.env("SLACK_SIGNING_SECRET", SECRET);
            command.env("SLACK_API_URL", "http://127.0.0.1:1/api/");
        }
        command.args(&self.args);
        command.envs(&self.env);
        for name in &self.unset {
            command.env_remove(name);
        }
        Server {
            process: Process::start(command),
            port: 0,
            secret,
            pending_dir,
            expects_errors: AtomicBool::new(false),
            working_dir,
        }
    }
}

/// Whether an argument is this option, as `--port` or `--port=…`.
fn is_option(arg: &OsStr, option: &str) -> bool {
    let rest = arg.to_str().and_then(|arg| arg.strip_prefix(option));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

fn announced_port(banner: &str) -> Option<u16> {
    let (_, rest) = banner.split_once("Listening on port ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A running `runbook webhook`. Dropping it kills it, and fails the test when it logged an error nobody expected.
pub struct Server {
    process: Process,
    port: u16,
    secret: String,
    pending_dir: PathBuf,
    expects_errors: AtomicBool,
    working_dir: Scratch,
}

impl Server {
    pub fn builder() -> Builder {
        Builder {
            args: Vec::new(),
            env: BTreeMap::new(),
            unset: BTreeSet::new(),
            pending_dir: None,
            files: Vec::new(),
            bare: false,
            wrapper: Vec::new(),
            stdin: None,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    pub fn pending_dir(&self) -> &Path {
        &self.pending_dir
    }

    pub fn working_dir(&self) -> &Path {
        self.working_dir.path()
    }

    /// Where [`Builder::config`] put the configuration, for a test that changes it.
    pub fn config_file(&self) -> PathBuf {
        self.working_dir.join(CONFIG)
    }

    /// Standard output so far.
    pub fn banner(&self) -> String {
        self.process.stdout.so_far()
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.process.stderr.so_far()
    }

    /// Waits until the log holds this text and returns the whole log; panics when it does not come.
    pub fn wait_for_log(&self, text: &str, timeout: Duration) -> String {
        let log = &self.process.stderr;
        log.wait_for(text, timeout)
            .unwrap_or_else(|| panic!("the log does not say {text:?} within {timeout:?}"))
    }

    /// Tells the harness that `[ERROR]` and `panicked` in the log are what the test is about.
    pub fn expect_errors(&self) {
        self.expects_errors.store(true, Ordering::Relaxed);
    }

    /// The most memory that the server has had resident so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the server runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kib.expect("the kernel counts in KiB")
    }

    /// Sends a signal, unless the server has ended.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the server ends by itself.
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        self.process.wait(deadline)
    }

    /// Ends the server as an operator does, with SIGTERM.
    pub fn terminate(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(FAREWELL)
    }

    /// Ends the server as a crash does, with SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// A connection of the test's own, for requests that no client would send.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub fn request(&self, request: RawRequest) -> Answer {
        let what = format!("{} {}", request.method, request.target);
        self.try_request(request)
            .unwrap_or_else(|error| panic!("no answer to {what}: {error}"))
    }

    pub fn try_request(&self, request: RawRequest) -> io::Result<Answer> {
        let mut stream = self.connect()?;
        // A server that refuses may stop reading before the last byte; its answer is still to be had.
        let sent = stream.write_all(&request.to_bytes());
        let answer = Answer::read(&mut BufReader::new(stream), &request.method);
        answer.map_err(|error| sent.err().unwrap_or(error))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request(RawRequest::new("GET", path))
    }

    pub fn post_signed(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.request(self.signed(path, content_type, body))
    }

    /// Sends an interaction as Slack does.
    pub fn interact(&self, payload: &Value) -> Answer {
        self.request(self.interaction(payload))
    }

    /// Sends a click that is acknowledged, whatever comes of it.
    #[track_caller]
    pub fn click(&self, click: &Click) {
        assert_eq!(self.interact(&click.payload()).status, 200);
    }

    /// Sends an interaction to a server that may not live to answer it.
    pub fn try_interact(&self, payload: &Value) -> io::Result<Answer> {
        self.try_request(self.interaction(payload))
    }

    /// Sends an event as Slack does.
    pub fn event(&self, event: &Value) -> Answer {
        let body = event.to_string();
        self.post_signed("/slack/events", "application/json", body.as_bytes())
    }

    /// A request signed now with this server's secret.
    pub fn signed(&self, path: &str, content_type: &str, body: &[u8]) -> RawRequest {
        let timestamp = now().to_string();
        let signature = sign(&self.secret, &timestamp, body);
        RawRequest::new("POST", path)
            .header("Content-Type", content_type)
            .header("X-Slack-Request-Timestamp", &timestamp)
            .header("X-Slack-Signature", &signature)
            .body(body)
    }

    /// The signed request that carries an interaction.
    pub fn interaction(&self, payload: &Value) -> RawRequest {
        self.signed(
            "/slack/interactions",
            "application/x-www-form-urlencoded",
            interaction_form(payload).as_bytes(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        let story = format!(
            "command: {}\ndirectory: {}\nlog:\n{log}",
            self.process.command,
            self.pending_dir.display()
        );
        if thread::panicking() {
            eprintln!("{story}");
        } else if !self.expects_errors.load(Ordering::Relaxed) {
            let unexpected = ["panicked", "[ERROR]"]
                .iter()
                .find(|sign| log.contains(**sign));
            assert!(
                unexpected.is_none(),
                "the log holds {unexpected:?}, which the test did not expect\n{story}"
            );
        }
    }
}
