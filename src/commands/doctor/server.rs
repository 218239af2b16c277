//! What the world sees of the server: its certificate, its port, its public address.

use serde_json::json;

use super::super::health;
use super::super::listener::try_bind;
use super::Check;
use crate::certificate::{days_until, names, validity};
use crate::clock;
use crate::complaint::counted;
use crate::config::Diagnosis;
use crate::outgoing::{Body, CALL};
use crate::probe::{Trust, examine};
use crate::random;
use crate::webhook::tls::chain;

const PAIR: &str = "tls pair";
const NAMES: &str = "tls names";
const CHAIN: &str = "tls chain";
const EXPIRY: &str = "tls expiry";
const PORT: &str = "port";
const METRICS: &str = "metrics address";
const PUBLIC: &str = "public url";
/// Days that a certificate should hold yet. Let's Encrypt renews 30 days ahead.
const SOON: i64 = 14;

pub(super) fn tls(diagnosis: &Diagnosis) -> Vec<Check> {
    let paths = match &diagnosis.tls {
        Ok(Some(paths)) => paths,
        Ok(None) => {
            let what = "none is given, so a proxy or a tunnel must speak HTTPS for the server";
            return vec![Check::good("tls", what)];
        }
        Err(complaint) => return vec![Check::complain(PAIR, complaint)],
    };
    let chain = match chain(paths) {
        Ok(chain) => chain,
        Err(complaint) => return vec![Check::complain(PAIR, &complaint)],
    };
    let mut checks = vec![Check::good(PAIR, "certificate and key belong together")];
    let Some(first) = chain.first() else {
        return checks;
    };
    let listed = match names(first) {
        names if names.is_empty() => "no name".to_owned(),
        names => names.join(", "),
    };
    let signed = examine(&chain, &Trust::Signed(diagnosis.given.clone()));
    let (expiry, expired) = expiry(first);
    checks.push(match &diagnosis.public_name {
        None => Check::good(NAMES, listed),
        // A chain that does not hold, or is over, is told below; pinned, only the name is looked at.
        Some(name) => match examine(&chain, &Trust::Named(name.clone(), chain.clone())) {
            Err(why) if !expired => Check::bad(NAMES, format!("{why}; it is for {listed}"))
                .hint("get one for the host of webhook.publicUrl"),
            _ => Check::good(NAMES, listed),
        },
    });
    checks.push(match signed {
        Ok(()) => Check::good(CHAIN, "it leads to a root that is trusted"),
        Err(_) if expired => Check::unseen(CHAIN, "the certificate is not valid now"),
        Err(why) => Check::bad(CHAIN, why).hint(
            "Slack takes public certificates only; the file must hold the intermediates, too (fullchain.pem)",
        ),
    });
    checks.push(expiry);
    checks
}

/// When it ends, and whether it is of no use now.
fn expiry(certificate: &[u8]) -> (Check, bool) {
    let hint = "renew it; a running server takes in the new file by itself";
    let now = clock::now();
    let Some((starts, ends)) = validity(certificate) else {
        return (Check::unseen(EXPIRY, "its validity cannot be read"), false);
    };
    let days = days_until(ends, now);
    let when = ends.for_people();
    if starts > now {
        let what = format!("it is not valid before {}", starts.for_people());
        (
            Check::bad(EXPIRY, what).hint("set the clock, or wait"),
            true,
        )
    } else if ends <= now {
        (
            Check::bad(EXPIRY, format!("it expired at {when}")).hint(hint),
            true,
        )
    } else if days < SOON {
        let what = format!("it ends in {}, at {when}", counted(&days, "day"));
        (Check::notable(EXPIRY, what).hint(hint), false)
    } else {
        (
            Check::good(EXPIRY, format!("in {days} days, at {when}")),
            false,
        )
    }
}

/// Whether a server of ours has the port already.
pub(super) fn serves(diagnosis: &Diagnosis) -> bool {
    let host = match &*diagnosis.host {
        "0.0.0.0" | "::" | "[::]" => "127.0.0.1",
        host => host,
    };
    diagnosis.port != 0 && health::is_served(&health::of_port(diagnosis.port, host))
}

pub(super) fn ports(diagnosis: &Diagnosis, serves: bool) -> Vec<Check> {
    let (host, port) = (&*diagnosis.host, diagnosis.port);
    let mut checks = vec![match try_bind("--host", host, port, diagnosis.reuse_port) {
        _ if serves => Check::good(PORT, format!("{port} is served by a running runbook")),
        Ok(()) if port == 0 => Check::good(PORT, "any free one is taken"),
        Ok(()) => Check::good(PORT, format!("{port} is free, and can be listened on")),
        Err(complaint) => Check::complain(PORT, &complaint),
    }];
    // The one that runs may be what has it.
    if let Some((host, port)) = diagnosis.metrics.as_ref().filter(|_| !serves) {
        checks.push(match try_bind("--metrics-addr", host, *port, false) {
            Ok(()) => Check::good(METRICS, format!("{port} is free, and can be listened on")),
            Err(complaint) => Check::complain(METRICS, &complaint),
        });
    }
    checks
}

/// Plays Slack's own question to a Request URL. Where no server runs yet, nobody answers.
pub(super) fn public_url(diagnosis: &Diagnosis, serves: bool) -> Check {
    let Some(url) = &diagnosis.public_url else {
        return Check::unseen(PUBLIC, "webhook.publicUrl is not configured");
    };
    let Some(secret) = diagnosis.secrets.as_ref().ok().and_then(|all| all.first()) else {
        return Check::unseen(PUBLIC, "there is no signing secret to ask with");
    };
    let Ok(challenge) = random::letters(20) else {
        return Check::unseen(PUBLIC, "cannot get random bytes");
    };
    let body = json!({ "type": "url_verification", "challenge": challenge }).to_string();
    let timestamp = clock::now().unix().to_string();
    let signature = secret.sign(&timestamp, body.as_bytes());
    let headers = [
        ("X-Slack-Request-Timestamp", &*timestamp),
        ("X-Slack-Signature", &*signature),
    ];
    let address = format!("{url}/slack/events");
    let caller = &diagnosis.caller;
    let answer = caller.post(&address, &headers, Body::Json(body), CALL);
    let too_early = |what: String| {
        Check::notable(PUBLIC, format!("{what}; no server runs here yet"))
            .hint("start it, and look again")
    };
    match answer.map(|reply| (reply.status, reply.body)) {
        Ok((200, body)) if String::from_utf8_lossy(&body).contains(&challenge) => {
            if url.starts_with("https://") {
                Check::good(PUBLIC, format!("{address} answers the challenge"))
            } else {
                let what = format!("{address} answers the challenge, but not over HTTPS");
                Check::notable(PUBLIC, what).hint("Slack calls https only")
            }
        }
        Ok((401, _)) => Check::bad(PUBLIC, format!("{address} refuses our signature"))
            .hint("the server there has another signing secret, or its clock is off"),
        Ok((status, _)) => {
            let what =
                format!("{address} answers with HTTP status {status}, and not the challenge");
            // What a proxy says of a server that it does not reach.
            if !serves && (502..=504).contains(&status) {
                return too_early(what);
            }
            Check::bad(PUBLIC, what).hint("the proxy must pass /slack/… on to the server as it is")
        }
        Err(error) if !serves => too_early(format!("{address}: {error}")),
        Err(error) => Check::bad(PUBLIC, format!("{address}: {error}"))
            .hint("its name, proxy and certificate must lead to the server, which runs"),
    }
}
