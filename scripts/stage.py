"""A stage for scripts/storm and scripts/soak: servers that die and come back, a Slack that fails, and clicks."""

import atexit
import http.client
import http.server
import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import time
import urllib.parse

from rig import FORM, SECRET, signature

WORDS = {"Granted": "approved", "Denied": "denied", "Expired": "expired", "Withdrawn": "cancelled"}


def ts(number):
    return f"1705333800.{number:06}"


class Slack(http.server.BaseHTTPRequestHandler):
    """Does what it is asked, but for some calls, as long as it is not well: those fail, are limited, or wait. Each
    update that it has made is a line of its log."""

    protocol_version = "HTTP/1.1"
    updates = None
    failing = 0.02
    slow = 0.1
    well = multiprocessing.Event()
    posted = itertools.count(1)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        method, mishap = self.path.rsplit("/", 1)[-1], 1.0 if Slack.well.is_set() else random.random()
        if method == "auth.test":
            return self.answer(200, {"ok": True, "team_id": "T0001", "user_id": "U0RUNBOOK"})
        if mishap < self.failing:
            return random.choice([
                lambda: self.answer(500, {}),
                lambda: self.answer(429, {}, {"Retry-After": "1"}),
                lambda: self.answer(200, {"ok": False, "error": "internal_error"}),
                self.hang_up,
            ])()
        if mishap < self.failing + self.slow:
            time.sleep(0.3)
        message = json.loads(body)
        if method == "chat.postMessage":
            stamp = f"1705444900.{next(self.posted):06}"
            return self.answer(200, {"ok": True, "channel": message["channel"], "ts": stamp})
        if method != "chat.update":
            return self.answer(200, {"ok": True})
        word = next((WORDS[word] for word in WORDS if word in message["text"]), "pending")
        os.write(Slack.updates, f"{message['ts']} {word}\n".encode())
        self.answer(200, {"ok": True, "channel": message["channel"], "ts": message["ts"]})

    def hang_up(self):
        """Says nothing for a while, and never will."""
        time.sleep(2)
        self.close_connection = True

    def answer(self, status, body, headers={}):
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def play_slack(listener, log, failing=0.02, well=None):
    Slack.failing, Slack.well = failing, well or Slack.well
    Slack.updates = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slack, bind_and_activate=False)
    # Whoever is killed goes away without a word.
    server.handle_error = lambda *_: None
    server.socket = listener
    server.serve_forever()


class Server:
    """One server process, which dies and comes back on the same port."""

    def __init__(self, number, program, pending, place, api):
        self.number, self.program, self.pending, self.place, self.api = number, program, pending, place, api
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self.port = any_port.getsockname()[1]
        self.log = open(place / f"log-{number}", "ab")
        self.process = None
        # Whatever goes wrong here, nothing stays behind.
        atexit.register(self.kill)

    def start(self):
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.place), "SLACK_SIGNING_SECRET": SECRET,
            "SLACK_BOT_TOKEN": "xoxb-storm", "SLACK_API_URL": self.api,
        }
        command = [self.program, "webhook", "--port", str(self.port), "--host", "127.0.0.1",
                   "--pending-dir", self.pending, "--log-level", "warn"]
        self.process = subprocess.Popen(command, cwd=self.place, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self.log)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def health(self):
        try:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            line.request("GET", "/health?verbose")
            return json.loads(line.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return {}


def one_click(number, user, choice):
    payload = {
        "type": "block_actions", "user": {"id": user, "username": user.lower(), "team_id": "T0001"},
        "team": {"id": "T0001"}, "channel": {"id": "C1234567890"}, "message": {"ts": ts(number)},
        "actions": [{"action_id": choice, "block_id": "q1Xz", "type": "button", "value": f"apr-{number}"}],
    }
    body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
    stamp = str(int(time.time()))
    return body, {"Content-Type": FORM, "X-Slack-Request-Timestamp": stamp,
                  "X-Slack-Signature": signature(SECRET, stamp, body)}
