//! `GET /health`: whether approvals can be decided now; `GET /metrics`: what happened so far.
//! Details are for those nearby only.

use serde_json::{Map, Value, json};

use super::gate::{Endpoint, endpoint};
use super::{MetricsPlace, Refusal, Request, Response, Webhook};
use crate::clock;
use crate::metrics::{self, Gauge};

/// Whether a proxy has added a header: such a request did not come from here.
fn is_forwarded(request: &Request) -> bool {
    let of_proxy = |name: &str| {
        name.starts_with("x-forwarded") || matches!(name, "forwarded" | "x-real-ip" | "via")
    };
    request
        .headers
        .iter()
        .any(|(name, _)| of_proxy(&name.to_ascii_lowercase()))
}

impl Webhook {
    /// `{"status":"healthy","pendingApprovals":2}`, and more with `?verbose` for loopback and the
    /// configured monitors; 503 with reasons when the store cannot be read and written.
    pub(super) fn health(&self, request: &Request) -> Response {
        let store = self.effects.store();
        let (census, written) = (store.census(), store.check());
        let reasons: Vec<String> = [census.as_ref().err(), written.as_ref().err()]
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        let (status, word) = if reasons.is_empty() {
            (200, "healthy")
        } else {
            (503, "unhealthy")
        };
        let mut body = Map::new();
        body.insert("status".into(), word.into());
        let census = census.ok();
        if let Some(census) = census {
            body.insert("pendingApprovals".into(), census.pending.into());
        }
        if !reasons.is_empty() {
            body.insert("reasons".into(), reasons.into());
        }
        if wants_details(request) && self.is_near(request) {
            let uptime = clock::tick().duration_since(self.started).as_secs();
            let last = self.effects.terms().slack.last_result();
            body.insert("uptime".into(), uptime.into());
            body.insert("version".into(), env!("CARGO_PKG_VERSION").into());
            // Very many files take a moment to be counted after a start: there are at least so many.
            if census.is_some_and(|census| census.counting) {
                body.insert("counting".into(), true.into());
            }
            body.insert(
                "effectsOwed".into(),
                json!(census.map(|census| census.owing)),
            );
            body.insert(
                "unreadableFiles".into(),
                json!(census.map(|census| census.unreadable)),
            );
            body.insert("lastSlackResult".into(), json!(last));
            let days = self.tls.as_ref().and_then(|tls| tls.days_left());
            body.insert("certificateDays".into(), json!(days));
            body.insert("configurationError".into(), json!(*self.stale.now()));
        }
        Response::json(status, &Value::Object(body))
    }

    /// All numbers, for loopback and the configured monitors; to others there is no such path.
    pub(super) fn metrics(&self, request: &Request) -> Result<Response, Refusal> {
        if self.shows_metrics_to(request) {
            Ok(self.numbers())
        } else {
            Err(Refusal::NotFound)
        }
    }

    /// All numbers, for whoever reaches the address that serves nothing else.
    pub(super) fn metrics_alone(&self, request: &Request) -> Result<Response, Refusal> {
        match endpoint(request)? {
            Endpoint::Metrics => Ok(self.numbers()),
            Endpoint::Health | Endpoint::Interactions | Endpoint::Events => Err(Refusal::NotFound),
        }
    }

    pub(super) fn shows_metrics_to(&self, request: &Request) -> bool {
        self.metrics == MetricsPlace::Main && self.is_near(request)
    }

    fn numbers(&self) -> Response {
        let gauge = |name, help, value: usize| Gauge {
            name,
            help,
            value: value as u64,
        };
        let census = self.effects.store().census();
        let mut gauges = vec![
            gauge(
                "runbook_store_readable",
                "Whether the approvals could be counted just now.",
                usize::from(census.is_ok()),
            ),
            gauge(
                "runbook_config_last_reload_successful",
                "Whether the configuration that holds is the one that was last read.",
                usize::from(self.stale.now().is_none()),
            ),
        ];
        // What cannot be counted, or not yet, is left out, and the rest is told all the more: a number that is too
        // small would be a trough that never was.
        if let Some(census) = census.ok().filter(|census| !census.counting) {
            gauges.extend([
                gauge(
                    "runbook_pending_approvals",
                    "Approvals that wait for a decision.",
                    census.pending,
                ),
                gauge(
                    "runbook_unreadable_files",
                    "Files that should be approvals and cannot be read.",
                    census.unreadable,
                ),
                gauge(
                    "runbook_effects_owed",
                    "Approvals that owe effects.",
                    census.owing,
                ),
            ]);
        }
        if let Some(ends) = self.tls.as_ref().and_then(|tls| tls.ends()) {
            gauges.push(Gauge {
                name: "runbook_certificate_not_after_timestamp_seconds",
                help: "When the certificate that is served ends, in seconds since 1970.",
                value: ends.unix(),
            });
        }
        let content_type = "text/plain; version=0.0.4; charset=utf-8".to_owned();
        Response {
            status: 200,
            headers: vec![("Content-Type", content_type)],
            body: metrics::exposition(&gauges).into_bytes(),
        }
    }

    pub(super) fn is_near(&self, request: &Request) -> bool {
        let peer = request.peer;
        let loopback = peer.to_canonical().is_loopback();
        (loopback && !is_forwarded(request))
            || self
                .access
                .now()
                .monitors
                .iter()
                .any(|network| network.contains(peer))
    }
}

fn wants_details(request: &Request) -> bool {
    let query = request
        .target
        .split_once('?')
        .map_or("", |(_, query)| query);
    query
        .split('&')
        .any(|part| part == "verbose" || part.starts_with("verbose="))
}
