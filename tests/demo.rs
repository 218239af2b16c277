//! `runbook demo`: the story as the terminal tells it, the page as a browser uses it, and who may.

use std::fs;
use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Errand, RawRequest, Scratch, eventually, runbook};
use crate::witness::is_excused;

const SOON: Duration = Duration::from_secs(10);
const ALICE: &str = "U061F7AUR";
const BOB: &str = "U0BOB0001";
const DAVE: &str = "U0DAVE001";
const CAROL: &str = "U0CAROL01";

/// A demo that runs, in a temporary directory of its own, and its page.
struct Demo {
    errand: Errand,
    host: String,
    temporary: Scratch,
}

impl Demo {
    fn start(options: &[&str]) -> Self {
        let temporary = Scratch::new();
        let demo = Client::new(["demo"]).and(options);
        let errand = demo.env("TMPDIR", temporary.path()).start();
        // The line with the page's address is whole once it has ended.
        errand.wait_for("http://127.0.0.1:");
        let said = errand.wait_for("/\n");
        let (_, url) = said.split_once("http://127").unwrap();
        let host = format!("127{}", url.split('/').next().unwrap());
        Self {
            errand,
            host,
            temporary,
        }
    }

    /// What the page asks, as it asks it.
    fn get(&self, target: &str) -> RawRequest {
        RawRequest::new("GET", target).header("Host", &self.host)
    }

    /// What somebody does on the page, as it sends it.
    fn wish(&self, what: &str, wish: &Value) -> RawRequest {
        RawRequest::new("POST", &format!("/do/{what}"))
            .header("Host", &self.host)
            .header("Origin", format!("http://{}", self.host))
            .header("Content-Type", "application/json")
            .body(wish.to_string())
    }

    fn send(&self, request: &RawRequest) -> Answer {
        let mut line = TcpStream::connect(&self.host).unwrap();
        line.set_read_timeout(Some(SOON)).unwrap();
        line.write_all(&request.to_bytes()).unwrap();
        Answer::read(&mut BufReader::new(line), "GET").unwrap()
    }

    fn act(&self, what: &str, wish: &Value) {
        let answer = self.send(&self.wish(what, wish));
        assert_eq!(answer.status, 200, "{what} {wish}: {}", answer.text());
    }

    fn state(&self) -> Value {
        self.send(&self.get("/state")).json()
    }

    /// Something in what the page shows, once it is there.
    fn once<T>(&self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        eventually(what, SOON, || find(&self.state()))
    }

    /// A message that says this, once it is there.
    fn message(&self, said: &str) -> Value {
        self.once(said, |state| {
            let mut messages = state["messages"].as_array()?.iter();
            let found = messages.find(|message| message.to_string().contains(said));
            found.cloned()
        })
    }

    /// A click on a button of a message, or of a Home tab.
    fn click(&self, user: &str, action: &str, shown: &Value) {
        let blocks = shown["blocks"].as_array().unwrap();
        let row = blocks.iter().find(|block| block["type"] == "actions");
        let block = &row.unwrap()["block_id"];
        self.act(
            "click",
            &json!({ "user": user, "ts": shown["ts"], "block": block, "action": action }),
        );
    }

    /// The outcomes that are noted of something that has happened.
    fn outcomes(&self, what: &str) -> Vec<String> {
        let state = self.state();
        let journal = state["journal"].as_array().unwrap().iter();
        let same = journal.filter(|entry| entry["what"] == what);
        same.map(|entry| entry["outcome"].as_str().unwrap().to_owned())
            .collect()
    }

    fn end(self) {
        self.errand.signal(Signal::INT);
        let ended = self.errand.wait();
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        // Whoever still waits goes with the demo, and that is nothing to warn of.
        assert!(!ended.stderr.contains("gave up"), "{}", ended.stderr);
        assert_eq!(entries(&self.temporary), Vec::<String>::new());
    }
}

fn entries(dir: &Scratch) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_demo_tells_an_approval_by_itself_and_leaves_nothing_behind() {
    let temporary = Scratch::new();
    let demo = Client::new(["demo", "--auto", "approve"]).env("TMPDIR", temporary.path());
    let ended = demo.finish();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let mut rest = &*ended.stdout;
    for said in [
        "Runbook Webhook Server",
        "Waiting for interactions...",
        "$ runbook request --wait",
        "│ 🔐 Runbook Approval Request ",
        "│ Operation: Scale checkout-api (4 → 8 tasks) ",
        "│ Risk Level: HIGH 🟠 ",
        "│   aws ecs update-service --desired-count 4 ",
        "│ [✅ Approve]  [❌ Deny] ",
        "│ ✅ Approval Granted ",
        "│ Approved by: @alice ",
        "│ Operation is now executing... ",
    ] {
        let at = rest.find(said);
        rest = &rest[at.unwrap_or_else(|| panic!("{said}: {}", ended.stdout))..];
    }
    for logged in [
        "Received interaction from @alice\n  Action: approve\n  Approval ID: apr-abc123",
        "Approval granted by @alice\n  Approval ID: apr-abc123\n  Notifying agent...",
        "Agent notified, executing operation",
    ] {
        assert!(ended.stderr.contains(logged), "{logged}: {}", ended.stderr);
    }
    assert!(
        ended
            .stdout
            .contains("The agent learns: approved by @alice")
    );
    assert!(!ended.stderr.contains("[ERROR]"), "{}", ended.stderr);
    assert_eq!(entries(&temporary), Vec::<String>::new());
}

