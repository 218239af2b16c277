//! Runs the real binary, speaks to it as Slack does, and looks after what it leaves behind.
//!
//! Nothing of the developer's machine reaches the server: its environment is empty but for what the test gives, its
//! working and home directories are fresh, and its Slack is a [`StandIn`] or a port where nobody listens. A failing
//! test prints the command, the directory and the log; output that no test asked for is a failure too.

#![allow(
    clippy::needless_pass_by_value,
    reason = "a request is built where it is sent"
)]

mod click;
mod client;
mod http;
mod process;
mod server;

pub use click::{Click, interaction_form};
pub use client::{CHANNEL, Client, Errand};
pub use http::{Answer, RawRequest};
pub use process::Finished;
use process::Process;
pub use server::{Builder, Server};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The signing secret of a server that was given no other: the one of Slack's published example.
pub const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// Where a program finds its configuration, below its working directory.
const CONFIG: &str = ".runbook/config.yaml";

/// How long a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

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
#[track_caller]
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

/// Takes a folder away that a server may just be putting a file into.
#[track_caller]
pub fn remove_folder(path: &Path) {
    let deadline = Duration::from_secs(5);
    eventually("the folder is gone", deadline, || {
        fs::remove_dir_all(path).ok()
    });
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

/// The same request with other fields; `null` takes one away.
pub fn with(mut request: Value, changes: &Value) -> Value {
    let fields = request.as_object_mut().expect("a request is an object");
    for (key, value) in changes.as_object().expect("the changes are an object") {
        match value {
            Value::Null => drop(fields.shift_remove(key)),
            value => drop(fields.insert(key.clone(), value.clone())),
        }
    }
    request
}

/// The sample as it was asked so many minutes past noon, with other fields.
pub fn asked_at(id: &str, minute: u64, changes: &Value) -> Value {
    let mut request = sample(id);
    request["requestedAt"] = format!("2024-01-15T12:{minute:02}:00Z").into();
    with(request, changes)
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

/// Waits until a request owes nothing any more, and returns it.
#[track_caller]
pub fn settled(dir: impl AsRef<Path>, id: &str, within: Duration) -> Value {
    eventually(&format!("{id} owes nothing"), within, || {
        Some(read_approval(&dir, id)).filter(|request| !owes(request))
    })
}

/// Waits until a request is decided and owes nothing any more, and returns it.
#[track_caller]
pub fn done(dir: impl AsRef<Path>, id: &str, within: Duration) -> Value {
    eventually(&format!("{id} is decided and owes nothing"), within, || {
        let request = read_approval(&dir, id);
        (request["status"] != "pending" && !owes(&request)).then_some(request)
    })
}

/// Waits until a request is there that remembers its message and owes nothing, and returns it.
#[track_caller]
pub fn shown(dir: impl AsRef<Path>, id: &str, within: Duration) -> Value {
    eventually(&format!("{id} is shown in Slack"), within, || {
        let file = fs::read(approval_file(dir.as_ref(), id)).ok()?;
        let request: Value = serde_json::from_slice(&file).ok()?;
        let shown = request.get("slackMessageTs").is_some() && !owes(&request);
        shown.then_some(request)
    })
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

/// The same, started through another program, if there is one.
fn runbook_through(wrapper: &[OsString], working_dir: &Path) -> Command {
    let plain = runbook(working_dir);
    let [program, words @ ..] = wrapper else {
        return plain;
    };
    let environment = plain.get_envs();
    let mut command = Command::new(program);
    command
        .args(words)
        .arg(plain.get_program())
        .env_clear()
        .envs(environment.filter_map(|(name, value)| Some((name, value?))))
        .current_dir(working_dir)
        .stdin(Stdio::null());
    command
}

/// Puts files below the directory that a program is to work in.
fn write_files(working_dir: &Scratch, files: &[(String, String)]) {
    for (path, text) in files {
        let file = working_dir.join(path);
        fs::create_dir_all(file.parent().expect("a file has a directory"))
            .and_then(|()| fs::write(&file, text))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// Runs a program that is to end by itself.
#[track_caller]
pub fn finished(command: Command, within: Duration) -> Finished {
    Process::start(command).finish(within)
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
