//! TLS: which keys and protocols, what is checked at the start, and how the pair changes while
//! clients are being served.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::pki::{Authority, Key, Pair, openssl};
use super::{HEALTH, PATIENCE, SLACK_WAITS, Wire, secured};
use crate::harness::{
    Answer, Click, Finished, RawRequest, Server, eventually, read_approval, sample, write_approval,
};

/// How long a changed pair may take to be served.
const SOON: Duration = Duration::from_secs(5);

fn start(pair: &Pair) -> Server {
    Server::builder().args(pair.options()).start()
}

fn fails(pair: &Pair) -> Finished {
    let finished = Server::builder()
        .args(pair.options())
        .start_expecting_failure();
    assert_eq!(finished.status, Some(2), "{}", finished.stderr);
    finished
}

/// One request on a connection of its own, by a client that checks the certificate; and which one
/// it was shown.
fn ask(
    server: &Server,
    client: &Arc<ClientConfig>,
    request: &RawRequest,
) -> std::io::Result<(Answer, CertificateDer<'static>)> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut socket = server.connect()?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    let shown = session.peer_certificates().unwrap()[0].clone().into_owned();
    let mut wire = Wire::new(StreamOwned::new(session, socket));
    wire.try_say(request.to_bytes())?;
    Ok((wire.try_answer("GET")?, shown))
}

fn shown(server: &Server, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let request = RawRequest::new("GET", "/health");
    let (answer, shown) = ask(server, client, &request).unwrap();
    assert_eq!(answer.status, 200);
    shown
}

fn serves_a_click(server: &Server, client: &Arc<ClientConfig>, id: &str) {
    write_approval(server.pending_dir(), &sample(id));
    let started = std::time::Instant::now();
    let request = server.interaction(&Click::approve(id).payload());
    let (answer, _) = ask(server, client, &request).unwrap();
    assert_eq!(answer.status, 200);
    assert!(started.elapsed() < SLACK_WAITS);
    assert_eq!(
        read_approval(server.pending_dir(), id)["status"],
        "approved"
    );
}

