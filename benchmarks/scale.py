"""Measure simulated fleets: hundreds of workers that sleep instead of training.

    python benchmarks/scale.py --out scale.json                         # all, 10 minutes
    python benchmarks/scale.py --rows busy-64-5,reports-8,reports-500    # a part of it

Each worker is a forked process with the service's own tickets, beats and storage
(`peers/simulated.py` says what it leaves out), on a PostgreSQL server of the benchmark's own.

    busy-W-S    W workers, trials of S seconds: PostgreSQL's CPU, transactions, ticket waits
    idle-W      W workers without a ticket, while another worker holds the study's last one
    reports-W   one worker's reports, more than a second apart, among W − 1 running trials

A ticket's wait is the time from a trial's end to the worker's next ticket. All workers share this
machine with the server, so cores of both are shown: a machine that is full makes all waits long.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peers import fleet
from peers.kept import described, say
from peers.processes import end_cleanly
from peers.server import Server, started

# Each worker has two connections at most, and so has the benchmark.
_CONNECTIONS = "1100"

ROWS: Mapping[str, Callable[[Server], dict[str, Any]]] = {
    "reports-8": partial(fleet.reports, running=8, window_s=50.0),
    "reports-64": partial(fleet.reports, running=64, window_s=50.0),
    "reports-250": partial(fleet.reports, running=250, window_s=50.0),
    "reports-500": partial(fleet.reports, running=500, window_s=50.0),
    "busy-64-5": partial(fleet.busy, workers=64, trial_s=5.0, window_s=40.0),
    "idle-500": partial(fleet.idle, workers=500, window_s=40.0),
    "busy-500-60": partial(fleet.busy, workers=500, trial_s=60.0, window_s=90.0),
}
_FIGURES: Mapping[str, int] = {
    "server_cores": 2,
    "worker_cores": 2,
    "others_cores": 2,
    "transactions_per_s": 0,
    "trials_per_s": 1,
}
_CALLS: Mapping[str, str] = {"wait": "ticket wait", "report": "report"}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    calls = [f"{title}: p50 / p95 / CPU ms" for title in _CALLS.values()]
    lines = [["row", *_FIGURES, *calls, "server ms a report"]]
    lines.append(["---"] * len(lines[0]))
    for name, one in found.items():
        figures = [f"{one[key]:.{digits}f}" for key, digits in _FIGURES.items()]
        server = f"{one['server_ms_a_report']:.1f}" if "server_ms_a_report" in one else "-"
        of_calls = [_call(one["calls"].get(call)) for call in _CALLS]
        lines.append([name, *figures, *of_calls, server])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _call(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return " / ".join(f"{found[key]:.0f}" for key in ("p50_ms", "p95_ms", "cpu_ms"))


def perform(names: Sequence[str], out: Path | None) -> dict[str, dict[str, Any]]:
    """Perform rows; keep what is found so far in a file."""
    found: dict[str, dict[str, Any]] = {}
    with started(max_connections=_CONNECTIONS) as server:
        for name in names:
            begun = time.monotonic()
            say(f"{name} begins")
            found[name] = {"commit": described(), **ROWS[name](server)}
            say(f"{name}: {time.monotonic() - begun:.0f} s; {json.dumps(found[name])}")
            if out is not None:
                before = json.loads(out.read_text()) if out.exists() else {}
                out.write_text(json.dumps(before | found, indent=1) + "\n")
    return found


def main() -> int:
    """Measure rows, print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="names, with commas (default: all)")
    parser.add_argument("--out", type=Path, help="file of all figures, as JSON, by row")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    end_cleanly()
    found = perform(names, given.out)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
