//! `runbook health`: one question to a running server, one line, 0 or 1. Made for cron, so whatever may
//! answer, or not, in the server's place is told in that line.

use serde_json::{Map, Value, json};

use super::print;
use super::wait::Form;
use crate::certificate::days_until;
use crate::cli::Parsed;
use crate::clock;
use crate::complaint::{Complaint, Exit, Printable, PrintableJson, counted};
use crate::config::{self, Environment, HealthSettings, Place};
use crate::probe::{self, Answer, Question, Trust};
use crate::webhook::SPEAKS_TLS;

/// Asks and tells.
///
/// # Errors
/// The options or the configuration are wrong; a server that is not well is no error of this.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let settings = config::health(parsed, environment)?;
    let seen = look(&settings);
    let well = seen.reasons.is_empty();
    if !(well && parsed.flag("--quiet")) {
        print(&match Form::of(parsed) {
            Form::Line => format!("{}\n", Printable(&seen.line())),
            Form::Json => format!("{}\n", PrintableJson(&seen.json().to_string())),
        })?;
    }
    Ok(if well { Exit::Done } else { Exit::Failure })
}

/// What was found out.
struct Seen {
    url: String,
    /// Why it is not well.
    reasons: Vec<String>,
    /// What the server said, if that was ours.
    said: Map<String, Value>,
    certificate_days: Option<i64>,
}

impl Seen {
    fn line(&self) -> String {
        if !self.reasons.is_empty() {
            return format!("unhealthy: {}: {}", self.url, self.reasons.join("; "));
        }
        let pending = self.said.get("pendingApprovals").and_then(Value::as_u64);
        let pending = counted(&pending.unwrap_or(0), "approval");
        let days = self.certificate_days;
        let days = days.map(|days| format!(", certificate ends in {}", counted(&days, "day")));
        format!("healthy: {pending} pending{}", days.unwrap_or_default())
    }

    fn json(&self) -> Value {
        let mut object = self.said.clone();
        let well = self.reasons.is_empty();
        let word = if well { "healthy" } else { "unhealthy" };
        object.insert("status".into(), word.into());
        object.insert("url".into(), self.url.clone().into());
        object.insert("certificateDays".into(), json!(self.certificate_days));
        object.insert("reasons".into(), json!(self.reasons));
        Value::Object(object)
    }
}

/// Asks, by HTTPS if that is what is spoken there.
fn look(settings: &HealthSettings) -> Seen {
    let started = clock::tick();
    let (question, may_turn) = question(settings);
    let mut url = shown(&question);
    let mut answer = probe::ask(&question, settings.timeout);
    if may_turn && answer.as_ref().is_ok_and(speaks_tls) {
        let question = Question {
            tls: Some(settings.trust.clone()),
            ..question
        };
        url = shown(&question);
        let left = settings
            .timeout
            .saturating_sub(clock::tick().duration_since(started));
        answer = probe::ask(&question, left);
    }
    let mut seen = Seen {
        url,
        reasons: Vec::new(),
        said: Map::new(),
        certificate_days: None,
    };
    match answer {
        Ok(answer) => judge(settings, &answer, &mut seen),
        Err(why) => seen.reasons.push(why),
    }
    seen
}

/// What to ask, and whether HTTPS may be what is spoken there although nobody said so.
fn question(settings: &HealthSettings) -> (Question, bool) {
    let trust = || Some(settings.trust.clone());
    match &settings.place {
        Place::Url(url) => {
            let target = match url.target() {
                "/" => "/health?verbose".to_owned(),
                target if target.contains('?') => target.to_owned(),
                target => format!("{target}?verbose"),
            };
            let question = Question {
                host: url.host().to_owned(),
                port: url.port(),
                target,
                tls: url.is_https().then(trust).flatten(),
            };
            (question, false)
        }
        Place::Here { host, port } => {
            let question = Question {
                host: if host.contains(':') && !host.starts_with('[') {
                    format!("[{host}]")
                } else {
                    host.clone()
                },
                port: *port,
                target: "/health?verbose".into(),
                tls: (*port == 443).then(trust).flatten(),
            };
            let plain = question.tls.is_none();
            (question, plain)
        }
    }
}