/// What `openssl s_client` says about a server. It ends by itself once the server has closed.
fn s_client(server: &Server, dir: &Path, words: &str) -> String {
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", server.port()),
        ])
        .args("-servername localhost -CAfile root.pem -verify_return_error -ign_eof".split(' '))
        .args(words.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need the openssl command");
    let request = RawRequest::new("GET", "/health").to_bytes();
    // A client that failed to connect does not read.
    let _ = std::io::Write::write_all(&mut client.stdin.take().unwrap(), &request);
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_usual_kind_of_key_serves() {
    let authority = Authority::new();
    for (kind, label) in [
        (Key::Ec, "BEGIN PRIVATE KEY"),
        (Key::EcSec1, "BEGIN EC PRIVATE KEY"),
        (Key::Rsa, "BEGIN PRIVATE KEY"),
        (Key::RsaPkcs1, "BEGIN RSA PRIVATE KEY"),
    ] {
        let pair = authority.issue("site", kind);
        assert!(fs::read_to_string(&pair.key).unwrap().contains(label));
        let server = start(&pair);
        serves_a_click(&server, &authority.client(), "apr-1");
        assert_eq!(shown(&server, &authority.client()), pair.der());
        assert!(!server.log().contains("WARN] The TLS"), "{}", server.log());
    }
}

#[test]
fn the_whole_chain_is_sent() {
    let authority = Authority::new();
    let pair = authority.issue_chain("site");
    let server = start(&pair);
    // This client knows the root only, so it needs the certificate between.
    serves_a_click(&server, &authority.client(), "apr-1");
    let said = s_client(&server, authority.dir(), "-showcerts");
    assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_older_ones_are_not() {
    let authority = Authority::new();
    let server = start(&authority.issue("site", Key::Ec));
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(
            &server,
            authority.dir(),
            &format!("{version} -alpn h2,http/1.1"),
        );
        assert!(said.contains(&format!("New, {name}")), "{said}");
        assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
    }
    for version in ["-tls1_1", "-tls1"] {
        let old = format!("{version} -cipher ALL:@SECLEVEL=0");
        let said = s_client(&server, authority.dir(), &old);
        assert!(
            said.contains("New, (NONE)") && !said.contains("HTTP/1.1"),
            "{said}"
        );
    }
    let said = s_client(&server, authority.dir(), "-alpn h2");
    assert!(
        !said.contains("HTTP/1.1 200"),
        "only h2 was offered: {said}"
    );
    serves_a_click(&server, &authority.client(), "apr-1");
}

#[test]
fn a_session_is_resumed() {
    let authority = Authority::new();
    let server = start(&authority.issue("site", Key::Ec));
    for version in ["-tls1_2", "-tls1_3"] {
        let first = s_client(
            &server,
            authority.dir(),
            &format!("{version} -sess_out session"),
        );
        assert!(first.contains("New, TLS"), "{first}");
        let second = s_client(
            &server,
            authority.dir(),
            &format!("{version} -sess_in session"),
        );
        assert!(second.contains("Reused, TLS"), "{version}: {second}");
        assert!(second.contains("HTTP/1.1 200 OK"), "{second}");
    }
}

#[test]
fn a_pair_that_does_not_fit_or_cannot_be_read_stops_the_start_and_says_what_to_do() {
    let authority = Authority::new();
    let dir = authority.dir();
    let (one, other) = (
        authority.issue("one", Key::Ec),
        authority.issue("other", Key::Ec),
    );
    let with = |certificate: &PathBuf, key: &PathBuf| Pair {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let file = |name: &str, contents: &[u8]| {
        fs::write(dir.join(name), contents).unwrap();
        dir.join(name)
    };
    let empty = file("empty.pem", b"");
    let text = file("text.pem", b"this is no PEM\n");
    let cut = fs::read(&one.certificate).unwrap();
    let cut = file("cut.pem", &cut[..cut.len() / 2]);
    openssl(
        dir,
        "ec -in one.key -aes128 -passout pass:x -out locked.key",
    );
    openssl(dir, "genrsa -out small.key 1024");
    for (pair, what, hint) in [
        (
            with(&one.certificate, &other.key),
            "does not belong to certificate",
            "must be the first",
        ),
        (
            with(&dir.join("none.pem"), &one.key),
            "cannot read TLS certificate",
            "",
        ),
        (
            with(&one.certificate, &dir.join("none.key")),
            "cannot read TLS key",
            "",
        ),
        (with(&empty, &one.key), "no certificate in", "PEM"),
        (with(&text, &one.key), "no certificate in", "PEM"),
        (with(&cut, &one.key), "TLS certificate", ""),
        (
            with(&one.certificate, &empty),
            "no TLS key in",
            "not encrypted",
        ),
        (
            with(&one.certificate, &one.certificate),
            "no TLS key in",
            "PEM",
        ),
        (
            with(&one.certificate, &dir.join("locked.key")),
            "TLS key",
            "",
        ),
        (
            with(&one.certificate, &dir.join("small.key")),
            "TLS key",
            "",
        ),
    ] {
        let stderr = fails(&pair).stderr;
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("runbook: "))
            .collect();
        assert!(lines[0].starts_with("runbook: error: "), "{stderr}");
        assert!(lines[0].contains(what), "{what}: {stderr}");
        assert!(
            hint.is_empty() || lines[1].contains(hint),
            "{hint}: {stderr}"
        );
    }
}

#[test]
fn one_of_the_two_files_alone_is_a_mistake() {
    let authority = Authority::new();
    let pair = authority.issue("site", Key::Ec);
    for options in pair.options().chunks(2) {
        let finished = Server::builder().args(options).start_expecting_failure();
        assert_eq!(finished.status, Some(2));
        assert!(finished.stderr.contains("as well"), "{}", finished.stderr);
    }
}

#[test]
fn a_certificate_that_has_ended_or_soon_will_is_served_with_a_warning() {
    let authority = Authority::new();
    for (days, warning) in [
        (-1, "The TLS certificate has expired"),
        (3, "The TLS certificate expires soon"),
    ] {
        let pair = authority.issue_for("site", Key::Ec, days);
        let server = start(&pair);
        let log = server.wait_for_log(warning, PATIENCE);
        assert!(log.contains("site.pem"), "{log}");
        let said = s_client(&server, authority.dir(), "");
        assert_eq!(said.contains("certificate has expired"), days < 0, "{said}");
    }
}

/// Clients that never stop: how many requests were answered, and how many were not.
struct Load<'a> {
    server: &'a Server,
    client: Arc<ClientConfig>,
    stop: AtomicBool,
    served: AtomicUsize,
}

