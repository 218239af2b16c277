//! systemd's units, cron's line, and a server that follows another.

use std::ffi::OsString;
use std::fs;

use super::{clicks, run, said, shipped, this_binary};
use crate::edge::pki::{Authority, Key};
use crate::harness::{Client, SECRET, Scratch, Server, read_approval, sample, write_approval};

/// Where the units look for the binary.
const INSTALLED: &str = "/usr/local/bin/runbook";

/// What a unit says about a key, in its order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
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
