//! What `scripts/deploy` ships, as far as a machine can try it that runs no systemd, Docker or Kubernetes; and the
//! binary alone in an empty root.
//!
//! Not tried here: what a running systemd enforces of a unit, and a container runtime.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;

use crate::edge::pki::{Authority, Key, openssl};
use crate::edge::secured;
use crate::harness::{
    Builder, Click, Client, RawRequest, SECRET, Scratch, Server, eventually, read_approval,
    runbook, sample, write_approval,
};
use crate::stand_in::StandIn;

const PATIENCE: Duration = Duration::from_secs(10);
const INSTALLED: &str = "/usr/local/bin/runbook";

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

/// What a unit says about a key, in its order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}

/// A click through TLS.
fn clicks(port: u16, client: &Arc<ClientConfig>, server: &Server, id: &str) -> u16 {
    let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut wire = secured(socket, client).unwrap();
    wire.say(server.interaction(&Click::approve(id).payload()).to_bytes());
    wire.status("POST")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = Scratch::new();
    let mut files = Vec::new();
    for name in [
        "runbook.service",
        "runbook.socket",
        "runbook-health.service",
        "runbook-health.timer",
    ] {
        let file = dir.join(name);
        let unit = shipped(name).replace(INSTALLED, this_binary().to_str().unwrap());
        fs::write(&file, unit).unwrap();
        files.push(file.to_str().unwrap().to_owned());
    }
    let mut words = vec!["verify", "--man=no"];
    words.extend(files.iter().map(String::as_str));
    let verified = run("systemd-analyze", &words);
    let complaints = said(&verified);
    let about_ours = complaints.lines().any(|line| line.contains("runbook"));
    assert!(verified.status.success() && !about_ours, "{complaints}");

    for name in ["runbook.service", "runbook-health.service"] {
        let file = dir.join(name);
        let words = [
            "security",
            "--offline=yes",
            "--no-pager",
            "--threshold=20",
            file.to_str().unwrap(),
        ];
        let weighed = run("systemd-analyze", &words);
        assert!(weighed.status.success(), "{}", said(&weighed));
        if name == "runbook.service" {
            let text = said(&weighed);
            let (_, score) = text
                .split_once("exposure level for runbook.service: ")
                .unwrap();
            let score = score.split(' ').next().unwrap();
            let unit = shipped(name);
            assert!(
                unit.contains(&format!("says {score} OK")),
                "the unit quotes another score than {score}"
            );
        }
    }
}

#[test]
fn the_unit_starts_the_server_with_its_own_words() {
    let unit = shipped("runbook.service");
    let authority = Authority::new();
    let pair = authority.issue("site", Key::Ec);
    let dir = Scratch::new();
    let mut builder = Server::builder().bare();
    for credential in values(&unit, "LoadCredential") {
        let (name, _) = credential.split_once(':').unwrap();
        let secret = if name == "signing-secret" {
            SECRET
        } else {
            "xoxb-1"
        };
        fs::write(dir.join(name), secret).unwrap();
    }
    for assignment in values(&unit, "Environment") {
        let (name, value) = assignment.split_once('=').unwrap();
        builder = builder.env(name, value.replace("%d", dir.path().to_str().unwrap()));
    }
    let pending = dir.join("pending");
    let command = values(&unit, "ExecStart")[0];
    let command = command
        .strip_prefix(&format!("{INSTALLED} webhook "))
        .unwrap();
    let words = command.split(' ').map(|word| -> OsString {
        match word {
            "443" => "0".into(),
            "/etc/runbook/tls/fullchain.pem" => pair.certificate.clone().into(),
            "/etc/runbook/tls/privkey.pem" => pair.key.clone().into(),
            "/var/lib/runbook/pending-approvals" => pending.clone().into(),
            word => word.into(),
        }
    });
    let server = builder
        .args(words)
        .dir(&pending)
        .env("SLACK_API_URL", "http://127.0.0.1:1/api/")
        .start();
    write_approval(&pending, &sample("apr-1"));
    assert_eq!(
        clicks(server.port(), &authority.client(), &server, "apr-1"),
        200
    );
    assert_eq!(read_approval(&pending, "apr-1")["status"], "approved");
}

