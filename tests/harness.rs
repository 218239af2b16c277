//! Runs the real binary, speaks to it as Slack does, and looks after what it leaves behind.
//!
//! Nothing of the developer's machine reaches the server: its environment is empty but for what the test gives, its
//! working and home directories are fresh, and its Slack is a [`StandIn`] or a port where nobody listens. A failing
//! test prints the command, the directory and the log; output that no test asked for is a failure too.

#![allow(
    dead_code,
    reason = "a harness offers more than any one set of tests uses"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "a request is built where it is sent"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::stand_in::{Call, StandIn};
use crate::wire::{Head, Unframed, header};

/// The signing secret of a server that was given no other: the one of Slack's published example.
pub const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// How long a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a server may take to end after SIGTERM: its own ten seconds for what is in flight, and a little.
const FAREWELL: Duration = Duration::from_secs(12);

/// `X-Slack-Signature` of a body that Slack would send at this time.
pub fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key length will do");
    mac.update(b"v0:");
    mac.update(timestamp.as_bytes());
    mac.update(b":");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let mut signature = "v0=".to_owned();
    for byte in digest {
        write!(signature, "{byte:02x}").expect("a string takes any text");
    }
    signature
}

/// Unix time in seconds.
pub fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.expect("the clock is past 1970").as_secs()
}

/// Asks again and again until there is an answer; panics when there is none before the deadline.
pub fn eventually<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(
            started.elapsed() < deadline,
            "{what}: not within {deadline:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a program that hears every signal, whatever whoever runs the tests was told to ignore (`nohup`).
pub const HEARING: [&str; 2] = ["env", "--default-signal"];

/// A file below `fixtures/`, as JSON.
pub fn fixture(path: &str) -> Value {
    let text = fixture_text(path);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("fixtures/{path}: {error}"))
}

/// A file below `fixtures/`.
pub fn fixture_text(path: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/").to_owned() + path;
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A fresh private directory, removed on drop; a panicking test keeps it and prints where it is.
///
/// Its parent is private too, so that what is written beside it (`../audit`) meets no other test.
pub struct Scratch {
    parent: PathBuf,
    path: PathBuf,
}

impl Scratch {
    #[allow(
        clippy::new_without_default,
        reason = "every scratch directory is another one"
    )]
    pub fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let name = format!("runbook-test-{}-{number}", std::process::id());
            let parent = std::env::temp_dir().join(name);
            match private.create(&parent) {
                Ok(()) => {
                    let path = parent.join("scratch");
                    private.create(&path).expect("create a scratch directory");
                    return Self { parent, path };
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", parent.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.parent);
        }
    }
}

/// The documented sample request, pending, under another id.
pub fn sample(id: &str) -> Value {
    json!({
        "id": id,
        "operation": "scale_ecs_service",
        "args": {"service": "checkout-api", "desiredCount": 8},
        "riskLevel": "high",
        "rollbackCommand": "aws ecs update-service --desired-count 4",
        "requestedAt": "2024-01-15T15:30:00Z",
        "slackMessageTs": "1705333800.000100",
        "slackChannel": "C1234567890",
        "status": "pending",
    })
}

/// The sample as another program drops it: nobody has shown it in Slack yet.
pub fn dropped(id: &str, channel: &str) -> Value {
    let mut approval = sample(id);
    let fields = approval.as_object_mut().expect("the sample is an object");
    fields.shift_remove("slackMessageTs");
    fields.insert("slackChannel".into(), channel.into());
    approval
}

