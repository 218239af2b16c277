//! `runbook webhook`: the server that Slack calls, until a signal ends it.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::print;
use super::server::{Event, Server, no_threads, notify};
use crate::cli::Parsed;
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, Environment};

/// What is known of a server as soon as it serves.
pub(super) struct Ready {
    pub(super) port: u16,
    pub(super) public_url: String,
    /// What is sent here happens to it.
    #[cfg_attr(
        not(feature = "demo"),
        expect(dead_code, reason = "nobody else sends anything")
    )]
    pub(super) happened: Sender<Event>,
}

/// Serves until TERM or INT; HUP reloads.
///
/// # Errors
/// The configuration is wrong; the directory, the port or the system's threads cannot be had; or
/// the workers fail later.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    serve(parsed, environment, &mut |ready| {
        // Clicks can be decided where nothing can be printed.
        let _ = print(&banner(ready.port, &ready.public_url));
    })
}

/// Serves, and tells when it does.
///
/// # Errors
/// See [`run`].
pub(super) fn serve(
    parsed: &Parsed,
    environment: &Environment,
    tell_ready: &mut dyn FnMut(Ready),
) -> Result<Exit, Complaint> {
    let settings = config::webhook(parsed, environment)?;
    let public_url = settings.public_url.clone();
    let (happened, events) = mpsc::channel();
    forward_signals(happened.clone())?;
    let mut server = Server::start(parsed, environment, settings, &happened)?;
    tell_ready(Ready {
        port: server.port,
        public_url,
        happened,
    });
    notify(NotifyState::Ready);
    let end = server.watch_over(&events);
    log::info!("Shutting down");
    notify(NotifyState::Stopping);
    server.stop();
    end
}

fn forward_signals(happened: Sender<Event>) -> Result<(), Complaint> {
    let no_signals =
        |error: io::Error| Complaint::failure(format!("cannot hear signals: {}", reason(&error)));
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

/// What the operator sees first.
pub(super) fn banner(port: u16, public_url: &str) -> String {
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
