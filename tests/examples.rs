//! The examples of `fixtures/examples/`, run as they stand: each asks a real server, and takes nothing but an approval
//! for a yes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Answer, CHANNEL, Click, Client, Errand, Finished, RawRequest, Scratch, Server, dropped,
    eventually, fixture, fixture_text, now, owes, read_approval, sign, write_approval,
};
use crate::stand_in::StandIn;

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(10);

/// Puts the binary into the `PATH` as `runbook`, and becomes the example.
const WITH_RUNBOOK: &str =
    r#"ln -sf "$1" runbook && shift && export PATH="$PWD:$PATH" && exec "$@""#;

/// A server, its Slack and its directory.
struct Scene {
    slack: StandIn,
    dir: Scratch,
    server: Server,
}

impl Scene {
    fn new() -> Self {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let builder = Server::builder().dir(&dir).slack(&slack);
        let server = builder
            .env("RUNBOOK_CALLBACK_SECRET", SECRET)
            .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
            .start();
        Self { slack, dir, server }
    }

    /// An example that finds what every asker needs.
    fn example(&self, name: &str, args: &[&str]) -> Client {
        alone(name, args).dir(&self.dir).slack(&self.slack)
    }

    /// The one request that is there, once Slack shows it.
    fn shown(&self) -> Value {
        eventually("the request is shown", SOON, || {
            let mut found = requests(&self.dir);
            found.retain(|approval| approval["slackMessageTs"].is_string() && !owes(approval));
            found.pop()
        })
    }

    fn id(&self) -> String {
        self.shown()["id"].as_str().unwrap().to_owned()
    }

    /// Clicks on what Slack shows.
    fn click(&self, action: &str) {
        let approval = self.shown();
        let posted = self.slack.wait_for("chat.postMessage", 1, SOON).remove(0);
        let click = Click::on_posted(action, &posted, &approval);
        self.server.click(&click);
    }

    fn deny(&self, reason: &str) {
        let denied = Client::new(["deny", &self.id(), "--reason", reason]);
        assert_eq!(denied.dir(&self.dir).finish().status, Some(0));
    }
}

/// The requests of a directory that can be read.
fn requests(dir: &Scratch) -> Vec<Value> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .collect()
}