impl Load<'_> {
    /// Runs a change under load; no request fails.
    fn during(server: &Server, client: &Arc<ClientConfig>, change: impl FnOnce()) {
        let load = Load {
            server,
            client: Arc::clone(client),
            stop: AtomicBool::new(false),
            served: AtomicUsize::new(0),
        };
        thread::scope(|scope| {
            let threads = [
                scope.spawn(|| load.visit_again_and_again()),
                scope.spawn(|| load.stay()),
            ];
            let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
            load.stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread
                    .join()
                    .unwrap_or_else(|cause| std::panic::resume_unwind(cause));
            }
            changed.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        });
        assert!(load.served.into_inner() > 20, "there was no load");
    }

    fn goes_on(&self) -> bool {
        self.served.fetch_add(1, Ordering::Relaxed);
        // A load, not a flood: the machine has other tests to run.
        thread::sleep(Duration::from_millis(10));
        !self.stop.load(Ordering::Relaxed)
    }

    fn visit_again_and_again(&self) {
        let request = RawRequest::new("GET", "/health");
        while self.goes_on() {
            let asked = ask(self.server, &self.client, &request);
            let (answer, _) = asked.unwrap_or_else(|error| panic!("a request failed: {error}"));
            assert_eq!(answer.status, 200);
        }
    }

    fn stay(&self) {
        let mut wire = secured(self.server.connect().unwrap(), &self.client).unwrap();
        while self.goes_on() {
            wire.say(HEALTH);
            assert_eq!(wire.status("GET"), 200, "a connection that stays");
        }
    }
}

/// Two pairs of one authority, and the names under which the server knows the first.
struct Swap {
    authority: Authority,
    old: Pair,
    new: Pair,
}

impl Swap {
    fn new() -> Self {
        let authority = Authority::new();
        let (old, new) = (
            authority.issue("old", Key::Ec),
            authority.issue("new", Key::Rsa),
        );
        Self {
            authority,
            old,
            new,
        }
    }

    fn dir(&self) -> PathBuf {
        self.authority.dir().to_owned()
    }

    /// A pair of files as a folder of their own.
    fn folder(&self, name: &str, pair: &Pair) -> PathBuf {
        let folder = self.dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&pair.certificate, folder.join("tls.crt")).unwrap();
        fs::copy(&pair.key, folder.join("tls.key")).unwrap();
        folder
    }

    fn served_from(folder: &Path) -> Pair {
        Pair {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }
    }

    /// A server with the old pair serves the new one soon after the change, and nobody notices.
    fn is_noticed(&self, pair: &Pair, change: impl FnOnce()) {
        let (server, client) = (start(pair), self.authority.client());
        assert_eq!(shown(&server, &client), self.old.der());
        Load::during(&server, &client, || {
            change();
            eventually("the new certificate is served", SOON, || {
                (shown(&server, &client) == self.new.der()).then_some(())
            });
        });
        server.wait_for_log("TLS certificate reloaded", PATIENCE);
        serves_a_click(&server, &client, "apr-1");
    }
}

#[test]
fn a_pair_replaced_by_rename_is_served_without_a_failed_request() {
    let swap = Swap::new();
    let served = Swap::served_from(&swap.folder("served", &swap.old));
    let fresh = Swap::served_from(&swap.folder("fresh", &swap.new));
    swap.is_noticed(&served, || {
        // One after the other, with time enough between them to be seen as they do not fit.
        fs::rename(&fresh.certificate, &served.certificate).unwrap();
        thread::sleep(Duration::from_millis(300));
        fs::rename(&fresh.key, &served.key).unwrap();
    });
}

