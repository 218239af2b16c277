//! Certificates, made by `openssl` when a test needs them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::harness::Scratch;

/// What kind of key, and how its file writes it.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// P-256, PKCS#8.
    Ec,
    /// P-256, SEC1.
    EcSec1,
    /// RSA 2048, PKCS#8.
    Rsa,
    /// RSA 2048, PKCS#1.
    RsaPkcs1,
}

/// An authority in a directory of its own.
pub struct Authority(Scratch);

/// A certificate and its key, as two files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Runs `openssl`; its arguments are words between spaces.
pub fn openssl(dir: &Path, words: &str) -> String {
    let output = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("these tests need the openssl command");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {words}: {said}");
    said
}

const NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";

impl Authority {
    pub fn new() -> Self {
        let dir = Scratch::new();
        fs::write(dir.join("names"), NAMES).unwrap();
        openssl(
            dir.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
             -subj /CN=Root -keyout root.key -out root.pem",
        );
        Self(dir)
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn issue(&self, name: &str, key: Key) -> Pair {
        self.issue_for(name, key, 30)
    }

    /// A certificate for `localhost` that ends in so many days.
    pub fn issue_for(&self, name: &str, key: Key, days: i32) -> Pair {
        self.sign_by("root", name, key, days)
    }

    /// A certificate for another host alone, as a real one is.
    pub fn issue_for_host(&self, host: &str) -> Pair {
        fs::write(
            self.dir().join("names"),
            format!("subjectAltName=DNS:{host}\n"),
        )
        .unwrap();
        let pair = self.issue_for(host, Key::Ec, 30);
        fs::write(self.dir().join("names"), NAMES).unwrap();
        pair
    }

    /// A chain: a certificate signed by an intermediate authority, then that authority's own.
    pub fn issue_chain(&self, name: &str) -> Pair {
        let dir = self.dir();
        fs::write(dir.join("authority"), "basicConstraints=critical,CA:TRUE\n").unwrap();
        openssl(
            dir,
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=Intermediate \
             -keyout middle.key -out middle.csr",
        );
        openssl(
            dir,
            "x509 -req -in middle.csr -CA root.pem -CAkey root.key -set_serial 7 -days 30 \
             -extfile authority -out middle.pem",
        );
        let pair = self.sign_by("middle", name, Key::Ec, 30);
        let chain =
            [&pair.certificate, &dir.join("middle.pem")].map(|file| fs::read(file).unwrap());
        fs::write(&pair.certificate, chain.concat()).unwrap();
        pair
    }

    fn sign_by(&self, authority: &str, name: &str, key: Key, days: i32) -> Pair {
        let dir = self.dir();
        match key {
            Key::Ec => {
                openssl(
                    dir,
                    &format!(
                        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
                    ),
                );
            }
            Key::EcSec1 => {
                openssl(
                    dir,
                    &format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"),
                );
            }
            Key::Rsa => {
                openssl(
                    dir,
                    &format!(
                        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out {name}.key"
                    ),
                );
            }
            Key::RsaPkcs1 => {
                openssl(dir, &format!("genrsa -traditional -out {name}.key 2048"));
            }
        }
        openssl(
            dir,
            &format!("req -new -key {name}.key -subj /CN=localhost -out {name}.csr"),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -set_serial {} -days {days} \
                 -extfile names -out {name}.pem",
                serial()
            ),
        );
        Pair {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        }
    }

    /// A client that believes this authority and nobody else.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.0.join("root.pem")).unwrap();
        roots.add(root).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Who resumes a session is not shown the certificate again.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

fn serial() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Pair {
    /// The options that serve this pair.
    pub fn options(&self) -> [OsString; 4] {
        [
            "--tls-cert".into(),
            self.certificate.clone().into(),
            "--tls-key".into(),
            self.key.clone().into(),
        ]
    }

    /// The certificate as it travels.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }
}
