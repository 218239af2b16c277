//! Log lines on standard error, as text for people or JSON for machines.
//!
//! A record's key-value pairs are its details. As text, a detail is an indented line:
//! `approvalId` becomes `  Approval ID: apr-abc123`; the key `note` stands without a label.

use std::fmt::Write as _;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::OnceLock;

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};

use crate::clock;
use crate::complaint::{Complaint, Printable, PrintableJson};

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl FromStr for Format {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// Bytes that most lines fit into.
const USUAL: usize = 128;

/// How the log of this process is written, once it has one.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Starts logging for the life of the process. Libraries are heard from `warn` on only: what
/// they say below that may quote headers.
pub fn start(level: LevelFilter, format: Format) {
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("runbook", level);
    builder.format(move |out, record| {
        let line = match format {
            Format::Text => text(record),
            Format::Json => json(record),
        };
        out.write_all(line.as_bytes())
    });
    let _ = FORMAT.set(format);
    // A second start in one process would be a bug; the first one stays.
    let _ = builder.try_init();
}

/// Tells an error that ends the process: as people read it, or where the log is JSON, as one more line
/// of it, so that whatever collects the log can read all of standard error.
pub fn complain(complaint: &Complaint) {
    if FORMAT.get() != Some(&Format::Json) {
        // Where nothing can be written nobody can be told.
        let _ = writeln!(std::io::stderr(), "{complaint}");
        return;
    }
    match complaint.help() {
        Some(hint) => log::error!(hint; "{}", complaint.what()),
        None => log::error!("{}", complaint.what()),
    }
}

/// Tells of something that keeps the command from nothing, in the form that [`complain`] takes.
pub fn warn(what: &str) {
    if FORMAT.get() == Some(&Format::Json) {
        log::warn!("{what}");
    } else {
        // Whoever wants the result may not want to hear of the rest.
        let _ = writeln!(std::io::stderr(), "runbook: warning: {}", Printable(what));
    }
}

/// `[15:30:45] Approval granted by @alice`, or `[ERROR] …` with the time as a detail.
fn text(record: &Record) -> String {
    let now = clock::now();
    let prefix = match record.level() {
        Level::Info => now.time_of_day(),
        level => level.to_string(),
    };
    let mut lines = String::with_capacity(USUAL);
    // A string takes whatever is written.
    let _ = writeln!(lines, "[{prefix}] {}", Printable(&message(record)));
    details(record, |key, value| {
        let _ = match key {
            "note" => writeln!(lines, "  {}", Printable(&value)),
            _ => writeln!(lines, "  {}: {}", label(key), Printable(&value)),
        };
    });
    if record.level() != Level::Info {
        let _ = writeln!(lines, "  Time: {}", now.for_people());
    }
    lines
}

/// `{"ts":…,"level":…,"msg":…}` with the details as fields.
fn json(record: &Record) -> String {
    let mut object = serde_json::Map::new();
    object.insert("ts".into(), clock::now().to_string().into());
    object.insert(
        "level".into(),
        record.level().as_str().to_lowercase().into(),
    );
    object.insert("msg".into(), message(record).into());
    details(record, |key, value| {
        object.insert(key.to_owned(), value.into());
    });
    let line = serde_json::Value::Object(object).to_string();
    format!("{}\n", PrintableJson(&line))
}

fn message(record: &Record) -> String {
    let mut message = String::with_capacity(USUAL);
    let _ = message.write_fmt(*record.args());
    message
}

/// Shows each detail, in order.
fn details(record: &Record, show: impl FnMut(&str, String)) {
    struct Details<F>(F);
    impl<'kvs, F: FnMut(&str, String)> VisitSource<'kvs> for Details<F> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            (self.0)(key.as_str(), value.to_string());
            Ok(())
        }
    }
    // The visitor above has no error to give.
    let _ = record.key_values().visit(&mut Details(show));
}

/// `approvalId` → `Approval ID`.
fn label(key: &str) -> String {
    let mut words = String::new();
    for (index, c) in key.chars().enumerate() {
        if index == 0 {
            words.extend(c.to_uppercase());
        } else if c.is_uppercase() {
            words.extend([' ', c]);
        } else {
            words.push(c);
        }
    }
    match words.strip_suffix(" Id") {
        Some(head) => head.to_owned() + " ID",
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_record(level: Level, then: impl Fn(&Record) -> String) -> String {
        let pairs = [
            ("approvalId", "apr-1\n[ERROR] forged"),
            ("note", "Notifying agent..."),
        ];
        then(
            &Record::builder()
                .level(level)
                .args(format_args!("Approval granted by @{}", "al\u{1b}ice"))
                .key_values(&pairs)
                .build(),
        )
    }

    #[test]
    fn text_looks_like_the_documented_lines_and_cannot_be_forged() {
        let line = with_record(Level::Info, text);
        let (time, rest) = line.split_at(11);
        assert!(time.starts_with('[') && time.ends_with("] "), "{line}");
        assert_eq!(
            rest,
            "Approval granted by @al\\u{1b}ice\n  Approval ID: apr-1\\n[ERROR] forged\n  Notifying agent...\n"
        );
        assert!(with_record(Level::Error, text).starts_with("[ERROR] Approval"));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = with_record(Level::Warn, json);
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "warn");
        assert_eq!(object["approvalId"], "apr-1\n[ERROR] forged");
    }
}
