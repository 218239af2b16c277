//! Many at once: connections that never ask anything, forged clicks, workers that are stuck, a
//! system that has nothing left to give. Real clicks get through, quickly.

use std::fs;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{BOTH, HEALTH, PATIENCE, Port, Site, Wire, forged};
use rustix::net::{AddressFamily, SocketType};

use crate::excuse::not_tested;
use crate::harness::{RawRequest, Scratch, eventually};
use crate::stand_in::{Failure, Times};

/// How long a real click may take in a crowd.
const PROMPTLY: Duration = Duration::from_secs(1);
/// How much memory a crowd may take, in KiB.
const MEMORY: u64 = 32 << 10;

/// The first bytes of a request, or of a handshake: enough to be waited for.
fn beginning(port: Port) -> &'static [u8] {
    match port {
        Port::Plain => b"POST /slack/interactions HTTP/1.1\r\nHos",
        Port::Tls => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
    }
}

/// Connections that have begun to say something. They are half-open from here on.
fn half_open(site: &Site, port: Port, number: usize) -> Vec<TcpStream> {
    let opened = (0..number).filter_map(|_| {
        let mut socket = site.server.connect().ok()?;
        // One that is thrown out at once was there all the same.
        let _ = io::Write::write_all(&mut socket, beginning(port));
        Some(socket)
    });
    opened.collect()
}

/// A connection that comes from another address than the tests' own.
fn from_elsewhere(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        // No server that another test starts meanwhile is to inherit it.
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0)))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// Comes back wherever it is thrown out, until told to stop.
fn reconnect(
    address: SocketAddr,
    port: Port,
    number: usize,
    stop: &AtomicBool,
    returns: &AtomicUsize,
) {
    use std::io::{ErrorKind, Read, Write};
    let mut held: Vec<Option<TcpStream>> = (0..number).map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        for place in &mut held {
            let alive = place.as_mut().is_some_and(|socket| {
                matches!(socket.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            });
            if !alive {
                *place = from_elsewhere(address).ok().filter(|mut socket| {
                    returns.fetch_add(1, Ordering::Relaxed);
                    socket.write_all(beginning(port)).is_ok()
                        && socket.set_nonblocking(true).is_ok()
                });
            }
        }
        // Insistent, but the machine has other tests to run.
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn at_the_cap_the_longest_waiting_connection_makes_room() {
    let config = "webhook: {limits: {connections: 16}}";
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(config));
        let mut crowd = half_open(&site, port, 16);
        // In one that is in the middle of serving, nothing is lost: it is not the one to go.
        let took = site.serves_a_click();
        assert!(took < PROMPTLY, "{took:?}");
        let ended = |socket: &mut TcpStream| {
            socket
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            !matches!(io::Read::read(socket, &mut [0; 64]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        };
        eventually("the first is thrown out", PATIENCE, || {
            ended(&mut crowd[0]).then_some(())
        });
        assert!(!ended(&mut crowd[15]), "the last to come may stay");
        drop(crowd);
    }
}

#[test]
fn one_that_has_its_last_answer_makes_room_before_one_that_may_still_ask() {
    let config = "webhook: {limits: {connections: 2}}";
    let site = Site::with(Port::Plain, |builder| builder.config(config));
    let mut staying = site.send(HEALTH);
    assert_eq!(staying.status("GET"), 200);
    let mut answered = site.send(HEALTH.replace("Host", "Connection: close\r\nHost"));
    assert_eq!(answered.status("GET"), 200);
    // The server has said all that it has to say, and waits for this side to hang up.
    assert_eq!(answered.0.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(site.send(HEALTH).status("GET"), 200);
    staying.say(HEALTH);
    assert_eq!(staying.status("GET"), 200);
}

#[test]
fn whoever_holds_most_connections_makes_room_before_one_that_has_waited_longer() {
    let config = "webhook: {limits: {connections: 16}}";
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(config));
        let address = SocketAddr::from(([127, 0, 0, 1], site.server.port()));
        let id = site.file_an_approval();
        let click = site.click(&id).to_bytes();
        let (first, second) = click.split_at(click.len() / 2);
        let mut slow = site.send(first);
        let crowd: Vec<TcpStream> = (0..64)
            .map(|_| {
                let mut socket = from_elsewhere(address).unwrap();
                // One that is thrown out at once was there all the same.
                let _ = io::Write::write_all(&mut socket, beginning(port));
                socket
            })
            .collect();
        // Whoever came after all of the crowd has been served, so all of it has been taken in.
        site.serves_a_click();
        slow.say(second);
        assert_eq!(slow.status("POST"), 200);
        assert_eq!(site.status_of(&id), "approved");
        drop(crowd);
    }
}

#[test]
fn a_crowd_that_comes_back_keeps_no_real_click_waiting() {
    const CROWD: usize = 300;
    let config = "webhook: {limits: {connections: 128}}";
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(config));
        let address = SocketAddr::from(([127, 0, 0, 1], site.server.port()));
        let (stop, returns) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| reconnect(address, port, CROWD, &stop, &returns));
            // The crowd has been turned over once before anything is measured.
            eventually("the crowd comes back", PATIENCE, || {
                (returns.load(Ordering::Relaxed) > 2 * CROWD).then_some(())
            });
            let clicks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for number in 1..=25 {
                    let took = site.serves_a_click();
                    assert!(took < PROMPTLY, "{port:?}: click {number} took {took:?}");
                }
            }));
            stop.store(true, Ordering::Relaxed);
            clicks.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        });
        let memory = site.server.peak_memory();
        assert!(memory < MEMORY, "{port:?}: {memory} KiB");
        assert!(site.server.terminate().success());
    }
}

