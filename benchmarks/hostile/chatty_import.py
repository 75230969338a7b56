"""The import takes three seconds, and prints a banner of JSON to standard output.

Right: six complete trials with their values; what is printed is taken for no message of a worker.
"""

import json
import time

from calm import Calm

EXIT, CHECK, VALUES = 0, 0, "calm"

for words in ({}, {"findings": [{"state": "failed", "check": "x", "detail": "x"}]}, None, 1):
    print(json.dumps(words), flush=True)
time.sleep(3)


class Hostile(Calm):
    pass


objective = Hostile()
