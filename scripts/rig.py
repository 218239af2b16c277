"""Runs the release binary for scripts/attack, scripts/bench and scripts/fuzz/socket, and clicks as Slack does."""

import atexit
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
FORM = "application/x-www-form-urlencoded"
SLACK_WAITS = 3.0


def binary(given=None):
    """The binary to run: the one that was named, RUNBOOK_BIN, or the release."""
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    path = pathlib.Path(given or os.environ.get("RUNBOOK_BIN") or pathlib.Path(target) / "release/runbook")
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{path} is no program; `cargo build --release` makes it")
    return path.resolve()


def signature(secret, timestamp, body):
    mac = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256)
    return "v0=" + mac.hexdigest()


def click(approval, secret=SECRET):
    """The bytes of a click on Approve, signed now."""
    payload = {
        "type": "block_actions",
        "user": {"id": "U061F7AUR", "username": "alice", "team_id": "T0001"},
        "team": {"id": "T0001"},
        "channel": {"id": "C1234567890"},
        "message": {"ts": "1705333800.000100"},
        "actions": [{"action_id": "approve", "block_id": "q1Xz", "type": "button", "value": approval}],
    }
    body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
    timestamp = str(int(time.time()))
    head = (
        "POST /slack/interactions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n"
        f"X-Slack-Request-Timestamp: {timestamp}\r\nX-Slack-Signature: {signature(secret, timestamp, body)}\r\n\r\n"
    )
    return head.encode() + body


class Rig:
    """A server in a directory of its own, on a loopback port."""

    def __init__(self, program, tls, config="", variables={}):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="runbook-rig-"))
        self.pending = self.dir / "pending"
        self.tls = tls
        (self.dir / ".runbook").mkdir()
        (self.dir / ".runbook/config.yaml").write_text(config)
        command = [program, "webhook", "--port", "0", "--host", "127.0.0.1", "--pending-dir", self.pending]
        self.trust = None
        if tls:
            self.make_certificate()
            command += ["--tls-cert", self.dir / "site.pem", "--tls-key", self.dir / "site.key"]
            self.trust = ssl.create_default_context(cafile=self.dir / "root.pem")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.dir),
            "SLACK_SIGNING_SECRET": SECRET,
            # Nobody listens there; nothing of this leaves the machine.
            "SLACK_API_URL": "http://127.0.0.1:1/api/",
            **variables,
        }
        self.log = open(self.dir / "log", "wb")
        self.process = subprocess.Popen(
            command, cwd=self.dir, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        # Whatever goes wrong here, nothing stays behind.
        atexit.register(self.process.kill)
        self.port = None
        for line in self.process.stdout:
            if "Listening on port" in line:
                self.port = int(line.split("Listening on port")[1].split()[0].strip("║"))
            if "Waiting for interactions" in line:
                break
        if self.port is None:
            raise SystemExit(f"the server did not start:\n{self.log_text()}")
        self.clicks = 0

    def make_certificate(self):
        def openssl(words):
            subprocess.run(["openssl", *words.split()], cwd=self.dir, check=True, capture_output=True)

        (self.dir / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
                                        "extendedKeyUsage=serverAuth\n")
        curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        openssl(f"req -x509 {curve} -days 90 -subj /CN=Root -keyout root.key -out root.pem")
        openssl(f"req -new {curve} -subj /CN=localhost -keyout site.key -out site.csr")
        openssl("x509 -req -in site.csr -CA root.pem -CAkey root.key -set_serial 4711 -days 89 "
                "-extfile names -out site.pem")

    def connect(self, timeout=5.0):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        if self.trust is None:
            return plain
        return self.trust.wrap_socket(plain, server_hostname="localhost")

    def file_an_approval(self, name):
        """Puts a pending approval where the server looks for it."""
        approval = {"id": name, "operation": "scale_ecs_service", "riskLevel": "high", "status": "pending",
                    "slackMessageTs": "1705333800.000100", "slackChannel": "C1234567890"}
        unfinished = self.pending / f".{name}.unfinished"
        unfinished.write_text(json.dumps(approval))
        unfinished.rename(self.pending / f"{name}.json")

    def status(self, name):
        return json.loads((self.pending / f"{name}.json").read_text())["status"]

    def real_click(self):
        """How many seconds a real click took; None when it is lost."""
        self.clicks += 1
        name = f"apr-real-{self.clicks}"
        self.file_an_approval(name)
        request = click(name)
        started = time.monotonic()
        try:
            with self.connect() as line:
                line.sendall(request)
                answer = line.recv(12)
        except OSError:
            return None
        took = time.monotonic() - started
        return took if answer == b"HTTP/1.1 200" and self.status(name) == "approved" else None

    def peak_memory(self):
        """The most that was resident so far, in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def log_text(self):
        self.log.flush()
        return (self.dir / "log").read_text(errors="replace")

    def is_alive(self):
        return self.process.poll() is None

    def stop(self):
        """Ends it as an operator does; how it ended, and its log."""
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        log = self.log_text()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)
        return code, log