#[test]
fn the_timer_and_cron_ask_a_server_that_runs() {
    let authority = Authority::new();
    let pair = authority.issue("site", Key::Ec);
    let server = Server::builder().args(pair.options()).start();
    let unit = shipped("runbook-health.service");
    let cron = shipped("runbook.cron");
    let line = cron.lines().find(|line| line.starts_with('*')).unwrap();
    let from_cron = line.strip_prefix("*/5 * * * * nobody ").unwrap();
    let url = format!("https://127.0.0.1:{}/health", server.port());
    let root = authority.dir().join("root.pem");
    for command in [values(&unit, "ExecStart")[0], from_cron] {
        let words = command.strip_prefix(&format!("{INSTALLED} ")).unwrap();
        assert!(words.contains(" https://127.0.0.1:443/health "), "{words}");
        let words = words.replace("https://127.0.0.1:443/health", &url);
        let ask = || Client::new(words.split(' ')).and(&["--cacert", root.to_str().unwrap()]);
        // cron mails whatever is printed.
        let well = ask().finish();
        assert_eq!(
            (well.status, &*well.stdout, &*well.stderr),
            (Some(0), "", "")
        );
        let months = ask().and(&["--cert-days", "90"]);
        assert_ne!(months.finish().status, Some(0));
    }
    assert!(server.terminate().success());
    let words = from_cron.strip_prefix(&format!("{INSTALLED} ")).unwrap();
    let words = words.replace("https://127.0.0.1:443/health", &url);
    let gone = Client::new(words.split(' ')).finish();
    assert_eq!(gone.status, Some(1));
    assert!(gone.stdout.contains("unhealthy"), "{gone:?}");
}

