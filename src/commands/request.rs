//! `runbook request`: asks, and with `--wait` waits for the answer.

use std::io::Read;

use serde_json::{Map, Value};

use super::desk::{Office, asking, outcome, parse_id};
use super::signals::Stop;
use super::wait::{Form, pending, tell, wait};
use super::{print, terminal, withdraw};
use crate::approval::{Approval, ApprovalId, Status, parse_object};
use crate::cli::Parsed;
use crate::client::{self, Asked, Desk, Origin, Posting, Waited};
use crate::clock;
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, ClientSettings, Environment, text};
use crate::outgoing::Url;
use crate::slack::message::Message;

/// The largest request that standard input may hold, in bytes.
const LARGEST: u64 = 1 << 20;

/// Options that are text fields of the document.
const TEXTS: [(&str, &str); 9] = [
    ("--operation", "operation"),
    ("--description", "description"),
    ("--rollback", "rollbackCommand"),
    ("--requested-by", "requestedBy"),
    ("--investigation", "investigationId"),
    ("--resource", "resource"),
    ("--impact", "estimatedImpact"),
    ("--channel", "slackChannel"),
    ("--risk", "riskLevel"),
];

/// Asks, prints the id or the document, and waits if it is told to.
///
/// # Errors
/// The request is none, Slack does not show it, or it cannot be kept.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let mut fields = if parsed.flag("--stdin") {
        from_standard_input()?
    } else {
        Map::new()
    };
    let settings = asking(parsed, environment)?;
    let approval = compose(parsed, &settings, &mut fields)?;
    let office = Office::to_ask(settings)?;
    let (form, waits) = (Form::of(parsed), parsed.flag("--wait"));
    let stop = waits.then(Stop::listen).transpose()?;
    let desk = Desk {
        stop: stop.as_ref().map(Stop::fd),
        ..office.desk()
    };
    let Asked {
        approval: asked,
        origin,
    } = ask(parsed, &office, &desk, approval)?;
    match (form, waits) {
        (Form::Line, _) => print(&format!("{}\n", asked.id()))?,
        (Form::Json, false) => print(&terminal::json(&asked))?,
        (Form::Json, true) => {}
    }
    if !waits {
        // Whoever attaches to a request learns here that it is over already.
        if form == Form::Line && asked.status() != Status::Pending {
            log::info!(approvalId:% = asked.id(); "The request is {} already", outcome(&asked));
        }
        return Ok(Exit::Done);
    }
    match wait(&office, &desk, asked.id(), None)? {
        Waited::Decided(approval) => Ok(tell(&desk, &approval, form)),
        Waited::TimedOut(_) | Waited::Stopped => match origin {
            Origin::New => Ok(tell(&desk, &withdraw(&office, asked.id())?, form)),
            // Others may wait for it.
            Origin::Attached => {
                print(&pending(&asked, form))?;
                Ok(Exit::Failure)
            }
        },
    }
}

/// Asks for what was composed, in the way that the policy and the options want.
///
/// # Errors
/// Slack does not show it, or it cannot be kept.
pub(super) fn ask(
    parsed: &Parsed,
    office: &Office,
    desk: &Desk<'_>,
    approval: Approval,
) -> Result<Asked, Complaint> {
    let needs_a_human = office.settings.require_approval.contains(&approval.risk());
    let posting = match (needs_a_human, parsed.flag("--no-post")) {
        (false, _) => Posting::Never,
        (true, true) => Posting::Later,
        (true, false) => Posting::Now,
    };
    client::ask(desk, approval, posting).map_err(|error| office.complain(&error))
}