#[test]
fn a_pair_written_in_place_is_served_without_a_failed_request() {
    let swap = Swap::new();
    let served = Swap::served_from(&swap.folder("served", &swap.old));
    swap.is_noticed(&served, || {
        fs::copy(&swap.new.key, &served.key).unwrap();
        fs::copy(&swap.new.certificate, &served.certificate).unwrap();
    });
}

#[test]
fn links_turned_as_certbot_turns_them_are_followed() {
    let swap = Swap::new();
    let archive = swap.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    for (number, pair) in [(1, &swap.old), (2, &swap.new)] {
        fs::copy(
            &pair.certificate,
            archive.join(format!("fullchain{number}.pem")),
        )
        .unwrap();
        fs::copy(&pair.key, archive.join(format!("privkey{number}.pem"))).unwrap();
    }
    let live = swap.dir().join("live");
    fs::create_dir(&live).unwrap();
    let turn = |number: u32| {
        for name in ["fullchain", "privkey"] {
            let link = live.join(format!("{name}.pem"));
            let _ = fs::remove_file(&link);
            symlink(format!("../archive/{name}{number}.pem"), link).unwrap();
        }
    };
    turn(1);
    let served = Pair {
        certificate: live.join("fullchain.pem"),
        key: live.join("privkey.pem"),
    };
    swap.is_noticed(&served, || turn(2));
}

#[test]
fn a_folder_swapped_as_kubernetes_swaps_it_is_followed() {
    let swap = Swap::new();
    let mount = swap.dir().join("mount");
    fs::create_dir(&mount).unwrap();
    swap.folder("mount/..2024_01_15", &swap.old);
    symlink("..2024_01_15", mount.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    swap.is_noticed(&Swap::served_from(&mount), || {
        swap.folder("mount/..2024_04_15", &swap.new);
        symlink("..2024_04_15", mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        fs::remove_dir_all(mount.join("..2024_01_15")).unwrap();
    });
}

#[test]
fn a_broken_new_pair_leaves_the_old_one_and_is_told_until_a_good_one_comes() {
    let swap = Swap::new();
    let pair = Swap::served_from(&swap.folder("served", &swap.old));
    let (server, client) = (start(&pair), swap.authority.client());
    server.expect_errors();
    let logged = |times: usize| {
        eventually("the log says that it was not reloaded", SOON, || {
            let log = server.log();
            (log.matches("TLS certificate not reloaded, the old one stays")
                .count()
                == times)
                .then_some(log)
        })
    };
    fs::copy(&swap.new.certificate, &pair.certificate).unwrap();
    assert!(logged(1).contains("does not belong to certificate"));
    assert_eq!(shown(&server, &client), swap.old.der());
    serves_a_click(&server, &client, "apr-1");

    fs::write(&pair.certificate, "half of a").unwrap();
    logged(2);
    assert_eq!(shown(&server, &client), swap.old.der());

    fs::remove_file(&pair.certificate).unwrap();
    logged(3);
    assert_eq!(shown(&server, &client), swap.old.der());

    fs::copy(&swap.new.key, &pair.key).unwrap();
    fs::copy(&swap.new.certificate, &pair.certificate).unwrap();
    eventually("the good pair is served", SOON, || {
        (shown(&server, &client) == swap.new.der()).then_some(())
    });
    serves_a_click(&server, &client, "apr-2");
}

#[test]
fn hup_loads_the_pair_at_once() {
    let swap = Swap::new();
    let pair = Swap::served_from(&swap.folder("served", &swap.old));
    let (server, client) = (start(&pair), swap.authority.client());
    Load::during(&server, &client, || {
        fs::copy(&swap.new.key, &pair.key).unwrap();
        fs::copy(&swap.new.certificate, &pair.certificate).unwrap();
        server.signal(Signal::HUP);
        server.wait_for_log("TLS certificate reloaded", Duration::from_millis(900));
        assert_eq!(shown(&server, &client), swap.new.der());
        // Not for readiness: the load goes on for a while under the new one.
        thread::sleep(Duration::from_millis(300));
    });
    serves_a_click(&server, &client, "apr-1");
}
