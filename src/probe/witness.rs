//! The certificate of a server that is asked, or of a pair that will be served: which are good, when
//! they end, and in words for people why one is not taken.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use crate::certificate::validity;
use crate::clock::{self, Timestamp};
use crate::complaint::reason;
use crate::live::hold;

/// Which certificates are good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One for this name, signed by a root that is built in or one of these; or one of these itself.
    Named(String, Vec<CertificateDer<'static>>),
    /// One for any name, signed like that.
    Signed(Vec<CertificateDer<'static>>),
    /// Any.
    Anybody,
}

/// A session of TLS in which the witness has the word.
pub(super) fn session(witness: &Arc<Witness>, name: &str) -> Result<ClientConnection, String> {
    let words = |error: Error| error.to_string();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(words)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(witness) as _)
        .with_no_client_auth();
    let name = bare(name).to_owned();
    let server = ServerName::try_from(name.clone()).map_err(|_| format!("{name} is no name"))?;
    ClientConnection::new(Arc::new(config), server).map_err(words)
}

/// A host without the brackets that an IPv6 address has in URLs.
pub(super) fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// Looks at the server's certificate, and checks it as far as [`Trust`] asks.
#[derive(Debug)]
pub(super) struct Witness {
    provider: CryptoProvider,
    trust: Trust,
    roots: Arc<WebPkiServerVerifier>,
    ends: Mutex<Option<Timestamp>>,
}

impl Witness {
    pub(super) fn new(trust: &Trust) -> Result<Self, String> {
        let given: &[CertificateDer<'static>] = match trust {
            Trust::Named(_, given) | Trust::Signed(given) => given,
            Trust::Anybody => &[],
        };
        Ok(Self {
            provider: ring::default_provider(),
            trust: trust.clone(),
            roots: verifier(given)?,
            ends: Mutex::default(),
        })
    }

    /// When the certificate that was seen ends.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        *hold(&self.ends)
    }

    /// A certificate that is given itself needs no other to sign it.
    fn pinned(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        let (name, given) = match &self.trust {
            Trust::Named(name, given) => (Some(name), given),
            Trust::Signed(given) => (None, given),
            Trust::Anybody => return Some(Ok(())),
        };
        if !given.iter().any(|given| given == certificate) {
            return None;
        }
        let now = Timestamp::from_unix(now.as_secs());
        let holds = match validity(certificate) {
            Some((starts, _)) if starts > now => Err(CertificateError::NotValidYet.into()),
            Some((_, ends)) if ends <= now => Err(CertificateError::Expired.into()),
            Some(_) => Ok(()),
            None => Err(CertificateError::BadEncoding.into()),
        };
        Some(holds.and_then(|()| match name {
            Some(name) => is_for(certificate, name),
            None => Ok(()),
        }))
    }
}

/// Whether a certificate is for this name.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
    let server = ServerName::try_from(bare(name)).map_err(|_| CertificateError::NotValidForName)?;
    verify_server_name(&ParsedCertificate::try_from(certificate)?, &server)
}

fn verifier(given: &[CertificateDer<'static>]) -> Result<Arc<WebPkiServerVerifier>, String> {
    let built_in = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
    let mut roots: RootCertStore = built_in.collect();
    roots.add_parsable_certificates(given.iter().cloned());
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}

/// Whether a chain, the server's certificate first, would be taken for this name, or for any, by who
/// trusts the built-in roots and those that are given.
///
/// # Errors
/// Why not, in words for people.
pub fn examine(chain: &[CertificateDer<'static>], trust: &Trust) -> Result<(), String> {
    let [first, rest @ ..] = chain else {
        return Err("there is no certificate".into());
    };
    let witness = Witness::new(trust)?;
    let nobody = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(clock::now().unix()));
    let verified = witness.verify_server_cert(first, rest, &nobody, &[], now);
    verified.map(drop).map_err(|error| describe(&error, trust))
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ends = validity(end_entity).map(|(_, ends)| ends);
        *hold(&self.ends) = ends;
        if let Some(pinned) = self.pinned(end_entity, now) {
            return pinned.map(|()| ServerCertVerified::assertion());
        }
        // The chain is checked before the name, so what is left to say of it is the name.
        let signed =
            self.roots
                .verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match signed {
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        if let Trust::Named(name, _) = &self.trust {
            is_for(end_entity, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(super) fn describe_tls(error: &std::io::Error, trust: &Trust) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(error), _) => describe(error, trust),
        (None, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            "it hangs in the TLS handshake".into()
        }
        (None, _) => format!("the TLS handshake broke: {}", reason(error)),
    }
}

fn describe(error: &Error, trust: &Trust) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet".into()
            }
            CertificateError::UnknownIssuer => {
                "the certificate is signed by nobody who is known; --cacert names who else is"
                    .into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                match trust {
                    Trust::Named(name, _) => format!("the certificate is not for {name}"),
                    Trust::Signed(_) | Trust::Anybody => {
                        "the certificate is for another name".into()
                    }
                }
            }
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the certificate is an authority's own, not a server's".into()
            }
            error => format!("the certificate is not good: {error}"),
        },
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        error => format!("TLS failed: {error}"),
    }
}
