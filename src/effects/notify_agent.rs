//! The effect `notifyAgent`: the decided approval is posted to the agent's `callbackUrl`, signed as
//! Slack signs: `X-Runbook-Signature: v0=` + hex HMAC-SHA256 of `v0:{timestamp}:{body}`.

use serde_json::Value;

use crate::approval::Approval;
use crate::clock;
use crate::outgoing::{Body, CALL, CallError, Caller, Url};
use crate::slack::signature::SigningSecret;

/// How agents are called back.
#[derive(Clone, Debug)]
pub struct Callbacks {
    pub caller: Caller,
    /// What callbacks are signed with; without it none is sent.
    pub secret: Option<SigningSecret>,
}

/// Fields that are no business of the agent's: a `response_url` in them would let it speak for us.
const OURS: [&str; 3] = ["effectsOwed", "effectsFailed", "auditOwed"];

/// Tells the agent. 2xx means that it knows.
///
/// # Errors
/// `Refused` only when the URL is none; an agent that is away or unwell may come back.
pub(super) fn call(callbacks: &Callbacks, approval: &Approval) -> Result<(), CallError> {
    let url = approval.text("callbackUrl").and_then(Url::parse);
    let url = url.ok_or_else(|| {
        CallError::Refused("callbackUrl is no http or https URL, or has a user in it".into())
    })?;
    let secret = callbacks.secret.as_ref().ok_or_else(|| {
        CallError::Failed("RUNBOOK_CALLBACK_SECRET is not set, so nothing can be signed".into())
    })?;
    let fields = approval.fields().iter();
    let fields = fields.filter(|(key, _)| !OURS.contains(&key.as_str()));
    let body = fields
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<Value>()
        .to_string();
    let timestamp = clock::now().unix().to_string();
    let signature = secret.sign(&timestamp, body.as_bytes());
    let headers = [
        ("X-Runbook-Request-Timestamp", &*timestamp),
        ("X-Runbook-Signature", &*signature),
    ];
    let body = Body::Json(body);
    let reply = callbacks.caller.post(url.as_str(), &headers, body, CALL)?;
    match reply.status {
        200..=299 => Ok(()),
        status => Err(CallError::Failed(format!("HTTP status {status}"))),
    }
}
