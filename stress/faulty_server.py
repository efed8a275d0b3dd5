"""The real model process with a misbehaviour in the model's way: what it does, a shared block of memory says."""

from __future__ import annotations

import json
import sys

from regime.serving import server
from stress.misbehaviour import Control, disturbed

if __name__ == "__main__":
    control = Control(json.loads(sys.argv[1])["control"])
    server.run(sys.argv[1:], lambda answer: disturbed(answer, control))
