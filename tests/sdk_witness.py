"""Posts an interaction that Slack's own SDK has signed, and prints the answer's status and the signature.

usage: sdk_witness.py PORT SECRET PAYLOAD
"""

import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from slack_sdk.signature import SignatureVerifier

port, secret, payload = sys.argv[1:]
body = urllib.parse.urlencode({"payload": payload})
timestamp = str(int(time.time()))
signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/slack/interactions",
    data=body.encode(),
    headers={
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": signature,
    },
)
# No proxy stands between this machine and itself.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(request, timeout=10) as answer:
        status = answer.status
except urllib.error.HTTPError as refusal:
    status = refusal.code
print(status, timestamp, signature, body)
