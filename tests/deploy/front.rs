//! What stands before the server, or gives it its certificates: nginx, certbot.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{PATIENCE, Running, clicks, free_port, run, said, shipped};
use crate::edge::pki::{Authority, Key};
use crate::edge::secured;
use crate::harness::{
    Click, RawRequest, Scratch, Server, eventually, read_approval, sample, write_approval,
};

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
