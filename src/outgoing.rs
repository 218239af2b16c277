//! HTTP requests of our own, blocking, through ureq: to Slack, and to agents that want a callback.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::clock::Timestamp;
use crate::complaint::reason;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a whole call may take that nobody waits for.
pub const CALL: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER: u64 = 1 << 20;
/// The `Retry-After` that is believed, from and to.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// The pause after a 429 that does not say.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);

/// A proxy for all calls.
#[derive(Clone, Debug)]
pub struct Proxy(ureq::Proxy);

impl Proxy {
    /// From `HTTPS_PROXY` and `NO_PROXY`. `None` when the URL is none that we can use.
    pub fn parse(url: &str, except: &str) -> Option<Self> {
        let given = ureq::Proxy::new(url).ok()?;
        let mut builder = ureq::Proxy::builder(given.protocol())
            .host(given.host())
            .port(given.port());
        if let Some(username) = given.username() {
            builder = builder.username(username);
        }
        if let Some(password) = given.password() {
            builder = builder.password(password);
        }
        for host in except
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
        {
            builder = builder.no_proxy(host);
        }
        builder.build().ok().map(Self)
    }
}

/// Who is believed about whose a host is: the authorities that are built in, unless others are named.
#[derive(Clone, Debug, Default)]
pub struct Roots(Option<Arc<Vec<Certificate<'static>>>>);

impl Roots {
    /// From a file such as a system's bundle, PEM, instead of what is built in.
    ///
    /// # Errors
    /// Why none of it can be used. One that cannot among others is left out, as systems' bundles hold
    /// old ones.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("there is no certificate in it".into());
        }
        let (usable, _) =
            RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err("no certificate in it can be used".into());
        }
        let owned =
            |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
        Ok(Self(Some(Arc::new(
            certificates.iter().map(owned).collect(),
        ))))
    }

    fn config(self) -> TlsConfig {
        let roots = self.0.map_or(RootCerts::WebPki, RootCerts::Specific);
        TlsConfig::builder().root_certs(roots).build()
    }
}

/// An absolute `http` or `https` URL without a user in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    origin: String,
    host: String,
    port: u16,
    /// The path, and the query if there is one.
    target: String,
}

impl Url {
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: ureq::http::Uri = text.parse().ok()?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))?;
        Some(Self {
            text: text.to_owned(),
            origin: format!("{scheme}://{authority}/"),
            host: authority.host().to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if scheme == "https" { 443 } else { 80 }),
            target: uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// As it stands there: an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, and the query if there is one.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Scheme, host and port, with a slash at the end.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The other side will not do it, however often it is asked. Its word for why.
    Refused(String),
    /// The other side wants to be left alone for that long.
    Limited(Duration),
    /// It may work later.
    Failed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Limited(wait) => {
                write!(f, "rate limited for {} s", wait.as_secs_f64().ceil())
            }
            Self::Failed(error) => f.write_str(error),
        }
    }
}

/// What is posted.
#[derive(Clone, Debug)]
pub enum Body {
    Json(String),
    Form(String),
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    /// `X-OAuth-Scopes`, one by one.
    pub scopes: Option<Vec<String>>,
    /// `Date`.
    pub date: Option<Timestamp>,
}

/// Makes calls. Connections are kept and shared; redirects are not followed.
#[derive(Clone, Debug)]
pub struct Caller {
    direct: ureq::Agent,
    /// `HTTPS_PROXY` is for https only, as everywhere.
    https: ureq::Agent,
}

impl Caller {
    pub fn new(proxy: Option<Proxy>, roots: Roots) -> Self {
        let tls = roots.config();
        let agent = |proxy: Option<Proxy>| {
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_connect(Some(CONNECT))
                .proxy(proxy.map(|proxy| proxy.0))
                .tls_config(tls.clone())
                .user_agent(concat!("runbook/", env!("CARGO_PKG_VERSION")))
                .build()
                .new_agent()
        };
        let direct = agent(None);
        let https = proxy.map_or_else(|| direct.clone(), |proxy| agent(Some(proxy)));
        Self { direct, https }
    }

    /// Posts. Answers that ask for patience are errors; any other comes back with its status.
    ///
    /// # Errors
    /// `Limited` or `Failed`.
    pub fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: Body,
        within: Duration,
    ) -> Result<Reply, CallError> {
        let agent = if url.starts_with("https:") {
            &self.https
        } else {
            &self.direct
        };
        let (content_type, body) = match body {
            Body::Json(json) => ("application/json; charset=utf-8", json),
            Body::Form(form) => ("application/x-www-form-urlencoded", form),
        };
        let request = agent.post(url).config().timeout_global(Some(within));
        let request = request.build().header("Content-Type", content_type);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let mut response = request
            .send(body)
            .map_err(|error| CallError::Failed(describe(&error)))?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let scopes = header("x-oauth-scopes").map(|scopes| {
            let scopes = scopes.split(',').map(str::trim);
            scopes
                .filter(|scope| !scope.is_empty())
                .map(str::to_owned)
                .collect()
        });
        let date = header("date").and_then(|date| {
            let date = httpdate::parse_http_date(&date).ok()?;
            let since_1970 = date.duration_since(UNIX_EPOCH).ok()?;
            Some(Timestamp::from_unix(since_1970.as_secs()))
        });
        let wait = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let wait =
            wait.map(|seconds| Duration::from_secs(seconds).clamp(SHORTEST_WAIT, LONGEST_WAIT));
        if let (429, wait) | (503, wait @ Some(_)) = (status, wait) {
            return Err(CallError::Limited(wait.unwrap_or(UNKNOWN_WAIT)));
        }
        if status >= 500 || status == 408 {
            return Err(CallError::Failed(format!("HTTP status {status}")));
        }
        // What is cut off is nothing that anybody here needs to know.
        let mut body = Vec::new();
        let mut reader = response.body_mut().as_reader().take(ANSWER);
        reader
            .read_to_end(&mut body)
            .map_err(|error| CallError::Failed(describe(&error.into())))?;
        Ok(Reply {
            status,
            body,
            scopes,
            date,
        })
    }
}

/// An error of ours for the log: never the URL, which may be a secret.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "timed out".into(),
        ureq::Error::HostNotFound => "host not found".into(),
        ureq::Error::ConnectionFailed => "connection failed".into(),
        ureq::Error::Io(error) => format!("connection failed: {}", reason(error)),
        ureq::Error::BadUri(_) => "the URL cannot be used".into(),
        other => other.to_string(),
    }
}