/// The request that the options describe, on top of `fields`.
///
/// # Errors
/// A usage complaint that names the option or the field.
pub(super) fn compose(
    parsed: &Parsed,
    settings: &ClientSettings,
    fields: &mut Map<String, Value>,
) -> Result<Approval, Complaint> {
    for (option, key) in TEXTS {
        if let Some(value) = text(parsed, option)? {
            fields.insert(key.into(), value.into());
        }
    }
    if !fields.contains_key("operation") {
        return Err(Complaint::usage(
            "--operation is missing: it says what is to happen",
        ));
    }
    arguments(parsed, fields)?;
    let id = identify(parsed, fields)?;
    fields.entry("riskLevel").or_insert_with(|| "high".into());
    fields
        .entry("requestedBy")
        .or_insert_with(|| config::station().user.into());
    if let Some(url) = text(parsed, "--callback-url")? {
        fields.insert("callbackUrl".into(), url.into());
    }
    if let Some(url) = fields.get("callbackUrl").and_then(Value::as_str)
        && Url::parse(url).is_none()
    {
        return Err(Complaint::usage(
            "the callback URL is no http or https URL, or has a user in it",
        ));
    }
    let now = clock::now();
    let given = config::length(parsed, "--timeout")?;
    if given.is_some() {
        fields.shift_remove("expiresAt");
    }
    let timeout = given.unwrap_or(settings.terms.timeout);
    let expiry = (now + timeout).rounded_up();
    let asked = std::mem::take(fields);
    let approval = Approval::ask(&id, asked, now, Some(expiry))
        .map_err(|damage| Complaint::usage(format!("this is no request: {damage}")))?;
    if approval.is_over(now) {
        return Err(Complaint::usage(
            "this is no request: its expiresAt is over",
        ));
    }
    if !Message::has_room_for_command(&approval) {
        return Err(
            Complaint::usage("the command is too long to be shown whole in Slack")
                .hint("put it into a script"),
        );
    }
    Ok(approval)
}

/// The id that is given, in either place, or a new one.
fn identify(parsed: &Parsed, fields: &mut Map<String, Value>) -> Result<ApprovalId, Complaint> {
    let option = text(parsed, "--id")?;
    let field = match fields.shift_remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err(Complaint::usage("this is no request: id is not text")),
    };
    match (option, field) {
        (Some(option), Some(field)) if option != field => Err(Complaint::usage(format!(
            "--id {option} is not the request's own id, {field}"
        ))),
        (Some(id), _) | (None, Some(id)) => parse_id(&id),
        (None, None) => client::fresh_id().map_err(|error| Complaint::failure(error.to_string())),
    }
}

/// `--args` and `--arg` as the document's `args`.
fn arguments(parsed: &Parsed, fields: &mut Map<String, Value>) -> Result<(), Complaint> {
    if let Some(json) = text(parsed, "--args")? {
        let args = parse_object(json.as_bytes())
            .map_err(|damage| Complaint::usage(format!("--args: {damage}")))?;
        fields.insert("args".into(), Value::Object(args));
    }
    let mut given = Map::new();
    for pair in parsed.values("--arg") {
        let pair = pair
            .to_str()
            .ok_or_else(|| Complaint::usage("the value of --arg is not UTF-8"))?;
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Complaint::usage(format!("--arg {pair} is not NAME=VALUE")))?;
        let json = argument(name, value)?;
        if given.insert(name.to_owned(), json).is_some() {
            return Err(Complaint::usage(format!("--arg {name} is given twice")));
        }
    }
    if given.is_empty() {
        return Ok(());
    }
    match fields.entry("args").or_insert_with(|| Map::new().into()) {
        Value::Object(args) => args.extend(given),
        _ => return Err(Complaint::usage("this is no request: args is no object")),
    }
    Ok(())
}

/// The value of an argument: JSON, or else text. A number that JSON would write in another way, such
/// as the hash `12e4567`, is text.
fn argument(name: &str, value: &str) -> Result<Value, Complaint> {
    let Ok(json) = serde_json::from_str::<Value>(value) else {
        return Ok(value.into());
    };
    if let Value::Number(number) = &json
        && number.as_str() != value.trim()
    {
        return Ok(value.into());
    }
    // Read again as a document is: no key twice, at whatever depth.
    parse_object(format!("{{\"value\":{value}}}").as_bytes())
        .map_err(|damage| Complaint::usage(format!("--arg {name}: {damage}")))?;
    Ok(json)
}

fn from_standard_input() -> Result<Map<String, Value>, Complaint> {
    let mut bytes = Vec::new();
    let cannot = |why: &str| Complaint::usage(format!("standard input is no request: {why}"));
    std::io::stdin()
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot(&reason(&error)))?;
    if bytes.len() as u64 > LARGEST {
        return Err(cannot("it is larger than 1 MiB"));
    }
    parse_object(&bytes).map_err(|damage| cannot(&damage.to_string()))
}
