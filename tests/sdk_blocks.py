"""Reads what `runbook demo --preview` shows from standard input and has Slack's own SDK build each block anew, which
checks it against the SDK's limits. Prints how many there were; fails at the first that the SDK does not take or alters.
"""

import json
import sys

from slack_sdk.models.blocks import Block

count = 0
for sample in json.load(sys.stdin)["samples"]:
    for block in sample["blocks"] or []:
        again = Block.parse(block)
        assert again is not None and again.to_dict() == block, f"{sample['caption']}: {block}"
        count += 1
print(count)