#[test]
fn the_demo_tells_a_denial_with_its_reason_and_keeps_what_it_is_told_to_keep() {
    let kept = Scratch::new();
    let dir = kept.join("demo");
    let demo = Client::new(["demo", "--auto", "deny", "--dir"]);
    let ended = demo.and(&[dir.to_str().unwrap()]).finish();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    for said in [
        "│ Why? ",
        "│ ❌ Approval Denied ",
        "│ Reason: Not during the sale ",
    ] {
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
    }
    // To be asked why is nothing that went wrong.
    let asked = "Asking @alice why\n  Approval ID: apr-abc123\n";
    assert!(ended.stderr.contains(asked), "{}", ended.stderr);
    assert!(
        !ended.stderr.contains("changed nothing"),
        "{}",
        ended.stderr
    );
    let list = Client::new(["show", "apr-abc123", "--json"]).place(&dir);
    let shown: Value = serde_json::from_str(&list.finish().stdout).unwrap();
    assert_eq!(shown["status"], "denied");
    assert_eq!(shown["reason"], "Not during the sale");
    assert_eq!(shown["decidedBy"]["id"], ALICE);
    assert!(shown["agentNotifiedAt"].is_string(), "{shown}");
}

#[test]
fn a_click_on_the_page_decides_and_whoever_may_not_is_told_alone() {
    let demo = Demo::start(&[]);
    let asked = demo.message("Runbook Approval Request");
    for (user, word) in [
        (DAVE, "You are not allowed to decide this request."),
        (
            CAROL,
            "Only people of this workspace may decide this request.",
        ),
    ] {
        demo.click(user, "approve", &asked);
        assert_eq!(demo.message(word)["only"], user);
    }
    demo.click(ALICE, "approve", &asked);
    let granted = demo.message("Approval Granted");
    assert_eq!(granted["ts"], asked["ts"]);
    assert!(!granted["blocks"].to_string().contains("actions"));
    demo.once("the agent learns", |state| {
        let journal = state["journal"].to_string();
        journal.contains("approved by @alice").then_some(())
    });
    demo.end();
}

#[test]
fn two_people_complete_a_quorum_one_in_the_channel_and_one_on_their_home_tab() {
    let demo = Demo::start(&[]);
    demo.act("ask", &json!({ "risk": "critical" }));
    let asked = demo.message("drop_index");
    demo.click(ALICE, "approve", &asked);
    assert_eq!(demo.message("1 of 2 needed")["only"], ALICE);
    demo.act("home", &json!({ "user": BOB }));
    demo.once("Bob's Home tab", |state| {
        let home = state["homes"][BOB].to_string();
        home.contains("drop_index").then_some(())
    });
    // There the same buttons stand, under no message.
    demo.click(BOB, "approve", &json!({ "blocks": asked["blocks"] }));
    let granted = demo.message("Approval Granted");
    assert_eq!(granted["ts"], asked["ts"]);
    demo.end();
}

#[test]
fn a_denial_asks_why_until_the_policy_is_changed_on_the_page() {
    let demo = Demo::start(&[]);
    let asked = demo.message("Runbook Approval Request");
    demo.click(BOB, "deny", &asked);
    demo.once("a dialog", |state| {
        let view = &state["dialogs"][BOB];
        (view["title"]["text"] == "Deny request").then_some(())
    });
    let values = json!({ "reason": { "reason": { "value": "  " } } });
    demo.act("submit", &json!({ "user": BOB, "values": values }));
    demo.once("an error in the dialog", |state| {
        state["dialogs"][BOB]["errors"]["reason"]
            .is_string()
            .then_some(())
    });
    let values = json!({ "reason": { "reason": { "value": "Not now" } } });
    demo.act("submit", &json!({ "user": BOB, "values": values }));
    assert!(
        demo.message("Approval Denied")
            .to_string()
            .contains("Not now")
    );
    assert_eq!(demo.state()["dialogs"], json!({}));

    demo.act("policy", &json!({ "sayWhy": false }));
    eventually("the policy is read again", SOON, || {
        demo.errand
            .stderr()
            .contains("Configuration reloaded")
            .then_some(())
    });
    demo.act("ask", &json!({ "risk": "low" }));
    demo.click(BOB, "deny", &demo.message("clear_cache"));
    demo.once("a denial without a reason", |state| {
        let messages = state["messages"].as_array()?;
        let last = messages.last()?.to_string();
        (last.contains("clear_cache") && last.contains("Approval Denied")).then_some(())
    });
    demo.end();
}