fn shown(question: &Question) -> String {
    let Question {
        host, port, target, ..
    } = question;
    let scheme = if question.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let target = target.trim_end_matches("?verbose");
    format!("{scheme}://{host}:{port}{target}")
}

fn speaks_tls(answer: &Answer) -> bool {
    let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
    answer.status == 400 && said.is_some_and(|said| said["error"] == SPEAKS_TLS)
}

/// Whether an answer is ours, and says that all is well enough.
fn judge(settings: &HealthSettings, answer: &Answer, seen: &mut Seen) {
    let status = answer.status;
    let said: Option<Map<String, Value>> = serde_json::from_slice(&answer.body).ok();
    // Many programs have a /health.
    let said = said.filter(|said| match said.get("status").and_then(Value::as_str) {
        Some("healthy") => said.get("pendingApprovals").is_some_and(Value::is_u64),
        Some("unhealthy") => true,
        _ => false,
    });
    match (status, said) {
        (300..=399, _) => {
            let to = answer.location.as_deref().unwrap_or("nowhere");
            seen.reasons.push(format!(
                "HTTP status {status} leads to {to}, and is not followed"
            ));
            return;
        }
        (200 | 503, Some(said)) => seen.said = said,
        (200, None) => {
            let what = "something answers that is no runbook; another program may have the port";
            seen.reasons.push(what.into());
            return;
        }
        (404, _) => {
            let what = "HTTP status 404: there is no such path; another program may have the port";
            seen.reasons.push(what.into());
            return;
        }
        _ => {
            seen.reasons.push(format!("HTTP status {status}"));
            return;
        }
    }
    if status != 200 || seen.said["status"] != "healthy" {
        let told = seen.said.get("reasons").and_then(Value::as_array);
        let told = told.into_iter().flatten().filter_map(Value::as_str);
        seen.reasons.extend(told.map(str::to_owned));
        if seen.reasons.is_empty() {
            seen.reasons.push(format!("HTTP status {status}"));
        }
    }
    let told = seen.said.get("certificateDays").and_then(Value::as_i64);
    let served = answer.certificate_ends;
    let served = served.map(|ends| days_until(ends, clock::now()));
    seen.certificate_days = [told, served].into_iter().flatten().min();
    let pending = seen.said.get("pendingApprovals").and_then(Value::as_u64);
    match (settings.max_pending, pending) {
        (Some(most), Some(pending)) if pending > most => seen.reasons.push(format!(
            "{} pending, more than {most}",
            counted(&pending, "approval")
        )),
        (Some(_), None) if status == 200 => seen
            .reasons
            .push("it does not say how many approvals are pending".into()),
        _ => {}
    }
    match (settings.cert_days, seen.certificate_days) {
        (Some(least), Some(days)) if days < least => seen.reasons.push(format!(
            "the certificate ends in {}, less than {least}",
            counted(&days, "day")
        )),
        // What was to be watched and cannot be seen must not pass for well.
        (Some(_), None) => seen.reasons.push(
            "no certificate is seen there for --cert-days; --url https://… asks where it is".into(),
        ),
        _ => {}
    }
}

/// Whether a server of ours answers there, well or not.
pub(super) fn is_served(settings: &HealthSettings) -> bool {
    !look(settings).said.is_empty()
}

/// The settings of one question of our own.
pub(super) fn of_port(port: u16, host: &str) -> HealthSettings {
    HealthSettings {
        place: Place::Here {
            host: host.to_owned(),
            port,
        },
        timeout: std::time::Duration::from_secs(3),
        trust: Trust::Anybody,
        max_pending: None,
        cert_days: None,
    }
}