#[test]
fn the_images_words_start_the_server_and_find_it_healthy() {
    let file = shipped("Dockerfile");
    let list = |instruction: &str| -> Vec<String> {
        let line = file.lines().find_map(|line| line.split_once(instruction));
        let (_, words) = line.unwrap_or_else(|| panic!("no {instruction}"));
        serde_json::from_str(words.trim()).unwrap_or_else(|error| panic!("{words}: {error}"))
    };
    let health = list("HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD");
    assert_eq!(
        (&*list("ENTRYPOINT")[0], &*health[0]),
        ("/runbook", "/runbook")
    );
    assert!(
        file.ends_with("\nCMD [\"webhook\"]\n"),
        "the harness starts the server so"
    );
    assert!(file.contains("\nFROM scratch\n") && file.contains("\nUSER 65532:65532\n"));
    let dir = Scratch::new();
    fs::write(dir.join("signing-secret"), SECRET).unwrap();
    fs::write(dir.join("bot-token"), "xoxb-1").unwrap();
    let place = dir.path().to_str().unwrap();
    let port = free_port().to_string();
    let (_, environment) = file.split_once("\nENV ").unwrap();
    let (environment, _) = environment.split_once("\nUSER").unwrap();
    let variables = environment
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    let variables: Vec<_> = variables
        .map(|(name, value)| {
            (
                name,
                value.replace("/data", place).replace("/secrets", place),
            )
        })
        .chain([("SLACK_WEBHOOK_PORT", port)])
        .chain([("SLACK_API_URL", "http://127.0.0.1:1/api/".to_owned())])
        .collect();
    let pending = dir.join("pending-approvals");
    let builder = Server::builder().bare().dir(&pending);
    let server = variables
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
        .start();
    write_approval(&pending, &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    let ask = || {
        let asking = Client::new(health[1..].iter().map(OsString::from));
        let asking = variables
            .iter()
            .fold(asking, |asking, (name, value)| asking.env(name, value));
        asking.finish().status
    };
    assert_eq!(ask(), Some(0));
    assert!(server.terminate().success());
    assert_eq!(ask(), Some(1));
}

#[test]
fn certbots_hook_gives_the_server_a_renewed_certificate() {
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deploy/certbot-hook");
    let (old, new) = (Authority::new(), Authority::new());
    let dir = Scratch::new();
    let group = run("id", &["-g"]);
    let group = said(&group).trim().to_owned();
    let renew = |authority: &Authority| {
        let pair = authority.issue("site", Key::Ec);
        let lineage = dir.join("lineage");
        fs::create_dir_all(&lineage).unwrap();
        fs::copy(pair.certificate, lineage.join("fullchain.pem")).unwrap();
        fs::copy(pair.key, lineage.join("privkey.pem")).unwrap();
        let hooked = Command::new(&hook)
            .env("RENEWED_LINEAGE", &lineage)
            .env("RUNBOOK_TLS_DIR", dir.join("tls"))
            .env("RUNBOOK_GROUP", &group)
            .output()
            .unwrap();
        assert!(hooked.status.success(), "{}", said(&hooked));
    };
    renew(&old);
    let mode = fs::metadata(dir.join("tls/privkey.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let server = Server::builder()
        .args([
            OsString::from("--tls-cert"),
            dir.join("tls/fullchain.pem").into(),
            "--tls-key".into(),
            dir.join("tls/privkey.pem").into(),
        ])
        .start();
    // A moment in which only one of the two files is new is told as such.
    server.expect_errors();
    write_approval(server.pending_dir(), &sample("apr-1"));
    assert_eq!(clicks(server.port(), &old.client(), &server, "apr-1"), 200);
    renew(&new);
    eventually("the new certificate is served", PATIENCE, || {
        let socket = server.connect().unwrap();
        secured(socket, &new.client()).is_ok().then_some(())
    });
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

#[test]
#[allow(clippy::too_many_lines, reason = "one nginx is asked everything")]
fn a_click_comes_through_nginx_with_the_shipped_site() {
    let server = Server::builder()
        .config("webhook: {trustedProxies: [127.0.0.1/32]}")
        .start();
    server.expect_errors();
    let authority = Authority::new();
    let pair = authority.issue("site", Key::Ec);
    let dir = Scratch::new();
    let port = free_port();
    let site = shipped("nginx.conf")
        .replace(
            "server 127.0.0.1:3000;",
            &format!("server 127.0.0.1:{};", server.port()),
        )
        .replace("listen 443 ssl;", &format!("listen 127.0.0.1:{port} ssl;"))
        .replace("    listen [::]:443 ssl;\n", "")
        .replace(
            "/etc/letsencrypt/live/runbook.example.com/fullchain.pem",
            pair.certificate.to_str().unwrap(),
        )
        .replace(
            "/etc/letsencrypt/live/runbook.example.com/privkey.pem",
            pair.key.to_str().unwrap(),
        );
    assert!(
        !site.contains("/etc/") || site.matches("/etc/").count() == 1,
        "{site}"
    );
    let place = dir.path().display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = kinds.map(|kind| format!("{kind}_temp_path {place}/{kind};\n"));
    let temporary = temporary.concat();
    let whole = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n\
         events {{}}\nhttp {{ access_log off; {temporary} {site} }}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, whole).unwrap();
    // nginx gives its workers another user, who has to get at its folders.
    for folder in [dir.path().parent().unwrap(), dir.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nginx = if Path::new("/usr/sbin/nginx").exists() {
        "/usr/sbin/nginx"
    } else {
        "nginx"
    };
    let tested = run(nginx, &["-t", "-q", "-c", file.to_str().unwrap()]);
    assert!(tested.status.success(), "{}", said(&tested));
    assert!(!said(&tested).contains("[warn]"), "{}", said(&tested));
    let _nginx = Running(
        Command::new(nginx)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    eventually("nginx listens", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });

    let client = authority.client();
    for id in ["apr-1", "apr-2"] {
        write_approval(server.pending_dir(), &sample(id));
        assert_eq!(clicks(port, &client, &server, id), 200);
        assert_eq!(
            read_approval(server.pending_dir(), id)["status"],
            "approved"
        );
    }
    let ask = |bytes: Vec<u8>, method: &str| {
        let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut wire = secured(socket, &client).unwrap();
        wire.say(bytes);
        wire.status(method)
    };
    assert_eq!(
        ask(RawRequest::new("GET", "/health").to_bytes(), "GET"),
        200
    );
    // Coming through a proxy on this machine makes nobody a monitor.
    assert_eq!(
        ask(RawRequest::new("GET", "/metrics").to_bytes(), "GET"),
        404
    );
    let forged = server
        .interaction(&Click::approve("apr-1").payload())
        .without_header("X-Slack-Signature")
        .header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(ask(forged.to_bytes(), "POST"), 401);
    let log = server.wait_for_log("Peer:", PATIENCE);
    assert!(
        log.contains("Peer: 127.0.0.1\n"),
        "what a client claims is not believed: {log}"
    );
    let large = server.signed(
        "/slack/events",
        "application/json",
        &vec![b' '; (1 << 20) + 1],
    );
    let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut wire = secured(socket, &client).unwrap();
    let head = large.to_bytes();
    wire.say(&head[..400]);
    assert_eq!(wire.status("POST"), 413);
}

/// Checks Kubernetes' manifests against its own schemas, and prints the container's words and variables.
const MANIFESTS: &str = r#"
import json, sys, yaml, kubernetes_validate
documents = list(yaml.safe_load_all(open(sys.argv[1])))
for document in documents:
    kubernetes_validate.validate(document, "1.31", strict=True)
pod = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]
container = pod["spec"]["containers"][0]
mounts = {m["name"] for m in container["volumeMounts"]}
assert mounts == {v["name"] for v in pod["spec"]["volumes"]}, mounts
claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
assert claims == {v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v}
for document in documents:
    selector = document["spec"].get("selector", {})
    labels = selector.get("matchLabels", selector)
    assert labels.items() <= pod["metadata"]["labels"].items(), document["kind"]
print(json.dumps({"args": container["args"], "env": {e["name"]: e["value"] for e in container["env"]}}))
"#;

#[test]
fn kubernetes_schemas_take_the_manifests_and_the_server_their_words() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/deploy/kubernetes.yaml"
    );
    let checked = run("python3", &["-c", MANIFESTS, file]);
    assert!(checked.status.success(), "{}", said(&checked));
    let container: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let dir = Scratch::new();
    fs::write(dir.join("slack-signing-secret"), SECRET).unwrap();
    fs::write(dir.join("slack-bot-token"), "xoxb-1").unwrap();
    let place = dir.path().to_str().unwrap();
    let mut builder = Server::builder().bare().dir(dir.join("pending-approvals"));
    for (name, value) in container["env"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let value = value.replace("/data", place).replace("/secrets", place);
        builder = builder.env(name, value);
    }
    let args = container["args"].as_array().unwrap();
    let args = args.iter().map(|word| word.as_str().unwrap());
    let args = args
        .skip(1)
        .map(|word| if word == "3000" { "0" } else { word });
    let server = builder
        .args(args)
        .env("SLACK_API_URL", "http://127.0.0.1:1/api/")
        .start();
    write_approval(server.pending_dir(), &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    assert_eq!(server.get("/health").status, 200);
}

/// Slack's side: ends TLS with a certificate, passes everything on, and says its port.
const TLS_FRONT: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            # Slack answers under its own name only.
            b.sendall(data.replace(b"localhost:%d" % listener.getsockname()[1], b"127.0.0.1:" + sys.argv[3].encode()))
    except OSError:
        pass
    for end in (a, b):
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(line):
    try:
        line = context.wrap_socket(line, server_side=True)
    except OSError:
        return
    behind = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    threading.Thread(target=pump, args=(behind, line), daemon=True).start()
    pump(line, behind)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A stand-in for Slack behind TLS.
struct SecureSlack {
    slack: StandIn,
    authority: Authority,
    port: u16,
    _front: Running,
}

impl SecureSlack {
    fn start() -> Self {
        let slack = StandIn::start();
        let authority = Authority::new();
        let pair = authority.issue("slack", Key::Ec);
        let url = slack.url();
        let behind = url.split("127.0.0.1:").nth(1).unwrap();
        let behind: String = behind.chars().take_while(char::is_ascii_digit).collect();
        let mut front = Command::new("python3")
            .args(["-c", TLS_FRONT])
            .args([&pair.certificate, &pair.key])
            .arg(behind)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = front.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        Self {
            slack,
            authority,
            port: line.trim().parse().unwrap(),
            _front: Running(front),
        }
    }

    fn serve(&self, builder: Builder) -> Builder {
        builder.slack(&self.slack).env(
            "SLACK_API_URL",
            format!("https://localhost:{}/api/", self.port),
        )
    }

    fn root(&self) -> PathBuf {
        self.authority.dir().join("root.pem")
    }

    fn is_told_of(&self, server: &Server, id: &str) {
        write_approval(server.pending_dir(), &sample(id));
        server.click(&Click::approve(id));
        eventually("Slack shows the decision", PATIENCE, || {
            self.slack.calls_of("chat.update").first().map(|_| ())
        });
    }
}

#[test]
fn slack_is_believed_when_its_authority_is_in_ssl_cert_file_and_not_otherwise() {
    let slack = SecureSlack::start();
    let server = slack
        .serve(Server::builder())
        .env("SSL_CERT_FILE", slack.root())
        .start();
    slack.is_told_of(&server, "apr-1");

    let server = slack.serve(Server::builder()).start();
    server.expect_errors();
    write_approval(server.pending_dir(), &sample("apr-2"));
    let told = slack.slack.calls_of("chat.update").len();
    server.click(&Click::approve("apr-2"));
    server.wait_for_log("UnknownIssuer", PATIENCE);
    assert_eq!(slack.slack.calls_of("chat.update").len(), told);
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_told_at_start() {
    let dir = Scratch::new();
    openssl(
        dir.path(),
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
    );
    fs::write(dir.join("empty.pem"), "").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(dir.join("broken.pem"), broken).unwrap();
    for (name, why) in [
        ("missing.pem", "no such file"),
        ("empty.pem", "no certificate"),
        ("key.pem", "no certificate"),
        ("broken.pem", "no certificate in it can be used"),
    ] {
        let failed = Server::builder()
            .env("SSL_CERT_FILE", dir.join(name))
            .start_expecting_failure();
        assert_eq!(failed.status, Some(2), "{}", failed.stderr);
        for word in ["SSL_CERT_FILE", name, why] {
            assert!(failed.stderr.contains(word), "{word}: {}", failed.stderr);
        }
    }
}

/// The binary under its own path in a root that holds nothing else. What a binary that is not static
/// needs is brought along.
fn empty_root(dir: &Scratch) -> PathBuf {
    let root = dir.join("root");
    let binary = this_binary();
    let needed = said(&run("ldd", &[binary.to_str().unwrap()]));
    let libraries = needed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries
        .map(|word| PathBuf::from(word.trim_end_matches(':')))
        .chain([binary])
    {
        let inside = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&file, inside).unwrap();
    }
    root
}

#[test]
fn alone_in_an_empty_root_it_decides_a_click_and_speaks_tls_to_slack() {
    let slack = SecureSlack::start();
    let dir = Scratch::new();
    let root = empty_root(&dir);
    // The one path is the same directory inside and outside.
    let place = dir.join("place");
    let inside = root.join(place.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    symlink(&inside, &place).unwrap();
    fs::copy(slack.root(), inside.join("root.pem")).unwrap();
    // Names are resolved, if only by this file.
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let server = slack
        .serve(Server::builder())
        .wrapper([
            "unshare",
            "--map-root-user",
            "--root",
            root.to_str().unwrap(),
        ])
        .dir(place.join("pending"))
        .env("TMPDIR", &place)
        .env("SSL_CERT_FILE", place.join("root.pem"))
        .start();
    slack.is_told_of(&server, "apr-1");
    assert_eq!(
        read_approval(place.join("pending"), "apr-1")["status"],
        "approved"
    );
    assert!(server.terminate().success());
}

fn hands_over(way: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/handover");
    // In a network of its own, so that the kernel can be told to hand connections over.
    let shell = "ip link set lo up && echo 1 >/proc/sys/net/ipv4/tcp_migrate_req && exec \"$@\"";
    let binary = this_binary();
    let mut words = vec!["--map-root-user", "--net", "sh", "-c", shell, "sh", script];
    words.extend([
        "--binary",
        binary.to_str().unwrap(),
        "--way",
        way,
        "--rounds",
        "20",
    ]);
    let handed = run("unshare", &words);
    assert!(handed.status.success(), "{}", said(&handed));
}

#[test]
fn no_click_is_lost_when_a_server_follows_another_on_systemds_socket() {
    hands_over("socket");
}

#[test]
fn no_click_is_lost_when_a_server_takes_over_a_shared_port() {
    hands_over("reuse-port");
}
