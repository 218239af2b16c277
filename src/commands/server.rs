//! A server, put together, looked after, and taken apart again.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use sd_notify::NotifyState;

use super::listener::{self, fit_descriptors};
use crate::cli::Parsed;
use crate::clock;
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, Environment, WebhookSettings};
use crate::effects::{Effects, Running, Terms};
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
/// How often all else is looked after at least.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);

/// What ends the wait of the main thread.
pub(super) enum Event {
    Stop,
    Reload,
    WorkersFailed,
}

/// All that the main thread looks after while the others work.
pub(super) struct Server<'a> {
    parsed: &'a Parsed,
    environment: &'a Environment,
    pub(super) port: u16,
    /// The configuration file that holds, if there is one.
    file: Option<PathBuf>,
    effects: Effects,
    running: Running,
    webhook: Arc<Webhook>,
    tls: Option<Arc<Tls>>,
    watch: Option<PairWatch>,
    edge: Edge,
    metrics_edge: Option<Edge>,
}

impl<'a> Server<'a> {
    /// Opens what it needs, and serves.
    pub(super) fn start(
        parsed: &'a Parsed,
        environment: &'a Environment,
        mut settings: WebhookSettings,
        happened: &Sender<Event>,
    ) -> Result<Self, Complaint> {
        let watch = settings.tls.clone().map(PairWatch::new);
        let tls = settings.tls.as_ref().map(Tls::load).transpose()?;
        let tls = tls.map(Arc::new);
        let scrapers = settings.metrics.as_ref().map_or(0, |_| SCRAPERS);
        fit_descriptors(
            &mut settings.workers,
            &mut settings.limits.connections,
            scrapers,
        );
        let store = open(&settings)?;
        let (listener, queue) = listener::open(&settings)?;
        let address = listener.local_addr();
        let port = address.map_or(settings.port, |address| address.port());
        let metrics = settings.metrics.as_ref();
        let metrics = metrics
            .map(|(host, port)| listener::bind_alone("--metrics-addr", host, *port))
            .transpose()?;
        tell(&settings.warnings);
        let (workers, limits) = (settings.workers, settings.limits.clone());
        let temporary_dir = settings.temporary_dir.clone();
        let file = settings.file.clone();
        let (terms, access) = split(settings);

        let effects = Effects::new(Arc::new(store), terms);
        let metrics_place = match metrics {
            Some(_) => MetricsPlace::Alone,
            None => MetricsPlace::Main,
        };
        let webhook = Webhook::new(effects.clone(), access, tls.clone(), metrics_place);
        let webhook = Arc::new(webhook);
        let bridge = start_workers(workers, &temporary_dir, &webhook, happened.clone())?;
        let metrics_edge = metrics
            .map(|listener| serve_metrics(listener, &limits, &webhook))
            .transpose()?;
        let edge = Edge::start(
            (listener, queue),
            tls.clone(),
            limits,
            Arc::clone(&webhook),
            Door::Main(bridge),
        )
        .map_err(no_threads)?;
        // Last, for it is two dozen threads, and a health check can be answered before.
        let running = effects.start().map_err(no_threads)?;
        Ok(Self {
            parsed,
            environment,
            port,
            file,
            effects,
            running,
            webhook,
            tls,
            watch,
            edge,
            metrics_edge,
        })
    }

    /// Waits for what happens: signals, changed certificates, the watchdog's hour.
    pub(super) fn watch_over(&mut self, events: &Receiver<Event>) -> Result<Exit, Complaint> {
        let watchdog = sd_notify::watchdog_enabled().map(|period| period / 2);
        let look = self.watch.as_ref().map(|_| LOOK);
        let period = [watchdog, look].into_iter().flatten().min();
        let period = period.map_or(LOOK_AT_LEAST, |period| period.min(LOOK_AT_LEAST));
        let mut fed = clock::tick();
        loop {
            match events.recv_timeout(period) {
                Ok(Event::Stop) => return Ok(Exit::Done),
                Ok(Event::Reload) => self.reload(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::WorkersFailed) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Complaint::failure("the workers cannot be reached any more")
                        .hint("the log says why"));
                }
            }
            self.webhook.look();
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

    /// Takes no more in, and finishes what is in flight.
    pub(super) fn stop(self) {
        let deadline = clock::tick() + DRAIN;
        self.edge.stop(deadline);
        if let Some(edge) = &self.metrics_edge {
            edge.stop(deadline);
        }
        self.running.stop(deadline);
        self.webhook.conclude();
    }
}

pub(super) fn notify(state: NotifyState) {
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

/// Starts those who answer what Slack has signed.
fn start_workers(
    workers: usize,
    temporary_dir: &Path,
    webhook: &Arc<Webhook>,
    happened: Sender<Event>,
) -> Result<Bridge, Complaint> {
    let handler: Handler = {
        let webhook = Arc::clone(webhook);
        Arc::new(move |request| webhook.answer(request))
    };
    let on_failure = Arc::new(move || drop(happened.send(Event::WorkersFailed)));
    Bridge::start(workers, temporary_dir, &handler, on_failure).map_err(|error| {
        let shown = temporary_dir.display();
        Complaint::failure(format!("cannot start the workers: {}", reason(&error))).hint(format!(
            "their socket is made in {shown}; TMPDIR names another directory"
        ))
    })
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

#[allow(clippy::needless_pass_by_value, reason = "it stands behind `map_err`")]
pub(super) fn no_threads(error: io::Error) -> Complaint {
    Complaint::failure(format!("cannot start threads: {}", reason(&error))).hint(
        "this user or container may have too few of them (ulimit -u, TasksMax=, a limit of pids)",
    )
}