#[test]
fn what_slack_does_not_take_is_tried_again_until_it_does() {
    let demo = Demo::start(&[]);
    let asked = demo.message("Runbook Approval Request");
    demo.act("slack", &json!({ "mood": "fails" }));
    demo.click(ALICE, "approve", &asked);
    eventually("two attempts", SOON, || {
        let failed = demo.outcomes("chat.update");
        (failed.len() >= 2 && failed.iter().all(|outcome| outcome == "500")).then_some(())
    });
    assert_eq!(
        demo.state()["presses"],
        json!([]),
        "the click itself is acknowledged"
    );
    demo.act("slack", &json!({ "mood": "works" }));
    demo.message("Approval Granted");
    demo.end();
}

#[test]
fn a_mention_on_the_page_is_answered_in_its_thread() {
    let demo = Demo::start(&[]);
    demo.message("Runbook Approval Request");
    demo.act(
        "say",
        &json!({ "user": BOB, "text": "@runbook what is <pending>?" }),
    );
    let said = demo.message("&lt;pending&gt;");
    let answer = demo.message("One request is pending in this channel.");
    assert_eq!(answer["thread"], said["ts"]);
    demo.end();
}

#[test]
fn other_websites_can_neither_read_the_page_nor_click_on_it() {
    let demo = Demo::start(&[]);
    let asked = demo.message("Runbook Approval Request");
    let wish = json!({ "user": ALICE, "risk": "low" });
    let good = demo.wish("ask", &wish);
    let elsewhere = "http://evil.example";
    let word = RawRequest::new("POST", "/actions/T0001/1/guessed")
        .header("Host", &demo.host)
        .header("Content-Type", "text/plain")
        .body("text=forged");
    for (who, request, status) in [
        (
            "a name that was rebound",
            demo.get("/state")
                .without_header("Host")
                .header("Host", "evil.example"),
            421,
        ),
        (
            "the same, to the page",
            demo.get("/")
                .without_header("Host")
                .header("Host", "evil.example"),
            421,
        ),
        (
            "another site's script",
            demo.get("/state").header("Sec-Fetch-Site", "cross-site"),
            403,
        ),
        (
            "another site's form",
            good.clone()
                .without_header("Content-Type")
                .header("Content-Type", "text/plain"),
            403,
        ),
        (
            "another origin",
            good.clone()
                .without_header("Origin")
                .header("Origin", elsewhere),
            403,
        ),
        ("no origin", good.clone().without_header("Origin"), 403),
        (
            "a rebound name that is its own origin",
            good.clone()
                .without_header("Host")
                .without_header("Origin")
                .header("Host", "evil.example")
                .header("Origin", elsewhere),
            421,
        ),
        (
            "another port",
            good.clone()
                .without_header("Host")
                .header("Host", "127.0.0.1:1"),
            421,
        ),
        (
            "another site's word to Slack",
            word.clone().header("Origin", elsewhere),
            403,
        ),
        (
            "the same through a rebound name",
            word.without_header("Host").header("Host", "evil.example"),
            421,
        ),
    ] {
        assert_eq!(demo.send(&request).status, status, "{who}");
    }
    let call = RawRequest::new("POST", "/api/chat.postMessage")
        .header("Host", &demo.host)
        .header("Content-Type", "application/json");
    let refused = demo.send(&call.body("{}")).json();
    assert_eq!(refused["error"], "not_authed");
    assert_eq!(
        demo.state()["messages"],
        json!([asked]),
        "nothing has come of it"
    );

    let page = demo.send(&demo.get("/"));
    let policy = page.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!page.text().contains("{nonce}"));
    for reference in ["src=", "url(", "@import", "http://", "https://"] {
        assert!(!page.text().contains(reference), "{reference}");
    }
    demo.end();
}

#[test]
fn every_message_in_every_state_is_what_slack_takes() {
    let demo = Demo::start(&["--preview"]);
    let state = demo.state();
    let samples = state["samples"].as_array().unwrap();
    assert!(samples.len() >= 40, "{}", samples.len());
    for sample in samples {
        assert_eq!(sample["problem"], Value::Null, "{sample:#}");
    }
    demo.end();
}

