//! The keys of signed decisions: read from PEM files, and made.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::sources::Sources;
use super::terms::Reach;
use crate::approval::{SEED, SignKey, VerifyKey};
use crate::complaint::{Complaint, cannot_read, reason};
use crate::random;

/// The largest key file, in bytes.
const LARGEST: u64 = 1 << 16;

/// What decisions are signed with, when that is at hand: who asks or decides from the terminal may not
/// be allowed to read what the configuration names.
pub(super) fn sign_key(
    sources: &Sources<'_>,
    reach: Reach,
) -> Result<Option<Arc<SignKey>>, Complaint> {
    let Some(path) = sign_key_path(sources, reach)? else {
        return Ok(None);
    };
    let bytes = match read(&path) {
        Err(error)
            if named_sign_key(sources).is_none()
                && reach != Reach::Serves
                && error.kind() == ErrorKind::PermissionDenied =>
        {
            return Ok(None);
        }
        read => read.map_err(|error| cannot_read("sign key", &path, &error))?,
    };
    let der = PrivatePkcs8KeyDer::from_pem_slice(&bytes).ok();
    let key = der.and_then(|der| SignKey::from_pkcs8(der.secret_pkcs8_der()));
    let key = key.ok_or_else(|| {
        Complaint::usage(format!(
            "sign key {} is no Ed25519 key in PKCS#8 (PEM)",
            path.display()
        ))
        .hint(if path.extension().is_some_and(|end| end == "pub") {
            "it is the file without .pub"
        } else {
            "runbook keygen makes one"
        })
    })?;
    Ok(Some(Arc::new(key)))
}

/// Where the key is that decisions are signed with, if there is one.
pub(super) fn sign_key_path(
    sources: &Sources<'_>,
    reach: Reach,
) -> Result<Option<PathBuf>, Complaint> {
    if let Some(path) = named_sign_key(sources) {
        return Ok(Some(path.into()));
    }
    let path = match reach {
        Reach::Looks => None,
        _ => sources.file.text("approvals.signKey")?,
    };
    Ok(path.filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// The key that an option names, where there is such an option.
fn named_sign_key<'a>(sources: &Sources<'a>) -> Option<&'a OsStr> {
    sources.parsed.option("--sign-key")?;
    sources.parsed.value("--sign-key")
}

/// What the operator should know of a sign key that others can read.
pub(super) fn exposed_sign_key(
    sources: &Sources<'_>,
    reach: Reach,
) -> Result<Option<String>, Complaint> {
    let path = sign_key_path(sources, reach)?;
    let exposed = path.filter(|path| is_open_to_others(path));
    Ok(exposed.map(|path| format!("the sign key {} can be read by everybody", path.display())))
}

/// The key that an approval must be signed by to count.
pub(super) fn verify_key(sources: &Sources<'_>) -> Result<Option<VerifyKey>, Complaint> {
    let named = sources.parsed.option("--verify-key");
    if named.is_none() {
        return Ok(None);
    }
    let path = match sources.parsed.value("--verify-key") {
        Some(path) => PathBuf::from(path),
        None => match sources.file.text("approvals.verifyKey")? {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => return Ok(None),
        },
    };
    let bytes = read(&path).map_err(|error| cannot_read("verify key", &path, &error))?;
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&bytes).ok();
    let key = der.and_then(|der| VerifyKey::from_spki(&der));
    key.map(Some).ok_or_else(|| {
        Complaint::usage(format!(
            "verify key {} is no public Ed25519 key (PEM)",
            path.display()
        ))
        .hint("it is the file that ends in .pub, not the secret one")
    })
}

/// Makes a pair of keys: `path`, which only its owner may read, and `path.pub`.
///
/// # Errors
/// One of the files is there, or cannot be written; then neither was made.
pub fn make_key_pair(path: &Path) -> Result<(PathBuf, VerifyKey), Complaint> {
    let failed = |path: &Path| {
        let shown = path.display().to_string();
        move |error: io::Error| {
            let complaint = Complaint::failure(format!("cannot write {shown}: {}", reason(&error)));
            match error.kind() {
                ErrorKind::AlreadyExists => {
                    complaint.hint("a key is never replaced; --out names another file")
                }
                _ => complaint,
            }
        }
    };
    let seed: [u8; SEED] = random::bytes().map_err(|error| {
        Complaint::failure(format!("cannot get random bytes: {}", reason(&error)))
    })?;
    let der = SignKey::pkcs8(seed);
    let key = SignKey::from_pkcs8(&der)
        .ok_or_else(|| Complaint::failure("the key that was made cannot be used"))?;
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    write(path, 0o600, &pem("PRIVATE KEY", &der)).map_err(failed(path))?;
    let spki = pem("PUBLIC KEY", &key.verify_key().to_spki());
    if let Err(error) = write(&public, 0o644, &spki) {
        let _ = std::fs::remove_file(path);
        return Err(failed(&public)(error));
    }
    Ok((public, key.verify_key()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether anybody but its owner and their group may read a file.
pub fn is_open_to_others(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.mode() & 0o007 != 0)
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Both kinds of key fit on one line of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