fn path(name: &str) -> String {
    format!("{}/fixtures/examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// An example that finds nothing but `runbook`.
fn alone(name: &str, args: &[&str]) -> Client {
    program(&path(name), args)
}

fn program(program: &str, args: &[&str]) -> Client {
    let words = std::iter::once(&program).chain(args);
    Client::new(words).wrapper(["sh", "-c", WITH_RUNBOOK, "sh"])
}

#[track_caller]
fn assert_ends(finished: &Finished, status: i32, stdout: &str, stderr: &str) {
    let Finished {
        status: ended,
        stdout: said,
        stderr: complained,
    } = finished;
    assert_eq!((*ended, &**said), (Some(status), stdout), "{finished:?}");
    let empty = stderr.is_empty() && !complained.is_empty();
    assert!(!empty && complained.contains(stderr), "{finished:?}");
}

// The command line.

fn restart(scene: &Scene) -> Client {
    let example = scene.example("restart.sh", &["checkout"]);
    example.env("RESTART", "echo restarted")
}

#[test]
fn the_shell_script_restarts_after_a_click_and_does_not_ask_twice() {
    let scene = Scene::new();
    let asked = restart(&scene).start();
    scene.click("approve");
    let said = "approved by @alice\nrestarted checkout\n";
    assert_ends(&asked.wait(), 0, said, "");
    assert_ends(&restart(&scene).finish(), 0, said, "");
    assert_eq!(scene.slack.calls_of("chat.postMessage").len(), 1);
    let id = scene.id();
    let day = id.strip_prefix("restart-checkout-").unwrap();
    assert!(day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit()));
}

#[test]
fn the_shell_script_says_why_it_does_not_restart() {
    let scene = Scene::new();
    let asked = restart(&scene).start();
    scene.deny("not during the sale");
    assert_ends(&asked.wait(), 5, "", ": not during the sale");

    let scene = Scene::new();
    let asked = restart(&scene).env("OPEN_FOR", "1s").start();
    scene.shown();
    // Nobody but who waits needs to be there at the end.
    scene.server.kill();
    assert_ends(&asked.wait(), 6, "", "nobody decided in time");

    let asked = restart(&scene).without_env("SLACK_BOT_TOKEN");
    let asked = asked.env("RUNBOOK_PENDING_DIR", "new").finish();
    assert_ends(&asked, 2, "", "there is no answer");
    assert!(asked.stderr.contains("runbook: error: "), "{asked:?}");
}

// Files only.

fn ask_by_files(dir: &Scratch) -> Client {
    let args = ["reindex", r#"{"index": "orders", "shards": 8}"#];
    alone("ask_by_files.py", &args).env("RUNBOOK_PENDING_DIR", dir.path())
}

#[test]
fn the_files_alone_carry_a_question_to_slack_and_the_answer_back() {
    let scene = Scene::new();
    let asked = ask_by_files(&scene.dir).start();
    scene.click("approve");
    let said = "approved by U061F7AUR: no reason given\n";
    assert_ends(&asked.wait(), 0, said, "");
    assert_eq!(scene.shown()["args"]["shards"], 8);

    let scene = Scene::new();
    let asked = ask_by_files(&scene.dir).start();
    scene.deny("too late");
    let finished = asked.wait();
    assert_eq!(finished.status, Some(5), "{finished:?}");
    assert!(finished.stdout.ends_with(": too late\n"), "{finished:?}");
}

/// Asks where nobody answers, and does something to the request meanwhile.
fn tampered(what: impl FnOnce(&Scratch, Value)) -> Finished {
    let dir = Scratch::new();
    let asked = ask_by_files(&dir).start();
    let request = eventually("it asks", SOON, || requests(&dir).pop());
    what(&dir, request);
    asked.wait()
}

fn file(dir: &Scratch, request: &Value) -> std::path::PathBuf {
    dir.join(format!("{}.json", request["id"].as_str().unwrap()))
}

#[test]
fn what_is_damaged_gone_or_changed_is_no_yes_for_who_reads_files() {
    let gone = tampered(|dir, request| fs::remove_file(file(dir, &request)).unwrap());
    assert_ends(&gone, 1, "", "gone, or damaged");
    let half = tampered(|dir, request| {
        let text = request.to_string().replace("pending", "approved");
        fs::write(file(dir, &request), &text[..text.len() - 1]).unwrap();
    });
    assert_ends(&half, 1, "", "gone, or damaged");
    let twice = tampered(|dir, request| {
        let text = request
            .to_string()
            .replacen('{', r#"{"status":"denied","#, 1);
        fs::write(file(dir, &request), text.replace("pending", "approved")).unwrap();
    });
    assert_ends(&twice, 1, "", "gone, or damaged");
    let another = tampered(|dir, mut request| {
        request["args"]["shards"] = 800.into();
        request["status"] = "approved".into();
        write_approval(dir, &request);
    });
    assert_ends(&another, 1, "", "another one by now");
    let nowhere = ask_by_files(&Scratch::new()).env("RUNBOOK_PENDING_DIR", "nowhere");
    assert_ends(&nowhere.finish(), 1, "", "No such file");
}

#[test]
fn who_reads_files_finds_an_archived_answer_and_gives_up_when_the_time_is_over() {
    let archived = tampered(|dir, mut request| {
        request["status"] = "approved".into();
        fs::create_dir(dir.join("archive")).unwrap();
        write_approval(dir.join("archive"), &request);
        fs::remove_file(file(dir, &request)).unwrap();
    });
    assert_ends(&archived, 0, "approved by nobody: no reason given\n", "");
    let dir = Scratch::new();
    let late = ask_by_files(&dir).env("OPEN_FOR", "0.5");
    assert_ends(
        &late.finish(),
        6,
        "expired by nobody: no reason given\n",
        "",
    );
}

// Called back.

const SECRET: &str = "an agent's own secret";

/// Posts a body as the server would, with this signature.
fn call_back(port: &str, timestamp: u64, signature: &str, body: &str) -> u16 {
    let request = RawRequest::new("POST", "/decided")
        .header("X-Runbook-Request-Timestamp", timestamp.to_string())
        .header("X-Runbook-Signature", signature)
        .body(body);
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    std::io::Write::write_all(&mut stream, &request.to_bytes()).unwrap();
    let answer = Answer::read(&mut std::io::BufReader::new(stream), "POST");
    answer.unwrap().status
}

#[test]
fn the_receiver_believes_what_the_server_signed_and_acts_upon_it_once() {
    let (scene, kept) = (Scene::new(), Scratch::new());
    let args = ["0", kept.path().to_str().unwrap()];
    let receiver: Errand = alone("callback_receiver.py", &args)
        .env("RUNBOOK_CALLBACK_SECRET", SECRET)
        .start();
    let said = eventually("it listens", SOON, || {
        let said = String::from_utf8(receiver.output()).ok()?;
        said.ends_with('\n').then_some(said)
    });
    let port = said.trim().rsplit(':').next().unwrap();

    let mut request = dropped("apr-1", "C0DEPLOYS");
    request["callbackUrl"] = format!("http://127.0.0.1:{port}/decided").into();
    write_approval(&scene.dir, &request);
    scene.click("approve");
    receiver.wait_for("approved apr-1 \"scale_ecs_service\"\n");
    let stored = eventually("2xx is noted", SOON, || {
        let stored = read_approval(&scene.dir, "apr-1");
        stored["agentNotifiedAt"].is_string().then_some(stored)
    });
    let written = read_approval(&kept, "apr-1");
    assert_eq!(written["decidedBy"], stored["decidedBy"]);

    let body = json!({"id": "apr-2", "operation": "x", "status": "approved"}).to_string();
    let at = |time: u64| sign(SECRET, &time.to_string(), body.as_bytes());
    let now = now();
    for (time, signature) in [
        (now, sign("another", &now.to_string(), body.as_bytes())),
        (now - 301, at(now - 301)),
        (now + 310, at(now + 310)),
        (now, at(now - 1)),
        (now, String::new()),
    ] {
        assert_eq!(call_back(port, time, &signature, &body), 401);
    }
    assert!(!kept.join("apr-2.json").exists());
    for _ in 0..2 {
        assert_eq!(call_back(port, now, &at(now), &body), 204);
    }
    let astray = r#"{"id": "../apr-3", "operation": "x", "status": "approved"}"#;
    let signature = sign(SECRET, &now.to_string(), astray.as_bytes());
    assert_eq!(call_back(port, now, &signature, astray), 400);
    let said = String::from_utf8(receiver.output()).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 2);

    let unsafely = alone("callback_receiver.py", &args).finish();
    assert_eq!(unsafely.status, Some(2), "{unsafely:?}");
}

// A hook of Claude Code.

/// A call of a tool as Claude Code tells its hooks of it.
fn call(command: &str) -> Value {
    json!({
        "session_id": "5f0c", "transcript_path": "/tmp/t.jsonl", "cwd": "/srv/shop",
        "permission_mode": "default", "hook_event_name": "PreToolUse", "tool_name": "Bash",
        "tool_input": {"command": command, "description": "Remove old builds"},
        "tool_use_id": "toolu_01ABC123",
    })
}

fn hook(scene: &Scene, call: &Value) -> Client {
    let hook = scene.example("claude_code_hook.py", &[]);
    hook.stdin(call.to_string())
}

/// What a hook answered: the decision, and the reason.
#[track_caller]
fn answer(finished: &Finished) -> (String, String) {
    assert_eq!((finished.status, &*finished.stderr), (Some(0), ""));
    let output: Value = serde_json::from_str(&finished.stdout).unwrap();
    let output = &output["hookSpecificOutput"];
    assert_eq!(output["hookEventName"], "PreToolUse");
    let text = |key: &str| output[key].as_str().unwrap().to_owned();
    (text("permissionDecision"), text("permissionDecisionReason"))
}

#[test]
fn the_hook_allows_what_a_person_has_seen_whole_and_approved() {
    let scene = Scene::new();
    let command = "rm -rf build; printf '%s\\n' \"$HOME\"";
    let asked = hook(&scene, &call(command)).start();
    scene.click("approve");
    let approved = ("allow".to_owned(), "approved by @alice".to_owned());
    assert_eq!(answer(&asked.wait()), approved);
    let stored = scene.shown();
    assert_eq!(stored["command"], json!(["bash", "-c", command]));
    assert_eq!(stored["id"], "toolu_01ABC123");
    // The same call once more is the same request; another one under its id is none.
    assert_eq!(answer(&hook(&scene, &call(command)).finish()), approved);
    let (decision, reason) = answer(&hook(&scene, &call("rm -rf /")).finish());
    assert_eq!(decision, "deny");
    assert!(reason.contains("toolu_01ABC123"), "{reason}");
}

#[test]
fn the_hook_denies_whatever_is_not_approved() {
    let scene = Scene::new();
    let asked = hook(&scene, &call("rm -rf build")).start();
    scene.deny("keep them");
    let (decision, reason) = answer(&asked.wait());
    assert!(decision == "deny" && reason.ends_with(": keep them"));

    let scene = Scene::new();
    let late = hook(&scene, &call("rm -rf build")).env("RUNBOOK_HOOK_TIMEOUT", "1");
    let expired = ("deny".to_owned(), "expired".to_owned());
    assert_eq!(answer(&late.finish()), expired);

    let scene = Scene::new();
    let nobody = hook(&scene, &call("rm -rf build")).without_env("SLACK_BOT_TOKEN");
    let (decision, reason) = answer(&nobody.finish());
    assert!(decision == "deny" && reason.contains("nobody could be asked: runbook: error: "));

    let unseen = hook(&scene, &call(&"rm -rf build; ".repeat(2000)));
    let (decision, reason) = answer(&unseen.finish());
    assert!(
        decision == "deny" && reason.contains("too long"),
        "{reason}"
    );
}

#[test]
fn a_hook_that_cannot_ask_blocks_and_one_that_is_stopped_withdraws() {
    let scene = Scene::new();
    for broken in ["", "{", "[]", r#"{"tool_name": "Bash"}"#] {
        let finished = scene.example("claude_code_hook.py", &[]).stdin(broken);
        assert_ends(&finished.finish(), 2, "", "no approval");
    }
    let python = "/usr/bin/env python3";
    let missing = format!("unlink runbook; PATH=/usr/bin:/bin exec {python} \"$0\"");
    let missing = program("sh", &["-c", &missing, &path("claude_code_hook.py")]);
    let missing = missing.stdin(call("rm -rf build").to_string());
    assert_ends(&missing.finish(), 2, "", "no approval");

    let asked = hook(&scene, &call("rm -rf build")).start();
    scene.shown();
    asked.signal(Signal::TERM);
    assert_eq!(answer(&asked.wait()).0, "deny");
    assert_eq!(scene.shown()["status"], "cancelled");
}

#[test]
fn the_hook_says_nothing_of_what_is_harmless_and_of_other_tools() {
    let scene = Scene::new();
    let mut read = call("x");
    read["tool_name"] = "Read".into();
    for silent in [call("ls -l src"), call("grep -rn TODO src/main.rs"), read] {
        assert_ends(&hook(&scene, &silent).finish(), 0, "", "");
    }
    for asked in [
        "ls; rm x",
        "ls > x",
        "ls\nrm x",
        "echo $(rm x)",
        "cat `x`",
        " ",
        "",
    ] {
        let asked = hook(&scene, &call(asked)).without_env("SLACK_BOT_TOKEN");
        assert_eq!(answer(&asked.finish()).0, "deny");
    }
    assert!(scene.slack.calls().is_empty());
}

#[test]
fn the_settings_name_the_hook_and_give_it_more_time_than_it_takes() {
    let settings = fixture("examples/claude_code_settings.json");
    let matched = &settings["hooks"]["PreToolUse"][0];
    let hook = &matched["hooks"][0];
    assert_eq!(
        (&matched["matcher"], &hook["type"]),
        (&"Bash".into(), &"command".into())
    );
    assert_eq!(hook["onFailure"], "block");
    let command = hook["command"].as_str().unwrap();
    assert!(command.ends_with("/claude_code_hook.py"), "{command}");
    let code = fixture_text("examples/claude_code_hook.py");
    let waits = code.split("RUNBOOK_HOOK_TIMEOUT\") or \"").nth(1).unwrap();
    let waits: u64 = waits.split('"').next().unwrap().parse().unwrap();
    assert!(hook["timeout"].as_u64().unwrap() >= waits + 60);
}

// CI.

/// What `ssh` does: forgets its own options, and gives the rest to the other side's shell as one line.
const SSH: &str = r#"#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
test "$1" = deploy@vm || exit 255
shift
cd "$VM" && exec sh -c "$*"
"#;

/// The machine of the deployment, and the runner.
struct Ci {
    scene: Scene,
    vm: Scratch,
    runner: Scratch,
    step: String,
}

impl Ci {
    fn new() -> Self {
        let (vm, runner) = (Scratch::new(), Scratch::new());
        program_file(&runner.join("ssh"), SSH);
        program_file(
            &vm.join("deploy"),
            "#!/bin/sh\necho \"$@\" >> deployed\nexit 0\n",
        );
        let workflow = fixture_text("examples/github_actions.yml");
        let workflow: Value = serde_saphyr::from_str(&workflow).unwrap();
        let step = &workflow["jobs"]["deploy"]["steps"][0];
        assert_eq!(step["shell"], "bash");
        let step = step["run"].as_str().unwrap().to_owned();
        let scene = Scene::new();
        Self {
            scene,
            vm,
            runner,
            step,
        }
    }

    /// The step as a runner runs it.
    fn step(&self) -> Client {
        let words = ["--noprofile", "--norc", "-eo", "pipefail", "-c", &self.step];
        let path = std::env::var("PATH").unwrap();
        program("bash", &words)
            .dir(&self.scene.dir)
            .slack(&self.scene.slack)
            .env("PATH", format!("{}:{path}", self.runner.path().display()))
            .env("VM", self.vm.path())
            .env("RUNNER_TEMP", self.runner.path())
            .env("DEPLOY_HOST", "deploy@vm")
            .env("DEPLOY_KEY", "a key")
            .env("DEPLOY_HOST_KEY", "vm ssh-ed25519 AAAA")
            .env("GITHUB_RUN_ID", "4711")
            .env("GITHUB_SHA", "0a1b2c")
            .env("GITHUB_ACTOR", "dependabot[bot]; touch pwned")
            .env("GITHUB_REPOSITORY", "example/shop")
            .env("GITHUB_SERVER_URL", "https://github.com")
    }

    fn deployed(&self) -> String {
        fs::read_to_string(self.vm.join("deployed")).unwrap_or_default()
    }
}

fn program_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_job_of_ci_deploys_once_after_a_click_and_its_retry_attaches() {
    let ci = Ci::new();
    let (job, retry) = (ci.step().start(), ci.step());
    ci.scene.shown();
    let retry = retry.start();
    ci.scene.click("approve");
    let mut codes = [job.wait().status, retry.wait().status];
    codes.sort_unstable();
    assert_eq!((codes, &*ci.deployed()), ([Some(0), Some(1)], "0a1b2c\n"));
    let again = ci.step().finish();
    assert_eq!(again.status, Some(1), "{again:?}");
    assert!(again.stderr.contains("the command was not run: "));
    assert_eq!(ci.deployed(), "0a1b2c\n");
    let stored = ci.scene.shown();
    assert_eq!(stored["id"], "deploy-4711");
    assert_eq!(stored["requestedBy"], "dependabot[bot]; touch pwned");
    assert_eq!(stored["args"]["commit"], "0a1b2c");
    assert_eq!(ci.scene.slack.calls_of("chat.postMessage").len(), 1);
    assert!(!ci.vm.join("pwned").exists());
}

#[test]
fn a_job_of_ci_fails_with_the_reason_and_deploys_nothing_without_a_yes() {
    let ci = Ci::new();
    let job = ci.step().start();
    ci.scene.deny("freeze");
    let denied = job.wait();
    assert_eq!(denied.status, Some(5), "{denied:?}");
    assert!(denied.stderr.contains(": freeze"), "{denied:?}");
    assert!(denied.stdout.contains("::error::denied"), "{denied:?}");
    let cut_off = ci.step().env("DEPLOY_HOST", "deploy@elsewhere").finish();
    assert_eq!(cut_off.status, Some(255), "{cut_off:?}");
    assert_eq!(ci.deployed(), "");
}
