//! `runbook webhook`: puts the server together, and takes it apart again when told to.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::listener::{self, fit_descriptors};
use super::print;
use crate::cli::Parsed;
use crate::clock;
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, Environment, WebhookSettings};
use crate::effects::{Effects, Terms};
use crate::store::Directory;
use crate::webhook::bridge::{Bridge, Handler};
use crate::webhook::edge::{Door, Edge, Queue};
use crate::webhook::tls::{PairWatch, Tls};
use crate::webhook::{Access, Limits, MetricsPlace, Webhook};

/// How long what is in flight may take after TERM or INT.
const DRAIN: Duration = Duration::from_secs(10);
/// Where the RunbookAI agent keeps its requests, from the directory that it runs in.
const AGENT_DIR: &str = ".runbook/pending";
/// Connections at once where there are only numbers.
const SCRAPERS: usize = 16;
/// How often certificates are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What ends the wait of the main thread.
pub(super) enum Event {
    Stop,
    Reload,
    WorkersFailed,
}

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
    let mut settings = config::webhook(parsed, environment)?;
    let tls = settings
        .tls
        .as_ref()
        .map(Tls::load)
        .transpose()?
        .map(Arc::new);
    let watch = settings.tls.clone().map(PairWatch::new);
    let (happened, events) = mpsc::channel();
    forward_signals(happened.clone())?;
    let scrapers = settings.metrics.as_ref().map_or(0, |_| SCRAPERS);
    fit_descriptors(
        &mut settings.workers,
        &mut settings.limits.connections,
        scrapers,
    );
    let store = open(&settings)?;
    let (listener, queue) = listener::open(&settings)?;
    let metrics = settings
        .metrics
        .as_ref()
        .map(|(host, port)| listener::bind_alone("--metrics-addr", host, *port))
        .transpose()?;
    tell(&settings.warnings);
    let port = listener
        .local_addr()
        .map_or(settings.port, |address| address.port());
    let (public_url, workers, limits) = (
        settings.public_url.clone(),
        settings.workers,
        settings.limits.clone(),
    );
    let temporary_dir = settings.temporary_dir.clone();
    let file = settings.file.clone();
    let (terms, access) = split(settings);

    let effects = Effects::new(Arc::new(store), terms);
    let running = effects.start().map_err(no_threads)?;
    let metrics_place = match metrics {
        Some(_) => MetricsPlace::Alone,
        None => MetricsPlace::Main,
    };
    let webhook = Arc::new(Webhook::new(
        effects.clone(),
        access,
        tls.clone(),
        metrics_place,
    ));
    let handler: Handler = {
        let webhook = Arc::clone(&webhook);
        Arc::new(move |request| webhook.answer(request))
    };
    let failed = happened.clone();
    let on_failure = Arc::new(move || drop(failed.send(Event::WorkersFailed)));
    let bridge = Bridge::start(workers, &temporary_dir, &handler, on_failure).map_err(|error| {
        let shown = temporary_dir.display();
        Complaint::failure(format!("cannot start the workers: {}", reason(&error))).hint(format!(
            "their socket is made in {shown}; TMPDIR names another directory"
        ))
    })?;
    let metrics_edge = metrics
        .map(|listener| serve_metrics(listener, &limits, &webhook))
        .transpose()?;
    let door = Door::Main(bridge);
    let edge = Edge::start(
        (listener, queue),
        tls.clone(),
        limits,
        Arc::clone(&webhook),
        door,
    )
    .map_err(no_threads)?;
    tell_ready(Ready {
        port,
        public_url,
        happened,
    });
    notify(NotifyState::Ready);

    let mut server = Server {
        parsed,
        environment,
        file,
        effects,
        webhook,
        tls,
        watch,
        edge,
        metrics_edge,
    };
    let end = server.watch_over(&events);
    log::info!("Shutting down");
    notify(NotifyState::Stopping);
    let deadline = clock::tick() + DRAIN;
    server.edge.stop(deadline);
    if let Some(edge) = &server.metrics_edge {
        edge.stop(deadline);
    }
    running.stop(deadline);
    end
}

/// All that the main thread looks after while the others work.
struct Server<'a> {
    parsed: &'a Parsed,
    environment: &'a Environment,
    /// The configuration file that holds, if there is one.
    file: Option<PathBuf>,
    effects: Effects,
    webhook: Arc<Webhook>,
    tls: Option<Arc<Tls>>,
    watch: Option<PairWatch>,
    edge: Edge,
    metrics_edge: Option<Edge>,
}

