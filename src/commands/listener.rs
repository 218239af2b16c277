//! The listening socket: systemd's if it gave us one, else our own; and how many connections the
//! system's descriptors allow.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::complaint::{Complaint, reason};
use crate::config::WebhookSettings;
use crate::webhook::edge::Queue;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// Descriptors of the process itself: standard streams, listeners, locks, watches, the audit log,
/// calls to Slack.
const OWN: usize = 42;
/// Descriptors of a worker: both ends of its connection, a lock, a file and a folder.
const PER_WORKER: usize = 5;

/// Opens the socket, or takes the one that systemd has opened.
///
/// # Errors
/// With what would help: another port, a privilege, another address.
pub(super) fn open(settings: &WebhookSettings) -> Result<(TcpListener, Queue), Complaint> {
    let given = ListenFd::from_env().take_tcp_listener(0);
    match given {
        Ok(Some(listener)) => {
            listener.set_nonblocking(false).map_err(|error| {
                Complaint::failure(format!(
                    "cannot use the socket from systemd: {}",
                    reason(&error)
                ))
            })?;
            log::info!("Listening on the socket that systemd passed");
            return Ok((listener, Queue::Passed));
        }
        Ok(None) => {}
        Err(error) => {
            return Err(Complaint::failure(format!(
                "the socket from systemd is no TCP listener: {}",
                reason(&error)
            ))
            .hint("ListenStream= must name a port, and Accept= must be no"));
        }
    }
    let shared = settings.reuse_port;
    try_all("--host", &settings.host, settings.port, |address| {
        bind(address, shared).and_then(listen)
    })
    .map(|listener| (listener, Queue::Own))
}

/// Opens a socket that no other server shares.
///
/// # Errors
/// Those of [`open`]; `option` is what names the address.
pub(super) fn bind_alone(option: &str, host: &str, port: u16) -> Result<TcpListener, Complaint> {
    try_all(option, host, port, |address| {
        bind(address, false).and_then(listen)
    })
}

/// Whether the server could listen there now. Nobody is kept from it by the question.
///
/// # Errors
/// Those of [`open`]; `option` is what names the address.
pub(super) fn try_bind(option: &str, host: &str, port: u16, shared: bool) -> Result<(), Complaint> {
    try_all(option, host, port, |address| {
        bind(address, shared).map(drop)
    })
}

/// The first address of a host that something succeeds at.
fn try_all<T>(
    option: &str,
    host: &str,
    port: u16,
    attempt: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, Complaint> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let addresses: Vec<SocketAddr> = (bare, port)
        .to_socket_addrs()
        .map_err(|_| Complaint::usage(format!("{option} {host} is no address of this machine")))?
        .collect();
    let tried = addresses.into_iter().map(attempt).reduce(Result::or);
    match tried {
        Some(Ok(found)) => Ok(found),
        Some(Err(error)) => Err(cannot_listen(option, host, port, &error)),
        None => Err(cannot_listen(
            option,
            host,
            port,
            &ErrorKind::AddrNotAvailable.into(),
        )),
    }
}

fn cannot_listen(option: &str, host: &str, port: u16, error: &io::Error) -> Complaint {
    let other = match option {
        "--host" => "--port takes another, 0 any free one".to_owned(),
        option => format!("{option} names another"),
    };
    let complaint = Complaint::failure(format!(
        "cannot listen on {host} port {port}: {}",
        reason(error)
    ));
    match error.kind() {
        ErrorKind::AddrInUse => complaint.hint(format!("another program has the port; {other}")),
        ErrorKind::PermissionDenied => complaint.hint(
            "ports below 1024 need a privilege: setcap cap_net_bind_service=+ep on the binary, \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a systemd socket unit (socket activation)",
        ),
        ErrorKind::AddrNotAvailable => complaint.hint(format!("{option} must be an address of this machine")),
        _ => complaint,
    }
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
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
    Ok(socket)
}

fn listen(socket: OwnedFd) -> io::Result<TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Fits workers and connections into the descriptors that the system allows, having asked for all
/// that it may give. A decision must never lack a descriptor because strangers hold them, here or at
/// the sockets `beside`, whose connections these are.
pub(super) fn fit_descriptors(workers: &mut usize, connections: &mut usize, beside: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What was allowed before is enough to start with.
    let _ = setrlimit(Resource::Nofile, limit);
    let allowed = getrlimit(Resource::Nofile)
        .current
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX);
    let wanted = (*workers, *connections);
    *workers = (*workers).min((allowed.saturating_sub(OWN + beside) / 2 / PER_WORKER).max(2));
    *connections = (*connections).min(
        allowed
            .saturating_sub(OWN + beside + *workers * PER_WORKER)
            .max(4),
    );
    if (*workers, *connections) != wanted {
        log::warn!(descriptors = allowed, workers = *workers, connections = *connections;
            "Few file descriptors are allowed, so fewer workers and connections are used");
    }
}
