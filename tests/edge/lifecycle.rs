//! Start and end: whose socket it is, what systemd is told, and what happens to requests that are
//! being answered when the server has to go.

use std::fs;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{BOTH, End, HEALTH, PATIENCE, Port, Site, Wire};
use crate::excuse::not_tested;
use crate::harness::{Answer, Click, RawRequest, Scratch, Server, eventually, fixture, runbook};

/// What takes no time when nobody is being answered.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn term_lets_a_request_that_is_being_answered_finish_and_takes_no_more() {
    for port in BOTH {
        for signal in [Signal::TERM, Signal::INT] {
            let config = "webhook: {limits: {worker: 200ms}}";
            let site = Site::with(port, |builder| {
                builder.config(config).args(["--workers", "1"])
            });
            let id = site.file_an_approval();
            let locks = site.hold_all_locks();
            let mut click = site.connect();
            let staying = site.click(&id).header("Connection", "keep-alive");
            click.say(staying.to_bytes());
            let event = fixture("slack/events_url_verification.json");
            eventually("the only worker is busy", PATIENCE, || {
                let mut wire = site.send(site.event(&event).to_bytes());
                (wire.status("POST") == 503).then_some(())
            });
            site.server.signal(signal);
            eventually("connections are refused", PATIENCE, || {
                // One that is in the middle of it as the listener closes is reset.
                let refused = site.server.connect().err()?;
                (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
            });
            drop(locks);
            let answer = click.answer("POST");
            assert_eq!(
                (answer.status, answer.header("connection")),
                (200, Some("close"))
            );
            assert_eq!(click.end(), End::Clean(0));
            assert_eq!(site.status_of(&id), "approved");
            assert_eq!(site.server.wait(PATIENCE).code(), Some(0));
        }
    }
}