impl Server<'_> {
    /// Waits for what happens: signals, changed certificates, the watchdog's hour.
    fn watch_over(&mut self, events: &Receiver<Event>) -> Result<Exit, Complaint> {
        let watchdog = sd_notify::watchdog_enabled().map(|period| period / 2);
        let period = match (watchdog, &self.watch) {
            (Some(watchdog), Some(_)) => Some(watchdog.min(LOOK)),
            (watchdog, None) => watchdog,
            (None, Some(_)) => Some(LOOK),
        };
        let mut fed = clock::tick();
        loop {
            let event = match period {
                Some(period) => events.recv_timeout(period),
                None => events.recv().map_err(RecvTimeoutError::from),
            };
            match event {
                Ok(Event::Stop) => return Ok(Exit::Done),
                Ok(Event::Reload) => self.reload(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::WorkersFailed) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Complaint::failure("the workers cannot be reached any more")
                        .hint("the log says why"));
                }
            }
            if let (Some(watch), Some(tls)) = (&mut self.watch, &self.tls) {
                watch.look(tls);
            }
            if watchdog.is_some_and(|period| clock::tick().duration_since(fed) >= period / 2)
                && self.edge.is_alive()
                && self.metrics_edge.as_ref().is_none_or(Edge::is_alive)
            {
                notify(NotifyState::Watchdog);
                fed = clock::tick();
            }
        }
    }

    /// Takes in the configuration anew. If anything in it is broken, everything stays as it was.
    fn reload(&mut self) {
        if let Ok(reloading) = NotifyState::monotonic_usec_now() {
            notify_all(&[NotifyState::Reloading, reloading]);
        }
        match self.settings_anew() {
            Ok(settings) => {
                self.file.clone_from(&settings.file);
                tell(&settings.warnings);
                self.effects.store().sign_with(settings.site.key.clone());
                let (terms, access) = split(settings);
                self.effects.reload(terms);
                self.webhook.reload(access);
                log::info!("Configuration reloaded");
            }
            Err(complaint) => {
                self.webhook.keep_old(complaint.what());
                log::error!(reason:% = complaint.what(); "Configuration not reloaded, the old one stays");
            }
        }
        if let (Some(watch), Some(tls)) = (&mut self.watch, &self.tls) {
            watch.reload(tls);
        }
        notify(NotifyState::Ready);
    }

    /// The settings as they are now. When the file that held until now is gone it is an error, for
    /// without its rules the gate would be open.
    fn settings_anew(&self) -> Result<WebhookSettings, Complaint> {
        let settings = config::webhook(self.parsed, self.environment)?;
        match &self.file {
            Some(file) if settings.file.as_ref() != Some(file) => {
                let gone = format!("configuration {} is gone", file.display());
                Err(Complaint::usage(gone).hint("a restart goes on without it"))
            }
            _ => Ok(settings),
        }
    }
}

fn notify(state: NotifyState) {
    notify_all(&[state]);
}

/// Tells systemd, if it listens.
fn notify_all(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!(reason:% = reason(&error); "systemd was not told");
    }
}

/// The settings that a reload may change.
fn split(settings: WebhookSettings) -> (Terms, Access) {
    let access = Access {
        secrets: settings.signing_secrets,
        monitors: settings.monitors,
        trusted_proxies: settings.trusted_proxies,
        app: settings.app,
        workspace: settings.workspace,
    };
    (settings.terms, access)
}

fn tell(warnings: &[String]) {
    for warning in warnings {
        log::warn!("{warning}");
    }
}

fn open(settings: &WebhookSettings) -> Result<Directory, Complaint> {
    let shown = settings.site.path.display();
    let store = Directory::open(&settings.site, settings.keep_decided).map_err(|error| {
        Complaint::failure(format!("pending directory {shown}: {error}"))
            .hint("--pending-dir or RUNBOOK_PENDING_DIR names another, approvals.auditDir another for the audit log; both must be directories that this user may write")
    })?;
    if store.is_on_network() {
        log::warn!(
            "{shown} is on a network filesystem: it is polled every 250 ms instead of watched"
        );
    }
    if store.is_missing_requests_in(Path::new(AGENT_DIR)) {
        log::warn!(
            "the RunbookAI agent waits for answers in {AGENT_DIR}, which is not served; --pending-dir {AGENT_DIR} serves it"
        );
    }
    Ok(store)
}

/// Opens the socket that has the numbers and nothing else, held to the limits of the main one.
fn serve_metrics(
    listener: TcpListener,
    limits: &Limits,
    webhook: &Arc<Webhook>,
) -> Result<Edge, Complaint> {
    let address = listener.local_addr();
    let limits = Limits {
        connections: limits.connections.min(SCRAPERS),
        ..limits.clone()
    };
    let edge = Edge::start(
        (listener, Queue::Own),
        None,
        limits,
        Arc::clone(webhook),
        Door::Metrics,
    );
    if let Ok(address) = address {
        log::info!("Metrics at http://{address}/metrics");
    }
    edge.map_err(no_threads)
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

#[allow(clippy::needless_pass_by_value, reason = "it stands behind `map_err`")]
fn no_threads(error: io::Error) -> Complaint {
    Complaint::failure(format!("cannot start threads: {}", reason(&error))).hint(
        "this user or container may have too few of them (ulimit -u, TasksMax=, a limit of pids)",
    )
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
