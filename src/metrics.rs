//! What happened so far, as numbers for Prometheus. Like the log, they are the process's own:
//! whoever sees something happen counts it, and one place shows all.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::live::hold;

/// A counter, by its name and its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Clicks and events that Slack signed, by what they ask for.
    Requests { action: &'static str },
    /// Requests whose signature does not hold.
    SignatureFailures,
    /// Approvals that became final.
    Decisions { status: &'static str },
    /// Attempts at effects.
    Effects {
        effect: &'static str,
        result: &'static str,
    },
    /// Calls to Slack.
    SlackCalls {
        method: &'static str,
        result: &'static str,
    },
}

/// A value as of now.
#[derive(Debug)]
pub struct Gauge {
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

/// Upper bounds of the histogram of acknowledgements, in seconds. Slack waits for 3.
const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0];

/// What stands at 0 before it has happened, so that the first time is seen as a step.
const EXPECTED: [Counter; 12] = [
    Counter::Requests { action: "approve" },
    Counter::Requests { action: "deny" },
    Counter::SignatureFailures,
    Counter::Decisions { status: "approved" },
    Counter::Decisions { status: "denied" },
    Counter::Decisions { status: "expired" },
    Counter::Decisions {
        status: "cancelled",
    },
    given_up("postMessage"),
    given_up("updateMessage"),
    given_up("retireMessage"),
    given_up("remind"),
    given_up("notifyAgent"),
];

/// An effect that will never be: an alert looks for its first time.
const fn given_up(effect: &'static str) -> Counter {
    Counter::Effects {
        effect,
        result: "failed",
    }
}

static STATE: Mutex<State> = Mutex::new(State {
    counters: BTreeMap::new(),
    acknowledged: [0; 11],
    seconds: 0.0,
});

struct State {
    counters: BTreeMap<Counter, u64>,
    /// How many acknowledgements fell below each bound and above the one before; the last is above
    /// all of them.
    acknowledged: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

/// Counts one.
pub fn count(counter: Counter) {
    *state().counters.entry(counter).or_default() += 1;
}

/// Notes how long Slack waited for an answer, from the first byte of its request.
pub fn acknowledged(after: Duration) {
    let seconds = after.as_secs_f64();
    let bucket = BOUNDS
        .iter()
        .position(|bound| seconds <= *bound)
        .unwrap_or(BOUNDS.len());
    let mut state = state();
    state.acknowledged[bucket] += 1;
    state.seconds += seconds;
}

/// All numbers in Prometheus' text format.
pub fn exposition(gauges: &[Gauge]) -> String {
    let mut text = String::new();
    let state = state();
    let mut family = "";
    let mut counters: BTreeMap<Counter, u64> = EXPECTED.iter().map(|known| (*known, 0)).collect();
    counters.extend(&state.counters);
    for (counter, value) in &counters {
        let (name, help, labels) = counter.describe();
        if name != family {
            header(&mut text, name, help, "counter");
            family = name;
        }
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(text, "{name}{labels} {value}");
    }
    let name = "runbook_acknowledgement_seconds";
    header(
        &mut text,
        name,
        "Time that Slack waited for an answer.",
        "histogram",
    );
    let mut total = 0;
    for (bound, fell) in BOUNDS
        .iter()
        .map(ToString::to_string)
        .chain(["+Inf".into()])
        .zip(state.acknowledged)
    {
        total += fell;
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(text, "{name}_sum {}\n{name}_count {total}", state.seconds);
    for Gauge { name, help, value } in gauges {
        header(&mut text, name, help, "gauge");
        let _ = writeln!(text, "{name} {value}");
    }
    header(
        &mut text,
        "runbook_build_info",
        "The version that runs.",
        "gauge",
    );
    let _ = writeln!(
        text,
        "runbook_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    text
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn state() -> MutexGuard<'static, State> {
    hold(&STATE)
}

impl Counter {
    /// Name, help, and labels with their values.
    fn describe(
        self,
    ) -> (
        &'static str,
        &'static str,
        Vec<(&'static str, &'static str)>,
    ) {
        match self {
            Self::Requests { action } => (
                "runbook_webhook_requests_total",
                "Requests that Slack signed, by what they ask for.",
                vec![("action", action)],
            ),
            Self::SignatureFailures => (
                "runbook_signature_failures_total",
                "Requests whose signature does not hold.",
                Vec::new(),
            ),
            Self::Decisions { status } => (
                "runbook_decisions_total",
                "Approvals that became final.",
                vec![("status", status)],
            ),
            Self::Effects { effect, result } => (
                "runbook_effects_total",
                "Attempts at what a decision owes.",
                vec![("effect", effect), ("result", result)],
            ),
            Self::SlackCalls { method, result } => (
                "runbook_slack_calls_total",
                "Calls to Slack.",
                vec![("method", method), ("result", result)],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_described_once_and_its_buckets_add_up() {
        for action in ["approve", "deny", "approve"] {
            count(Counter::Requests { action });
        }
        for millis in [1, 2, 700, 9000] {
            acknowledged(Duration::from_millis(millis));
        }
        let gauge = Gauge {
            name: "runbook_pending_approvals",
            help: "Pending.",
            value: 2,
        };
        let text = exposition(&[gauge]);
        for line in [
            "# TYPE runbook_webhook_requests_total counter",
            "runbook_webhook_requests_total{action=\"approve\"} 2",
            "runbook_webhook_requests_total{action=\"deny\"} 1",
            "runbook_acknowledgement_seconds_bucket{le=\"0.001\"} 1",
            "runbook_acknowledgement_seconds_bucket{le=\"1\"} 3",
            "runbook_acknowledgement_seconds_bucket{le=\"+Inf\"} 4",
            "runbook_acknowledgement_seconds_count 4",
            "runbook_pending_approvals 2",
        ] {
            assert_eq!(
                text.lines().filter(|other| *other == line).count(),
                1,
                "{line}\n{text}"
            );
        }
    }
}
