//! `runbook webhook`: puts the server together, and takes it apart again when told to.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::print;
use crate::cli::Parsed;
use crate::clock;
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, Environment, WebhookSettings};
use crate::effects::{Effects, Terms};
use crate::slack::api::Client;
use crate::store::Directory;
use crate::webhook::bridge::{Bridge, Handler};
use crate::webhook::{Access, Webhook};

/// How long what is in flight may take after TERM or INT.
const DRAIN: Duration = Duration::from_secs(10);
/// What ends the wait of the main thread.
enum Event {
    Stop,
    Reload,
    ListenerFailed,
}

/// Serves until TERM or INT; HUP reloads.
///
/// # Errors
/// The configuration is wrong; the directory, the port or the system's threads cannot be had; or
/// the listener fails later.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let settings = config::webhook(parsed, environment)?;
    tell(&settings.warnings);
    let (happened, events) = mpsc::channel();
    forward_signals(happened.clone())?;
    let store = open(&settings)?;
    let listener = listen(&settings)?;
    let port = listener
        .local_addr()
        .map_or(settings.port, |address| address.port());
    let (public_url, workers) = (settings.public_url.clone(), settings.workers);
    let (terms, access) = split(settings);

    let effects = Effects::new(Arc::new(store), terms);
    let running = effects.start().map_err(no_threads)?;
    let webhook = Arc::new(Webhook::new(effects.clone(), access));
    let handler: Handler = {
        let webhook = Arc::clone(&webhook);
        Arc::new(move |request| webhook.answer(request))
    };
    let on_failure = Arc::new(move || drop(happened.send(Event::ListenerFailed)));
    let bridge =
        Bridge::start(listener, workers, &handler, &(on_failure as _)).map_err(no_threads)?;
    print(&banner(port, &public_url));

    let end = loop {
        match events.recv() {
            Ok(Event::Reload) => reload(parsed, environment, &effects, &webhook),
            Ok(Event::Stop) => break Ok(Exit::Done),
            Ok(Event::ListenerFailed) | Err(_) => {
                let failed = Complaint::failure("the listener has failed");
                break Err(failed.hint("the log says why; a restart opens it again"));
            }
        }
    };
    log::info!("Shutting down");
    let deadline = clock::tick() + DRAIN;
    bridge.stop(deadline);
    running.stop(deadline);
    end
}

/// Takes in the configuration anew. If anything in it is broken, everything stays as it was.
fn reload(parsed: &Parsed, environment: &Environment, effects: &Effects, webhook: &Webhook) {
    match config::webhook(parsed, environment) {
        Ok(settings) => {
            tell(&settings.warnings);
            let (terms, access) = split(settings);
            effects.reload(terms);
            webhook.reload(access);
            log::info!("Configuration reloaded");
        }
        Err(complaint) => {
            log::error!(reason:% = complaint.what(); "Configuration not reloaded, the old one stays");
        }
    }
}

/// The settings that a reload may change.
fn split(settings: WebhookSettings) -> (Terms, Access) {
    let slack = Client::new(settings.api_base, settings.bot_token, settings.proxy);
    let terms = Terms {
        slack,
        policy: settings.policy,
    };
    (
        terms,
        Access {
            secrets: settings.signing_secrets,
            monitors: settings.monitors,
        },
    )
}

fn tell(warnings: &[String]) {
    for warning in warnings {
        log::warn!("{warning}");
    }
}

fn open(settings: &WebhookSettings) -> Result<Directory, Complaint> {
    let shown = settings.pending_dir.display();
    let store = Directory::open(&settings.pending_dir, settings.keep_decided).map_err(|error| {
        Complaint::failure(format!("pending directory {shown}: {error}"))
            .hint("--pending-dir or RUNBOOK_PENDING_DIR names another; it must be a directory that this user may write")
    })?;
    if store.is_on_network() {
        log::warn!(
            "{shown} is on a network filesystem: it is polled every 250 ms instead of watched"
        );
    }
    Ok(store)
}

fn forward_signals(happened: Sender<Event>) -> Result<(), Complaint> {
    let no_signals =
        |error: io::Error| Complaint::failure(format!("cannot handle signals: {}", reason(&error)));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(no_signals)?;
    let forward = move || {
        for signal in signals.forever() {
            let event = if signal == SIGHUP {
                Event::Reload
            } else {
                Event::Stop
            };
            if happened.send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(forward)
        .map(drop)
        .map_err(no_threads)
}

#[allow(clippy::needless_pass_by_value, reason = "it stands behind `map_err`")]
fn no_threads(error: io::Error) -> Complaint {
    Complaint::failure(format!("cannot start threads: {}", reason(&error)))
}

/// What the operator sees first.
fn banner(port: u16, public_url: &str) -> String {
    let width = 60;
    let bar = "═".repeat(width);
    let title = format!("{:^width$}", "Runbook Webhook Server");
    let listening = format!("{:<width$}", format!("  Listening on port {port}"));
    format!(
        "\n╔{bar}╗\n║{title}║\n║{listening}║\n╚{bar}╝\n\n\
         Endpoints:\n\
         \x20 POST /slack/interactions  - Slack button callbacks\n\
         \x20 POST /slack/events        - Slack event subscriptions\n\
         \x20 GET  /health              - Health check\n\n\
         Server ready. Configure Slack app:\n\
         \x20 Request URL: {public_url}/slack/interactions\n\n\
         Waiting for interactions...\n"
    )
}

fn listen(settings: &WebhookSettings) -> Result<TcpListener, Complaint> {
    let (host, port) = (&*settings.host, settings.port);
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let addresses: Vec<SocketAddr> = (bare, port)
        .to_socket_addrs()
        .map_err(|_| Complaint::usage(format!("--host {host} is no address of this machine")))?
        .collect();
    let bind = |address: &SocketAddr| bind(*address, settings.reuse_port);
    let tried = addresses.iter().map(bind).reduce(Result::or);
    let error = match tried {
        Some(Ok(listener)) => return Ok(listener),
        Some(Err(error)) => error,
        None => io::Error::from(ErrorKind::AddrNotAvailable),
    };
    let complaint = Complaint::failure(format!(
        "cannot listen on {host} port {port}: {}",
        reason(&error)
    ));
    Err(match error.kind() {
        ErrorKind::AddrInUse => {
            complaint.hint("another program has the port; --port takes another, 0 any free one")
        }
        ErrorKind::PermissionDenied => complaint.hint(
            "ports below 1024 are privileged: setcap cap_net_bind_service=+ep on the binary, \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in systemd, or a reverse proxy",
        ),
        ErrorKind::AddrNotAvailable => complaint.hint("--host must be an address of this machine"),
        _ => complaint,
    })
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        // `::` takes IPv4 as well, whatever the system's default.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 1024)?;
    Ok(socket.into())
}