/// The stand-in's rules are ours; the SDK's are not.
#[test]
fn slacks_own_sdk_builds_every_block_of_every_message_just_so() {
    if is_excused() {
        return;
    }
    let demo = Demo::start(&["--preview"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk_blocks.py");
    let mut python = Command::new("python3");
    python.arg(script).stdin(Stdio::piped());
    let mut sdk = python.stdout(Stdio::piped()).spawn().unwrap();
    let mut samples = sdk.stdin.take().unwrap();
    samples
        .write_all(demo.state().to_string().as_bytes())
        .unwrap();
    drop(samples);
    let built = sdk.wait_with_output().unwrap();
    assert!(built.status.success(), "python3 with slack_sdk refuses");
    let count = String::from_utf8(built.stdout).unwrap();
    assert!(count.trim().parse::<u32>().unwrap() > 100, "{count}");
    demo.end();
}

#[test]
fn a_wish_that_makes_no_sense_changes_nothing() {
    let demo = Demo::start(&[]);
    let asked = demo.message("Runbook Approval Request");
    for (what, wish) in [
        ("ask", json!({ "risk": "none" })),
        (
            "click",
            json!({ "user": ALICE, "ts": "1.2", "block": "x", "action": "approve" }),
        ),
        (
            "click",
            json!({ "user": "U0NOBODY1", "ts": asked["ts"], "block": "x", "action": "approve" }),
        ),
        ("submit", json!({ "user": ALICE, "values": {} })),
        ("slack", json!({ "mood": "sulks" })),
        ("dance", json!({})),
    ] {
        assert_eq!(demo.send(&demo.wish(what, &wish)).status, 400, "{what}");
    }
    assert_eq!(demo.state()["messages"], json!([asked]));
    demo.end();
}

#[test]
fn a_directory_that_real_people_decide_in_is_not_touched() {
    let real = Scratch::new();
    let pending = real.join(".runbook/pending-approvals");
    fs::create_dir_all(&pending).unwrap();
    let request = r#"{"id":"apr-real","operation":"drop","status":"pending"}"#;
    fs::write(pending.join("apr-real.json"), request).unwrap();
    let demo = Client::new(["demo", "--auto", "approve", "--dir"]);
    let ended = demo.and(&[real.path().to_str().unwrap()]).finish();
    assert_eq!(ended.status, Some(1), "{}", ended.stdout);
    assert!(
        ended.stderr.contains("a .runbook that is not the demo's"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        fs::read_to_string(pending.join("apr-real.json")).unwrap(),
        request
    );
    assert_eq!(fs::read_dir(real.join(".runbook")).unwrap().count(), 1);
}

#[test]
fn a_configuration_that_was_named_is_never_written() {
    let named = Scratch::new();
    let (config, real) = (named.join("named.yaml"), named.join("audit"));
    let policy = format!(
        "safety: {{}}\napprovals: {{auditDir: {}}}\n",
        real.display()
    );
    fs::write(&config, &policy).unwrap();
    let demo = Demo::start(&["--config", config.to_str().unwrap()]);
    demo.message("Runbook Approval Request");
    for _ in 0..2 {
        let wish = demo.wish("policy", &json!({ "sayWhy": true }));
        assert_eq!(demo.send(&wish).status, 400);
    }
    assert_eq!(demo.state()["sayWhy"], Value::Null);
    assert_eq!(fs::read_to_string(&config).unwrap(), policy);
    // What is played stands in no real audit log.
    demo.click(BOB, "deny", &demo.message("Runbook Approval Request"));
    demo.message("Approval Denied");
    assert!(!real.exists());
    demo.end();
}

#[test]
fn a_story_that_nobody_can_be_told_ends_at_once() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let started = std::time::Instant::now();
    let place = Scratch::new();
    let demo = runbook(place.path())
        .args(["demo", "--auto", "approve"])
        .stdout(full)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stderr);
    assert_eq!(demo.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the output"), "{said}");
    assert!(started.elapsed() < SOON, "{said}");
}

#[test]
fn wrong_options_are_named() {
    for (options, said) in [
        (["--auto", "maybe"], "--auto maybe is none of approve, deny"),
        (
            ["--port", "99999"],
            "--port 99999 is not a port, 0 to 65535",
        ),
    ] {
        let ended = Client::new(["demo"]).and(&options).finish();
        assert_eq!(ended.status, Some(2));
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

#[test]
fn the_help_promises_no_configuration_that_the_demo_does_not_look_for() {
    let help = Client::new(["demo", "--help"]).finish().stdout;
    assert!(help.contains("--config PATH"), "{help}");
    for looked_for in ["RUNBOOK_CONFIG", "/etc/runbook", "./.runbook"] {
        assert!(!help.contains(looked_for), "{looked_for}: {help}");
    }
    let server = Client::new(["webhook", "--help"]).finish().stdout;
    assert_eq!(server.matches("RUNBOOK_CONFIG").count(), 1, "{server}");
}