#[test]
fn a_flood_of_forged_clicks_does_not_keep_a_real_one_waiting() {
    let site = Site::with(Port::Plain, |builder| builder.args(["--workers", "1"]));
    site.server.expect_errors();
    let id = site.file_an_approval();
    let bytes = forged(&id).header("Connection", "keep-alive").to_bytes();
    let (stop, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut wire = site.connect();
                while !stop.load(Ordering::Relaxed) {
                    if wire.try_say(&bytes).is_err() {
                        wire = site.connect();
                        continue;
                    }
                    match wire.try_answer("POST") {
                        Ok(answer) => {
                            assert_eq!(answer.status, 401);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => wire = site.connect(),
                    }
                }
            });
        }
        let clicks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..25 {
                let took = site.serves_a_click();
                assert!(took < PROMPTLY, "{took:?}");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        clicks.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
    assert!(refused.into_inner() > 100);
    assert_eq!(site.status_of(&id), "pending");
}

#[test]
fn a_slack_that_hangs_keeps_no_click_waiting() {
    let site = Site::with(Port::Plain, |builder| builder.args(["--workers", "2"]));
    site.slack.fail(Failure::Hang, Times::Forever);
    for _ in 0..20 {
        let took = site.serves_a_click();
        assert!(took < PROMPTLY, "{took:?}");
    }
    site.slack.recover();
}

#[test]
fn when_all_workers_are_stuck_signed_clicks_are_told_to_come_back_and_all_else_goes_on() {
    let config = "webhook: {limits: {worker: 300ms}}";
    let site = Site::with(Port::Plain, |builder| {
        builder.config(config).args(["--workers", "2"])
    });
    site.server.expect_errors();
    let ids: Vec<String> = (0..6).map(|_| site.file_an_approval()).collect();
    let locks = site.hold_all_locks();
    thread::scope(|scope| {
        let started = Instant::now();
        let clicks: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut wire = site.send(site.click(id).to_bytes());
                scope.spawn(move || (wire.answer("POST"), started.elapsed()))
            })
            .collect();
        let mut impatient = Vec::new();
        for click in clicks {
            let (answer, took) = click.join().unwrap();
            assert_eq!(answer.status, 503, "{answer:?}");
            let again: u32 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..60).contains(&again));
            assert!(took < super::SLACK_WAITS, "{took:?}");
            impatient.extend((took < PROMPTLY).then_some(took));
        }
        assert_eq!(
            impatient.len(),
            4,
            "those that found no worker hear it at once"
        );
    });
    thread::scope(|scope| {
        // Both workers are stuck again.
        for id in &ids[..2] {
            let mut wire = site.send(site.click(id).to_bytes());
            scope.spawn(move || wire.answer("POST"));
        }
        for _ in 0..10 {
            let asked = Instant::now();
            assert_eq!(site.server.get("/health").status, 200);
            assert_eq!(site.server.request(forged(&ids[0])).status, 401);
            assert!(asked.elapsed() < PROMPTLY, "{:?}", asked.elapsed());
        }
    });
    assert!(ids.iter().all(|id| site.status_of(id) == "pending"));
    drop(locks);
    site.serves_a_click();
}