#[test]
fn term_waits_for_the_rest_of_a_request_that_has_begun_but_not_for_long() {
    for port in BOTH {
        let site = Site::start(port);
        let id = site.file_an_approval();
        let click = site.click(&id).header("Expect", "100-continue").to_bytes();
        let head = click.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        // Each is told to go on, so the server has begun to read it.
        let begin = || {
            let mut wire = site.send(&click[..head]);
            let mut interim = [0; 25];
            wire.0.read_exact(&mut interim).unwrap();
            wire
        };
        let (mut arriving, mut stuck) = (begin(), begin());
        let started = Instant::now();
        site.server.signal(Signal::TERM);
        eventually("connections are refused", PATIENCE, || {
            let refused = site.server.connect().err()?;
            (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
        arriving.say(&click[head..]);
        assert_eq!(arriving.status("POST"), 200);
        assert_eq!(site.status_of(&id), "approved");
        assert_eq!(stuck.status("POST"), 408);
        assert_eq!(site.server.wait(PATIENCE).code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn term_answers_whoever_had_connected_before_it() {
    for port in BOTH {
        let site = Site::start(port);
        let mut staying = site.send(HEALTH);
        assert_eq!(staying.status("GET"), 200);
        // While it sleeps, the kernel queues connections, and what they say.
        site.server.signal(Signal::STOP);
        let id = site.file_an_approval();
        staying.say(site.click(&id).to_bytes());
        let mut queued: Vec<_> = (0..20)
            .map(|_| {
                let id = site.file_an_approval();
                let socket = site.server.connect().unwrap();
                (site.click(&id).to_bytes(), id, socket)
            })
            .collect();
        if port == Port::Plain {
            for (click, _, socket) in &mut queued {
                socket.write_all(click).unwrap();
            }
        }
        site.server.signal(Signal::TERM);
        site.server.signal(Signal::CONT);
        thread::scope(|scope| {
            for (click, id, socket) in queued {
                let site = &site;
                scope.spawn(move || {
                    let mut wire = match &site.tls {
                        None => Wire::new(socket),
                        Some(config) => super::secured(socket, config).unwrap(),
                    };
                    if port == Port::Tls {
                        wire.say(click);
                    }
                    assert_eq!(wire.status("POST"), 200);
                    assert_eq!(site.status_of(&id), "approved");
                });
            }
        });
        assert_eq!(staying.status("POST"), 200);
        assert_eq!(site.status_of(&id), "approved");
        assert!(site.server.wait(PATIENCE).success());
    }
}

#[test]
fn term_ends_at_once_when_nobody_is_being_answered() {
    for port in BOTH {
        let site = Site::start(port);
        let mut idle: Vec<_> = (0..5).map(|_| site.send(HEALTH)).collect();
        assert!(idle.iter_mut().all(|wire| wire.status("GET") == 200));
        // Whoever has only just connected may be about to ask, and is waited for; not so after two seconds of silence.
        let _half = site.server.connect().unwrap();
        thread::sleep(Duration::from_millis(2100));
        let started = Instant::now();
        assert_eq!(site.server.terminate().code(), Some(0));
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        for wire in idle {
            assert!(matches!(wire.end(), End::Clean(0) | End::Cut));
        }
    }
}

/// A socket where systemd would listen, and what it hears.
struct Notified {
    socket: UnixDatagram,
    heard: String,
    _dir: Scratch,
}

impl Notified {
    fn new() -> (Self, String) {
        let dir = Scratch::new();
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        // The server may be another user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let notified = Self {
            socket,
            heard: String::new(),
            _dir: dir,
        };
        (notified, path.to_str().unwrap().to_owned())
    }

    /// Waits for a word and returns everything said up to it; later words stay for later.
    fn wait_for(&mut self, word: &str) -> String {
        eventually(&format!("systemd is told {word}"), PATIENCE, || {
            if let Some(at) = self.heard.find(word) {
                let rest = self.heard.split_off(at + word.len());
                return Some(std::mem::replace(&mut self.heard, rest));
            }
            let mut message = [0; 1024];
            if let Ok(length) = self.socket.recv(&mut message) {
                self.heard += &String::from_utf8_lossy(&message[..length]);
                self.heard.push('\n');
            }
            None
        })
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() {
    let (mut systemd, socket) = Notified::new();
    let site = Site::with(Port::Plain, |builder| builder.env("NOTIFY_SOCKET", socket));
    assert!(!systemd.wait_for("READY=1").contains("STOPPING"));
    site.serves_a_click();
    site.server.signal(Signal::HUP);
    systemd.wait_for("RELOADING=1");
    let stamp = systemd.wait_for("READY=1");
    assert!(stamp.contains("MONOTONIC_USEC="), "{stamp}");
    site.serves_a_click();
    site.server.signal(Signal::TERM);
    systemd.wait_for("STOPPING=1");
    assert!(site.server.wait(PATIENCE).success());
}

#[test]
fn the_watchdog_is_fed_for_as_long_as_workers_answer() {
    let (mut systemd, socket) = Notified::new();
    let site = Site::with(Port::Plain, |builder| {
        builder
            .args(["--workers", "1"])
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", "400000")
    });
    site.server.expect_errors();
    systemd.wait_for("READY=1");
    let mut last = Instant::now();
    for _ in 0..8 {
        systemd.wait_for("WATCHDOG=1");
        assert!(
            last.elapsed() < Duration::from_millis(400),
            "{:?}",
            last.elapsed()
        );
        last = Instant::now();
    }
    site.serves_a_click();
}

#[test]
fn a_socket_from_systemd_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever came before the server did is served, too.
    let mut early = TcpStream::connect(address).unwrap();
    early
        .write_all(&RawRequest::new("GET", "/health").to_bytes())
        .unwrap();
    let kept = listener.try_clone().unwrap();
    let site = Site::with(Port::Plain, |builder| {
        let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
        builder
            .wrapper(["sh", "-c", script, "sh"])
            .stdin(OwnedFd::from(listener))
    });
    assert_eq!(site.server.port(), address.port());
    site.server
        .wait_for_log("Listening on the socket that systemd passed", PATIENCE);
    assert_eq!(
        Answer::read(&mut BufReader::new(early), "GET")
            .unwrap()
            .status,
        200
    );
    site.serves_a_click();
    assert!(site.server.terminate().success());
    // The socket is systemd's: it still takes connections, for the next server.
    let mut late = TcpStream::connect(address).unwrap();
    late.write_all(HEALTH.as_bytes()).unwrap();
    drop(kept);
}

#[test]
fn what_systemd_passes_has_to_be_a_listening_socket() {
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3</dev/null";
    let finished = Server::builder()
        .wrapper(["sh", "-c", script, "sh"])
        .start_expecting_failure();
    assert_ne!(finished.status, Some(0));
    assert!(
        finished
            .stderr
            .contains("the socket from systemd is no TCP listener"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("runbook: hint: "),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_port_that_is_taken_is_told_unless_both_servers_share_it() {
    let first = Site::start(Port::Plain);
    let port = first.server.port().to_string();
    let again = |options: &[&str]| {
        let builder = Server::builder()
            .args(["--port", &port])
            .args(options.iter().copied());
        builder.start_expecting_failure()
    };
    for options in [&[][..], &["--reuse-port"]] {
        let finished = again(options);
        assert_eq!(finished.status, Some(1));
        assert!(finished.stderr.contains("in use"), "{}", finished.stderr);
        assert!(finished.stderr.contains("--port"), "{}", finished.stderr);
    }
    first.serves_a_click();

    let one = Site::with(Port::Plain, |builder| builder.args(["--reuse-port"]));
    let port = one.server.port().to_string();
    let two = Site::with(Port::Plain, |builder| {
        builder
            .dir(one.server.pending_dir())
            .args(["--reuse-port", "--port", &port])
    });
    assert_eq!(one.server.port(), two.server.port());
    for _ in 0..20 {
        one.serves_a_click();
    }
    let count = |site: &Site| site.server.log().matches("Received interaction").count();
    eventually("all clicks are logged", PATIENCE, || {
        (count(&one) + count(&two) == 20).then_some(())
    });
    assert!(
        count(&one) > 0 && count(&two) > 0,
        "the kernel gives some to each"
    );
    // One may go while the other stays.
    assert!(one.server.terminate().success());
    two.serves_a_click();
}

#[test]
fn a_port_can_be_taken_again_at_once() {
    let first = Site::start(Port::Plain);
    let port = first.server.port().to_string();
    first.serves_a_click();
    let _open = first.send(HEALTH);
    assert!(first.server.terminate().success());
    let second = Site::with(Port::Plain, |builder| builder.args(["--port", &port]));
    second.serves_a_click();
}

#[test]
fn port_443_without_privilege_names_three_ways_to_get_it() {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free: u32 = first_free.map_or(1024, |text| text.trim().parse().unwrap());
    let dir = Scratch::new();
    let owned = [dir.path().parent().unwrap(), dir.path()];
    let nobody = owned
        .iter()
        .all(|path| chown(path, Some(65534), Some(65534)).is_ok());
    if first_free <= 443 || !nobody {
        not_tested(
            "port 443 without a right to it: everyone may have it here, or only this user can be had",
        );
        return;
    }
    // The program has to lie where that user finds it.
    let built = runbook(dir.path());
    fs::copy(built.get_program(), dir.join("runbook")).unwrap();
    let output = Command::new("setpriv")
        .args("--reuid 65534 --regid 65534 --clear-groups ./runbook webhook --port 443".split(' '))
        .env_clear()
        .env("HOME", dir.path())
        .env("SLACK_SIGNING_SECRET", crate::harness::SECRET)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot listen on 0.0.0.0 port 443: permission denied"),
        "{said}"
    );
    for way in [
        "setcap",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "socket activation",
    ] {
        assert!(said.contains(way), "{way}: {said}");
    }
}

#[test]
fn the_address_of_all_interfaces_takes_both_families() {
    if TcpListener::bind("[::1]:0").is_err() {
        not_tested("both families, because there is no IPv6 here");
        return;
    }
    for host in ["::", "[::]"] {
        let site = Site::with(Port::Plain, |builder| builder.args(["--host", host]));
        site.server.expect_errors();
        site.serves_a_click();
        for address in ["127.0.0.1", "[::1]"] {
            let address: SocketAddr = format!("{address}:{}", site.server.port()).parse().unwrap();
            let mut socket = TcpStream::connect(address).unwrap();
            let forged = super::forged("apr-none").to_bytes();
            socket.write_all(&forged).unwrap();
            let answer = Answer::read(&mut BufReader::new(socket), "POST").unwrap();
            assert_eq!(answer.status, 401, "{address}");
        }
        let log = site.server.wait_for_log("Peer: ::1", PATIENCE);
        assert!(
            log.contains("Peer: 127.0.0.1\n"),
            "an IPv4 client is shown as one: {log}"
        );
    }
}

#[test]
fn an_address_that_is_none_or_not_ours_is_told() {
    for (host, said) in [
        ("not an address", "is no address"),
        ("192.0.2.1", "address"),
    ] {
        let finished = Server::builder()
            .args(["--host", host])
            .start_expecting_failure();
        assert!(matches!(finished.status, Some(1 | 2)));
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
    }
}

#[test]
fn hup_changes_who_is_let_in_without_ending_a_connection() {
    let site = Site::with(Port::Plain, |builder| {
        builder
            .without_env("SLACK_SIGNING_SECRET")
            .config("incident: {slack: {signingSecret: the first secret}}")
    });
    site.server.expect_errors();
    let mut staying = site.send(HEALTH);
    assert_eq!(staying.status("GET"), 200);
    assert_eq!(
        site.server
            .interact(&Click::approve("apr-1").payload())
            .status,
        401
    );
    fs::write(
        site.server.config_file(),
        format!(
            "incident: {{slack: {{signingSecret: {}}}}}",
            crate::harness::SECRET
        ),
    )
    .unwrap();
    site.server.signal(Signal::HUP);
    site.server.wait_for_log("Configuration reloaded", PATIENCE);
    site.serves_a_click();
    staying.say(HEALTH);
    assert_eq!(staying.status("GET"), 200);

    fs::write(site.server.config_file(), "incident: [").unwrap();
    site.server.signal(Signal::HUP);
    site.server
        .wait_for_log("Configuration not reloaded, the old one stays", PATIENCE);
    site.serves_a_click();
    let mut rest = [0; 1];
    staying.0.get_mut().flush().unwrap();
    staying.say(HEALTH);
    assert_eq!(staying.status("GET"), 200);
    drop(site);
    assert!(
        !matches!(staying.0.read(&mut rest), Err(error) if error.kind() == ErrorKind::WouldBlock)
    );
}
