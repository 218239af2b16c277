//! What `runbook health` needs to know. It runs where the server's secrets are not, so nothing else of
//! the configuration is looked at.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use super::environment::Environment;
use super::file::ConfigFile;
use super::sources::{Sources, find_file, text};
use super::webhook::public_url;
use crate::cli::Parsed;
use crate::complaint::{Complaint, cannot_read};
use crate::outgoing::Url;
use crate::probe::Trust;

/// Whom to ask, and what counts as well.
#[derive(Debug)]
pub struct HealthSettings {
    pub place: Place,
    pub timeout: Duration,
    pub trust: Trust,
    /// More pending approvals than this are too many.
    pub max_pending: Option<u64>,
    /// The certificate must hold for so many days yet.
    pub cert_days: Option<i64>,
}

/// Where the server is.
#[derive(Debug)]
pub enum Place {
    Url(Url),
    /// On this machine; whether it speaks HTTPS is to be found out.
    Here {
        host: String,
        port: u16,
    },
}

/// Settles everything for `runbook health`.
///
/// # Errors
/// Whatever is wrong in options, environment or file: exit 2.
pub fn health(parsed: &Parsed, environment: &Environment) -> Result<HealthSettings, Complaint> {
    let url = text(parsed, "--url")?;
    // Who names the server needs no configuration.
    let mut file = match url {
        Some(_) => ConfigFile::default(),
        None => find_file(parsed, environment)?,
    };
    let wanted = ["webhook.port", "webhook.host", PUBLIC_URL];
    file.expand_only(environment, &wanted)?;
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    let given = match parsed.value("--cacert") {
        Some(path) => certificates(Path::new(path))?,
        None => Vec::new(),
    };
    let number = |name: &str| -> Result<Option<u32>, Complaint> {
        let Some(text) = text(parsed, name)? else {
            return Ok(None);
        };
        let wrong = || Complaint::usage(format!("{name} {text} is not a number from 0 up"));
        text.parse().map(Some).map_err(|_| wrong())
    };
    let (place, name) = match url {
        Some(text) => {
            let url = Url::parse(&text).ok_or_else(|| {
                Complaint::usage("--url is no http or https URL, or has a user in it")
            })?;
            // No public certificate is for an address of loopback.
            let name = (!is_loopback(url.host())).then(|| url.host().to_owned());
            (Place::Url(url), name)
        }
        None => (here(&sources)?, public_name(&sources)?),
    };
    let trust = match name {
        _ if parsed.flag("--insecure") => Trust::Anybody,
        Some(name) => Trust::Named(name, given),
        None => Trust::Signed(given),
    };
    let span = "a length of time from 1ms to 1h, such as 10s";
    Ok(HealthSettings {
        place,
        timeout: sources.settle("--timeout", span, |text| {
            let range = Duration::from_millis(1)..=Duration::from_secs(3600);
            let span = humantime::parse_duration(text).ok();
            span.filter(|span| range.contains(span))
        })?,
        trust,
        max_pending: number("--max-pending")?.map(u64::from),
        cert_days: number("--cert-days")?.map(i64::from),
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

const PUBLIC_URL: &str = "webhook.publicUrl";

/// The port as the server settles it, and 127.0.0.1, unless the server is bound to one other address.
fn here(sources: &Sources<'_>) -> Result<Place, Complaint> {
    let port = sources.settle("--port", "a port, 1 to 65535", |text| {
        text.parse().ok().filter(|port| *port > 0)
    })?;
    let host = sources.file.text("webhook.host")?.unwrap_or_default();
    let host = match &*host {
        "" | "0.0.0.0" | "::" | "[::]" => "127.0.0.1".to_owned(),
        _ => host,
    };
    Ok(Place::Here { host, port })
}

/// The name that Slack knows the server by, as far as a certificate may be for it.
pub(super) fn public_name(sources: &Sources<'_>) -> Result<Option<String>, Complaint> {
    if !sources.file.has(PUBLIC_URL) {
        return Ok(None);
    }
    let url = Url::parse(&public_url(sources.file)?);
    Ok(url.filter(Url::is_https).map(|url| url.host().to_owned()))
}

/// The certificates of a PEM file.
///
/// # Errors
/// It cannot be read, or holds none.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Complaint::usage(format!("no certificate in {shown}"))),
        Err(pem::Error::Io(error)) => Err(cannot_read("certificates", path, &error)),
        Err(error) => Err(Complaint::usage(format!(
            "cannot read certificates {shown}: {error}"
        ))),
    }
}