#[test]
fn with_64_descriptors_and_200_connections_clicks_are_served() {
    for port in BOTH {
        let few = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"];
        let site = Site::with(port, |builder| builder.wrapper(few));
        site.server
            .wait_for_log("Few file descriptors are allowed", PATIENCE);
        for _ in 0..3 {
            let crowd = half_open(&site, port, 200);
            let took = site.serves_a_click();
            assert!(took < PROMPTLY, "{took:?}");
            drop(crowd);
        }
        // The same, by clients that have asked something and stay.
        let crowd: Vec<Wire> = (0..200)
            .filter_map(|_| {
                let mut wire = site.try_connect().ok()?;
                wire.try_say(HEALTH).ok()?;
                wire.try_answer("GET").ok()?;
                Some(wire)
            })
            .collect();
        assert!(crowd.len() > 150, "{}", crowd.len());
        site.serves_a_click();
        drop(crowd);
        let log = site.server.log();
        assert!(log.lines().count() < 50, "{log}");
        assert!(site.server.terminate().success());
    }
}

#[test]
fn with_hardly_any_threads_clicks_are_served() {
    const NOBODY: u32 = 54_321;
    let dir = Scratch::new();
    let home = Scratch::new();
    for owned in [
        dir.path(),
        home.path(),
        dir.path().parent().unwrap(),
        home.path().parent().unwrap(),
    ] {
        if chown(owned, Some(NOBODY), Some(NOBODY)).is_err() {
            not_tested(
                "too few threads: only root can become another user, and root may have any number of them",
            );
            return;
        }
    }
    // The program has to lie where that user finds it.
    let program = crate::harness::runbook(dir.path()).get_program().to_owned();
    fs::copy(program, dir.join("runbook")).unwrap();
    let script = format!(
        "shift; cd {0}; exec prlimit --nproc=39 setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
         {0}/runbook \"$@\"",
        dir.path().display()
    );
    let site = Site::with(Port::Plain, |builder| {
        builder
            .wrapper(["sh", "-c", &*script, "sh"])
            .args(["--workers", "2"])
            .env("HOME", home.path())
            .dir(dir.join("pending"))
    });
    site.server.expect_errors();
    for _ in 0..3 {
        let crowd = half_open(&site, Port::Plain, 60);
        let id = site.file_an_approval();
        chown(
            dir.join(format!("pending/{id}.json")),
            Some(NOBODY),
            Some(NOBODY),
        )
        .unwrap();
        let asked = Instant::now();
        let answer = site.server.request(site.click(&id));
        assert_eq!(answer.status, 200);
        assert!(
            asked.elapsed() < super::SLACK_WAITS,
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(
            site.server
                .request(RawRequest::new("GET", "/health"))
                .status,
            200
        );
        drop(crowd);
    }
    // Calling Slack takes a thread, too; what found none is called later.
    site.slack.wait_for("chat.update", 3, PATIENCE);
    let log = site.server.log();
    assert!(log.contains("Too few threads for all connections"), "{log}");
    assert!(log.lines().count() < 50, "{log}");
    assert!(site.server.terminate().success());
}
