//! Whom the server believes to be Slack.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{PATIENCE, Running};
use crate::edge::pki::{Authority, Key, openssl};
use crate::harness::{Builder, Click, Scratch, Server, eventually, sample, write_approval};
use crate::stand_in::StandIn;

/// Slack's side: ends TLS with a certificate, passes everything on, and says its port.
const TLS_FRONT: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            # Slack answers under its own name only.
            b.sendall(data.replace(b"localhost:%d" % listener.getsockname()[1], b"127.0.0.1:" + sys.argv[3].encode()))
    except OSError:
        pass
    for end in (a, b):
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(line):
    try:
        line = context.wrap_socket(line, server_side=True)
    except OSError:
        return
    behind = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    threading.Thread(target=pump, args=(behind, line), daemon=True).start()
    pump(line, behind)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A stand-in for Slack behind TLS.
pub(super) struct SecureSlack {
    slack: StandIn,
    authority: Authority,
    port: u16,
    _front: Running,
}

impl SecureSlack {
    pub(super) fn start() -> Self {
        let slack = StandIn::start();
        let authority = Authority::new();
        let pair = authority.issue("slack", Key::Ec);
        let url = slack.url();
        let behind = url.split("127.0.0.1:").nth(1).unwrap();
        let behind: String = behind.chars().take_while(char::is_ascii_digit).collect();
        let mut front = Command::new("python3")
            .args(["-c", TLS_FRONT])
            .args([&pair.certificate, &pair.key])
            .arg(behind)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = front.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        Self {
            slack,
            authority,
            port: line.trim().parse().unwrap(),
            _front: Running(front),
        }
    }

    pub(super) fn serve(&self, builder: Builder) -> Builder {
        builder.slack(&self.slack).env(
            "SLACK_API_URL",
            format!("https://localhost:{}/api/", self.port),
        )
    }

    pub(super) fn root(&self) -> PathBuf {
        self.authority.dir().join("root.pem")
    }

    pub(super) fn is_told_of(&self, server: &Server, id: &str) {
        write_approval(server.pending_dir(), &sample(id));
        server.click(&Click::approve(id));
        eventually("Slack shows the decision", PATIENCE, || {
            self.slack.calls_of("chat.update").first().map(|_| ())
        });
    }
}

#[test]
fn slack_is_believed_when_its_authority_is_in_ssl_cert_file_and_not_otherwise() {
    let slack = SecureSlack::start();
    let server = slack
        .serve(Server::builder())
        .env("SSL_CERT_FILE", slack.root())
        .start();
    slack.is_told_of(&server, "apr-1");

    let server = slack.serve(Server::builder()).start();
    server.expect_errors();
    write_approval(server.pending_dir(), &sample("apr-2"));
    let told = slack.slack.calls_of("chat.update").len();
    server.click(&Click::approve("apr-2"));
    server.wait_for_log("UnknownIssuer", PATIENCE);
    assert_eq!(slack.slack.calls_of("chat.update").len(), told);
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_told_at_start() {
    let dir = Scratch::new();
    openssl(
        dir.path(),
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
    );
    fs::write(dir.join("empty.pem"), "").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(dir.join("broken.pem"), broken).unwrap();
    for (name, why) in [
        ("missing.pem", "no such file"),
        ("empty.pem", "no certificate"),
        ("key.pem", "no certificate"),
        ("broken.pem", "no certificate in it can be used"),
    ] {
        let failed = Server::builder()
            .env("SSL_CERT_FILE", dir.join(name))
            .start_expecting_failure();
        assert_eq!(failed.status, Some(2), "{}", failed.stderr);
        for word in ["SSL_CERT_FILE", name, why] {
            assert!(failed.stderr.contains(word), "{word}: {}", failed.stderr);
        }
    }
}
