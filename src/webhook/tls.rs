//! TLS for the public socket: the pair of certificate and key, checked, and changed while serving.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{days_until, validity};
use crate::clock::{self, Timestamp};
use crate::complaint::{Complaint, cannot_read};
use crate::live::Live;

/// From when on we say that a certificate ends soon. Let's Encrypt renews 30 days ahead.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Where the pair is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairPaths {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What serves TLS. The pair in it can be changed at any time.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    pair: Arc<Current>,
}

#[derive(Debug)]
struct Current(Live<Pair>);

/// A certificate chain with its key, and when it ends.
#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    ends: Option<Timestamp>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.now().certified))
    }
}

impl Tls {
    /// Loads and checks the pair.
    ///
    /// # Errors
    /// A file cannot be read, is not PEM, or the two do not belong together.
    pub fn load(paths: &PairPaths) -> Result<Self, Complaint> {
        let pair = Arc::new(Current(Live::new(load_aloud(paths)?)));
        let unusable =
            |error: rustls::Error| Complaint::failure(format!("cannot set up TLS: {error}"));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&pair) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // All suites are good; that we choose among them is what auditors look for.
        config.ignore_client_order = true;
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        Ok(Self {
            config: Arc::new(config),
            pair,
        })
    }

    /// Whole days until the certificate ends, negative when it has; `None` when it does not say.
    pub fn days_left(&self) -> Option<i64> {
        Some(days_until(self.ends()?, clock::now()))
    }

    /// When the certificate ends; `None` when it does not say.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.pair.0.now().ends
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// Tells when the certificate of a pair is over, or soon will be.
fn warn_of_end(paths: &PairPaths, pair: &Pair) {
    let certificate = paths.certificate.display();
    let ends = pair
        .certified
        .cert
        .first()
        .and_then(|first| validity(first));
    let now = clock::now();
    match ends {
        Some((starts, _)) if starts > now => {
            log::warn!(file:% = certificate, starts:%; "The TLS certificate is not valid yet");
        }
        Some((_, ends)) if ends <= now => {
            log::warn!(file:% = certificate, ended:% = ends; "The TLS certificate has expired");
        }
        Some((_, ends)) if ends.since(now) < SOON => {
            log::warn!(file:% = certificate, ends:%; "The TLS certificate expires soon");
        }
        Some(_) => {}
        None => log::warn!(file:% = certificate; "The TLS certificate's validity cannot be read"),
    }
}

/// Loads a pair, and tells when it is of no use for long.
fn load_aloud(paths: &PairPaths) -> Result<Pair, Complaint> {
    let pair = load_pair(paths)?;
    warn_of_end(paths, &pair);
    Ok(pair)
}

/// The chain of a pair that could be served, the server's certificate first.
///
/// # Errors
/// Those of [`Tls::load`].
pub fn chain(paths: &PairPaths) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    load_pair(paths).map(|pair| pair.certified.cert.clone())
}

fn load_pair(paths: &PairPaths) -> Result<Pair, Complaint> {
    let (certificate, key) = (paths.certificate.display(), paths.key.display());
    let chain = CertificateDer::pem_file_iter(&paths.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable("TLS certificate", &paths.certificate, &error))?;
    if chain.is_empty() {
        return Err(Complaint::usage(format!("no certificate in {certificate}"))
            .hint("it must be PEM, the server's certificate first, then its intermediates"));
    }
    let private = PrivateKeyDer::from_pem_file(&paths.key)
        .map_err(|error| unreadable("TLS key", &paths.key, &error))?;
    let private = ring::sign::any_supported_type(&private).map_err(|error| {
        Complaint::usage(format!("cannot use TLS key {key}: {error}"))
            .hint("RSA from 2048 bits, ECDSA P-256 or P-384, or Ed25519")
    })?;
    let ends = validity(&chain[0]);
    let certified = CertifiedKey::new(chain, private);
    certified.keys_match().map_err(|error| {
        let what = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("TLS key {key} does not belong to certificate {certificate}")
            }
            error => format!("cannot use TLS certificate {certificate}: {error}"),
        };
        Complaint::usage(what).hint("the server's own certificate must be the first in its file")
    })?;
    Ok(Pair {
        certified: Arc::new(certified),
        ends: ends.map(|(_, ends)| ends),
    })
}

fn unreadable(what: &str, path: &Path, error: &rustls::pki_types::pem::Error) -> Complaint {
    use rustls::pki_types::pem::Error;
    let shown = path.display();
    match error {
        Error::Io(error) => cannot_read(what, path, error),
        Error::NoItemsFound => Complaint::usage(format!("no {what} in {shown}"))
            .hint("it must be PEM, and not encrypted"),
        error => Complaint::usage(format!("cannot read {what} {shown}: {error}")),
    }
}

/// Notices that the files of the pair have changed, whoever changes them and however: in place, by
/// rename, or by turning a link that leads to them.
#[derive(Debug)]
pub struct PairWatch {
    paths: PairPaths,
    loaded: Stamps,
    seen: Stamps,
}

/// What tells one state of the two files from another.
type Stamps = [Option<(u64, i64, i64, u64)>; 2];

impl PairWatch {
    /// Watches the files of a pair that is about to be loaded: what replaces them meanwhile is a change.
    pub fn new(paths: PairPaths) -> Self {
        let stamps = stamps(&paths);
        Self {
            paths,
            loaded: stamps,
            seen: stamps,
        }
    }

    /// Looks. Files that have changed are loaded once they have stayed the same for two looks, for
    /// the two are never replaced at the same moment. Broken ones leave the old pair in place.
    pub fn look(&mut self, tls: &Tls) {
        let now = stamps(&self.paths);
        let calm = std::mem::replace(&mut self.seen, now) == now;
        if calm && now != self.loaded {
            self.reload(tls);
        }
    }

    /// Loads the files as they are.
    pub fn reload(&mut self, tls: &Tls) {
        self.loaded = stamps(&self.paths);
        match load_aloud(&self.paths) {
            Ok(pair) => {
                tls.pair.0.replace(pair);
                log::info!(certificate:% = self.paths.certificate.display(); "TLS certificate reloaded");
            }
            Err(complaint) => {
                log::error!(reason:% = complaint.what(); "TLS certificate not reloaded, the old one stays");
            }
        }
    }
}

fn stamps(paths: &PairPaths) -> Stamps {
    [&paths.certificate, &paths.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.size(),
        ))
    })
}