/// Puts an approval where a server looks for it, as any program may: under another name first.
pub fn write_approval(dir: impl AsRef<Path>, approval: &Value) {
    let id = approval["id"].as_str().expect("an approval has an id");
    let file = approval_file(dir.as_ref(), id);
    let unfinished = dir.as_ref().join(format!(".{id}.unfinished"));
    let text = format!("{approval:#}\n");
    fs::write(&unfinished, text)
        .and_then(|()| fs::rename(&unfinished, &file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

pub fn read_approval(dir: impl AsRef<Path>, id: &str) -> Value {
    let file = approval_file(dir.as_ref(), id);
    let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn approval_file(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// Whether anything is owed still: an effect, or a line of the audit log.
pub fn owes(approval: &Value) -> bool {
    let owed = ["effectsOwed", "auditOwed"];
    owed.iter().any(|list| approval.get(list).is_some())
}

/// Every file below a directory with its contents, to compare before and after.
pub fn all_files(dir: impl AsRef<Path>) -> BTreeMap<String, Vec<u8>> {
    fn visit(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.strip_prefix(root).expect("below the root");
            let name = name.to_string_lossy().into_owned();
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => visit(root, &path, files)?,
                // A file that went away between the listing and the reading was not there.
                Ok(metadata) if metadata.is_file() => {
                    files.extend(fs::read(&path).ok().map(|contents| (name, contents)));
                }
                _ => {}
            }
        }
        Ok(())
    }
    let (root, mut files) = (dir.as_ref(), BTreeMap::new());
    visit(root, root, &mut files).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    files
}

/// The binary under test, in this directory and with nothing in its environment but `PATH` and `HOME`.
///
/// `RUNBOOK_BIN` names another binary, so that the same tests run against a release.
pub fn runbook(working_dir: &Path) -> Command {
    let built = || {
        option_env!("CARGO_BIN_EXE_runbook")
            .unwrap_or("runbook")
            .into()
    };
    let binary: PathBuf = std::env::var_os("RUNBOOK_BIN").map_or_else(built, PathBuf::from);
    let binary = std::path::absolute(binary).expect("the binary has a path");
    let mut command = Command::new(binary);
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", working_dir)
        .current_dir(working_dir)
        .stdin(Stdio::null());
    command
}

/// What another program makes of ours; `.ci/run` installs them all.
pub fn other_program<const N: usize>(words: [&str; N], stdin: &str) -> Finished {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; see .ci/run", words[0]));
    let mut input = child.stdin.take().expect("it is piped");
    let text = stdin.to_owned();
    // Aside, for the program may answer before it has read all.
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it was started");
    // It may not want all of it.
    let _ = writer.join();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Finished {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A `runbook webhook` to be started.
pub struct Builder {
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    unset: BTreeSet<OsString>,
    pending_dir: Option<PathBuf>,
    config: Option<String>,
    files: Vec<(String, String)>,
    bare: bool,
    wrapper: Vec<OsString>,
    stdin: Option<OwnedFd>,
}

/// What a program that ended left.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
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
    pub fn config(mut self, yaml: &str) -> Self {
        self.config = Some(yaml.to_owned());
        self
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
        let waiting = server
            .stdout
            .wait_for("Waiting for interactions...", PATIENCE);
        let port = waiting.as_deref().and_then(announced_port);
        server.port = port.unwrap_or_else(|| {
            let stdout = server.stdout.so_far();
            panic!("the server did not start; standard output:\n{stdout}")
        });
        server
    }

    /// Runs a server that is to end by itself.
    pub fn start_expecting_failure(self) -> Finished {
        let server = self.spawn();
        server.expect_errors();
        let status = server.wait(PATIENCE);
        Finished {
            status: status.code(),
            stdout: server.banner(),
            stderr: server.log(),
        }
    }

    fn spawn(self) -> Server {
        let working_dir = Scratch::new();
        if let Some(yaml) = &self.config {
            let file = config_file(&working_dir);
            let dir = file.parent().expect("a file has a directory");
            fs::create_dir(dir).expect("create .runbook");
            fs::write(file, yaml).expect("write the configuration");
        }
        for (path, text) in &self.files {
            let file = working_dir.join(path);
            fs::create_dir_all(file.parent().expect("a file has a directory"))
                .and_then(|()| fs::write(&file, text))
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
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

        let mut command = runbook(working_dir.path());
        if let [program, arguments @ ..] = &*self.wrapper {
            let binary = command.get_program().to_owned();
            let mut wrapped = Command::new(program);
            wrapped
                .args(arguments)
                .arg(binary)
                .env_clear()
                .envs(
                    command
                        .get_envs()
                        .filter_map(|(name, value)| Some((name, value?))),
                )
                .current_dir(working_dir.path())
                .stdin(Stdio::null());
            command = wrapped;
        }
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
        command.stdout(Stdio::piped()).stderr(Stdio::piped());

        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Server {
            pid: child.id(),
            stdout: Transcript::of(child.stdout.take().expect("standard output is piped")),
            stderr: Transcript::of(child.stderr.take().expect("standard error is piped")),
            child: Mutex::new(child),
            command: format!("{command:?}"),
            port: 0,
            secret,
            pending_dir,
            expects_errors: AtomicBool::new(false),
            working_dir,
        }
    }
}

fn config_file(working_dir: &Scratch) -> PathBuf {
    working_dir.join(".runbook/config.yaml")
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
    pid: u32,
    child: Mutex<Child>,
    stdout: Arc<Transcript>,
    stderr: Arc<Transcript>,
    command: String,
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
            config: None,
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
        self.pid
    }

    pub fn pending_dir(&self) -> &Path {
        &self.pending_dir
    }

    pub fn working_dir(&self) -> &Path {
        self.working_dir.path()
    }

    /// Where [`Builder::config`] put the configuration, for a test that changes it.
    pub fn config_file(&self) -> PathBuf {
        config_file(&self.working_dir)
    }

    /// Standard output so far.
    pub fn banner(&self) -> String {
        self.stdout.so_far()
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until the log holds this text and returns the whole log; panics when it does not come.
    pub fn wait_for_log(&self, text: &str, timeout: Duration) -> String {
        self.stderr
            .wait_for(text, timeout)
            .unwrap_or_else(|| panic!("the log does not say {text:?} within {timeout:?}"))
    }

    /// Tells the harness that `[ERROR]` and `panicked` in the log are what the test is about.
    pub fn expect_errors(&self) {
        self.expects_errors.store(true, Ordering::Relaxed);
    }

    /// The most memory that the server has had resident so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("the server runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kib.expect("the kernel counts in KiB")
    }

    /// Sends a signal, unless the server has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if child.try_wait().expect("look at the server").is_none() {
            kill_process(Pid::from_child(&child), signal).expect("signal the server");
        }
    }

    /// Waits until the server ends by itself.
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        let ended = || self.child().try_wait().expect("look at the server");
        let status = eventually("the server ends", deadline, ended);
        self.read_to_the_end();
        status
    }

    /// Ends the server as an operator does, with SIGTERM.
    pub fn terminate(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(FAREWELL)
    }

    /// Ends the server as a crash does, with SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        self.read_to_the_end();
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A child of the server may hold its pipes open for longer than it lives, hence the bound.
    fn read_to_the_end(&self) {
        for transcript in [&self.stdout, &self.stderr] {
            transcript.wait_for_end(Duration::from_secs(2));
        }
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

/// The form that carries an interaction's payload.
pub fn interaction_form(payload: &Value) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        let story = format!(
            "command: {}\ndirectory: {}\nlog:\n{log}",
            self.command,
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
        self.files
            .push((".runbook/config.yaml".into(), yaml.to_owned()));
        self
    }

    /// What it finds on its standard input; nothing unless the test says so.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Starts it through another program, as [`Builder::wrapper`] does.
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
        for (path, text) in &self.files {
            let file = working_dir.join(path);
            fs::create_dir_all(file.parent().expect("a file has a directory"))
                .and_then(|()| fs::write(&file, text))
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let plain = runbook(working_dir.path());
        let words: Vec<&OsStr> = (self.wrapper.iter().map(OsString::as_os_str))
            .chain([plain.get_program()])
            .chain(self.args.iter().map(OsString::as_os_str))
            .collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .envs(&self.env)
            .current_dir(self.place.as_deref().unwrap_or(working_dir.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let input = self.stdin;
        // Whoever does not read its input leaves it; that is no failure of this.
        thread::spawn(move || stdin.write_all(&input));
        Errand {
            pid: child.id(),
            stdout: Transcript::of(child.stdout.take().expect("standard output is piped")),
            stderr: Transcript::of(child.stderr.take().expect("standard error is piped")),
            child: Mutex::new(child),
            command: format!("{command:?}"),
            working_dir,
        }
    }
}

/// A [`Client`] under way. Dropping it kills it.
pub struct Errand {
    pid: u32,
    child: Mutex<Child>,
    stdout: Arc<Transcript>,
    stderr: Arc<Transcript>,
    command: String,
    working_dir: Scratch,
}

impl Errand {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn working_dir(&self) -> &Path {
        self.working_dir.path()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if child.try_wait().expect("look at the command").is_none() {
            kill_process(Pid::from_child(&child), signal).expect("signal the command");
        }
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
            let children = format!("/proc/{0}/task/{0}/children", self.pid);
            let children = fs::read_to_string(children).unwrap_or_default();
            let child = children.split(' ').next().filter(|pid| !pid.is_empty());
            let pid = child.map_or_else(|| self.pid.to_string(), str::to_owned);
            let call = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
            // `poll` on x86-64, `ppoll` there and on AArch64.
            let polls = ["7 ", "271 ", "73 "]
                .iter()
                .any(|number| call.starts_with(number));
            polls.then_some(())
        });
    }

    pub fn is_running(&self) -> bool {
        self.child().try_wait().expect("look at it").is_none()
    }

    /// Waits for its end.
    pub fn wait(&self) -> Finished {
        let ended = || self.child().try_wait().expect("look at the command");
        let what = format!("{} ends", self.command);
        let status = eventually(&what, ERRAND, ended);
        for transcript in [&self.stdout, &self.stderr] {
            transcript.wait_for_end(Duration::from_secs(2));
        }
        Finished {
            status: status.code(),
            stdout: self.stdout.so_far(),
            stderr: self.stderr.so_far(),
        }
    }

    /// Standard output, byte for byte.
    pub fn output(&self) -> Vec<u8> {
        self.stdout.heard().bytes.clone()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until standard output holds this text; panics when it does not come.
    pub fn wait_for(&self, text: &str) -> String {
        self.stdout.wait_for(text, PATIENCE).unwrap_or_else(|| {
            let (stdout, stderr) = (self.stdout.so_far(), self.stderr.so_far());
            panic!("no {text:?} on standard output: {stdout:?}, {stderr:?}")
        })
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        let (stdout, stderr) = (self.stdout.so_far(), self.stderr.so_far());
        if thread::panicking() {
            let shown: String = stdout.chars().take(2000).collect();
            eprintln!(
                "command: {}\nstandard output:\n{shown}\nstandard error:\n{stderr}",
                self.command
            );
        } else {
            assert!(!stderr.contains("panicked"), "{}: {stderr}", self.command);
        }
    }
}

/// What a program has written to one of its streams, read by a thread of its own.
struct Transcript {
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

    fn so_far(&self) -> String {
        self.heard().text()
    }

    /// Everything up to now once it holds this text; `None` when the stream ends or the time is up without it.
    fn wait_for(&self, text: &str, timeout: Duration) -> Option<String> {
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

/// An HTTP/1.1 request, byte for byte as the test wants it.
///
/// `Host`, `Connection: close` and, for a body or a POST, `Content-Length` are added unless the test gives its own or
/// wants the request bare.
#[derive(Clone)]
pub struct RawRequest {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    bare: bool,
}

impl RawRequest {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            bare: false,
        }
    }

    /// One more field; the same name twice is sent twice.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Takes back every field of this name.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers
            .retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Sends no field but the test's own.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut field = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        };
        for (name, value) in self.added() {
            field(name, value.as_bytes());
        }
        for (name, value) in &self.headers {
            field(name, value);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn added(&self) -> impl Iterator<Item = (&'static str, String)> {
        let has_body = !self.body.is_empty() || self.method == "POST";
        let length = has_body.then(|| ("Content-Length", self.body.len().to_string()));
        [
            ("Host", "localhost".to_owned()),
            ("Connection", "close".to_owned()),
        ]
        .into_iter()
        .chain(length)
        .filter(|(name, _)| !self.bare && !self.gives(name))
    }

    fn gives(&self, name: &str) -> bool {
        let mut names = self.headers.iter().map(|(name, _)| name);
        names.any(|given| given.eq_ignore_ascii_case(name))
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads the answer to a request of this method, past any interim ones (1xx).
    pub fn read(from: &mut impl io::BufRead, method: &str) -> io::Result<Self> {
        loop {
            let head = Head::read(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = head.first_line.split(' ').nth(1).unwrap_or_default();
            let status = status
                .parse()
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, head.first_line.clone()))?;
            let body = match status {
                100..200 => continue,
                204 | 304 => Vec::new(),
                _ if method == "HEAD" => Vec::new(),
                _ => head.read_body(from, Unframed::UntilClose)?,
            };
            return Ok(Self {
                status,
                headers: head.headers,
                body,
            });
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?} {:?}", self.text()))
    }
}

/// A click on one of our buttons, as Slack reports it. The same value is the same click, sent again.
#[derive(Clone)]
pub struct Click {
    payload: Value,
}

impl Click {
    pub fn approve(id: &str) -> Self {
        Self::on_button("approve", "✅ Approve", "primary", id)
    }

    pub fn deny(id: &str) -> Self {
        Self::on_button("deny", "❌ Deny", "danger", id)
    }

    /// A click on a message as it was posted: its own block, value and place.
    pub fn on_posted(action_id: &str, posted: &Call, approval: &Value) -> Self {
        let blocks = posted.body["blocks"].as_array().expect("a post has blocks");
        let buttons = blocks
            .iter()
            .find(|block| block["type"] == "actions")
            .expect("the message has buttons");
        let mut elements = buttons["elements"].as_array().expect("a list").iter();
        let button = elements
            .find(|button| button["action_id"] == action_id)
            .expect("a button of that kind");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (style, label) = (text(&button["style"]), text(&button["text"]["text"]));
        Self::on_button(action_id, &label, &style, &text(&button["value"]))
            .block_id(&text(&buttons["block_id"]))
            .message(
                &text(&approval["slackChannel"]),
                &text(&approval["slackMessageTs"]),
            )
    }

    fn on_button(action_id: &str, label: &str, style: &str, value: &str) -> Self {
        static CLICKS: AtomicU64 = AtomicU64::new(1);
        let number = CLICKS.fetch_add(1, Ordering::Relaxed);
        let payload = json!({
            "type": "block_actions",
            "user": {"id": "U061F7AUR", "username": "alice", "name": "alice", "team_id": "T0001"},
            "api_app_id": "A0001",
            "token": "an-obsolete-token",
            "container": {
                "type": "message", "message_ts": "1705333800.000100", "channel_id": "C1234567890",
                "is_ephemeral": false,
            },
            "trigger_id": format!("{number}.1705333845.d8c1bb837935619ccad0f624c448ffb3"),
            "team": {"id": "T0001", "domain": "example"},
            "enterprise": null,
            "is_enterprise_install": false,
            "channel": {"id": "C1234567890", "name": "deployments"},
            "message": {"type": "message", "ts": "1705333800.000100", "text": "Runbook Approval Request"},
            "state": {"values": {}},
            "actions": [{
                "action_id": action_id, "block_id": "q1Xz", "type": "button", "value": value, "style": style,
                "text": {"type": "plain_text", "text": label, "emoji": true},
                "action_ts": format!("{}.{number:06}", now()),
            }],
        });
        Self { payload }
    }

    pub fn by(self, id: &str, username: &str) -> Self {
        self.set("/user/id", id)
            .set("/user/username", username)
            .set("/user/name", username)
    }

    /// The clicker's own workspace, another one when they come through Slack Connect.
    pub fn of_team(self, team: &str) -> Self {
        self.set("/user/team_id", team)
    }

    pub fn response_url(self, url: impl Into<String>) -> Self {
        self.set("/response_url", url.into())
    }

    pub fn message(self, channel: &str, ts: &str) -> Self {
        self.set("/channel/id", channel)
            .set("/container/channel_id", channel)
            .set("/container/message_ts", ts)
            .set("/message/ts", ts)
    }

    pub fn action_id(self, action_id: &str) -> Self {
        self.set("/actions/0/action_id", action_id)
    }

    /// On the buttons of a message that was posted.
    pub fn on(self, posted: &Call) -> Self {
        let word = |value: &Value| value.as_str().expect("text").to_owned();
        let buttons = posted.buttons().expect("the message has buttons");
        self.message(
            &word(&posted.answer["channel"]),
            &word(&posted.answer["ts"]),
        )
        .block_id(&word(&buttons["block_id"]))
    }

    /// The block of the buttons, which binds the click to what was shown.
    pub fn block_id(self, block_id: &str) -> Self {
        self.set("/actions/0/block_id", block_id)
    }

    pub fn without_channel(self) -> Self {
        self.without("/channel").without("/container/channel_id")
    }

    /// Sets the field at a JSON pointer whose parent is an object.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, name) = self.parent(pointer);
        parent.insert(name, value.into());
        self
    }

    /// Removes the field at a JSON pointer whose parent is an object.
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, name) = self.parent(pointer);
        parent.shift_remove(&name);
        self
    }

    fn parent(&mut self, pointer: &str) -> (&mut serde_json::Map<String, Value>, String) {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = self
            .payload
            .pointer_mut(parent)
            .and_then(Value::as_object_mut);
        (
            parent.expect("the pointer's parent is an object"),
            name.to_owned(),
        )
    }

    pub fn payload(&self) -> Value {
        self.payload.clone()
    }
}
