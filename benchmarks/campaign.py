"""Run the fault campaign: break workers, servers, networks, disks and clocks of real runs.

    python benchmarks/campaign.py --out FOLDER
    python benchmarks/campaign.py --rows kill1,outage60 --times 3 --jobs 2 --out FOLDER

Each row is a study of 80 sleeping trials on a server of its own, judged by `faults.verdict`. The
table is printed as Markdown, and each performance leaves a JSON file and its logs in FOLDER. Exit
code 1 if any fails. All rows take an hour, two at a time half of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import optuna
from faults.host import ROOT
from faults.rows import ROWS
from faults.stage import Row, keep_logs, refusal, staged
from faults.verdict import judge

_HEAD = (
    *("what is done", "trials", "exit", "wall s", "fault s", "next epoch s", "next end s"),
    *("blows", "interrupted", "losses", "silences", "epochs again", "ended twice", "verdict"),
)


def perform(row: Row, out: Path, stopped: threading.Event) -> dict[str, Any]:
    """Perform a row once, and write its figures."""
    with staged(row, stopped) as stage:
        try:
            stage.begin()
            row.act(stage)
            found = judge(stage, has_ended=stage.finish())
        finally:
            keep_logs(stage, out.with_suffix(""))
        found["commit"] = _commit()
        if not found["holds"]:
            # An interrupted study must not be lost either.
            code = stage.again()
            later = judge(stage, has_ended=True)
            found["again"] = {"code": code, "states": later["states"]}
    out.write_text(json.dumps(found, indent=2) + "\n")
    verdict = "holds" if found["holds"] else "; ".join(found["problems"])
    print(f"{time.strftime('%T')} {out.stem}: {verdict}", file=sys.stderr, flush=True)
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def cells(found: dict[str, Any]) -> list[str]:
    """The cells of a performance's line."""
    states = ", ".join(f"{count} {name.lower()}" for name, count in found["states"].items())
    codes = " / ".join(" ".join(map(str, codes)) for codes in found["codes"])
    names = ("wall_s", "fault_s", "next_epoch_s", "next_end_s")
    times = ["-" if found[name] is None else f"{found[name]:.0f}" for name in names]
    counts = ("blows", "interrupted", "losses", "silences", "repeated_epochs", "ended_twice")
    problems = found["problems"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    verdict = "holds" if found["holds"] else problems[0] + more
    if "again" in found:
        verdict += f"; the same command: exit {found['again']['code']}, {found['again']['states']}"
    figures = [str(found[name]) for name in counts]
    return [found["title"], states, codes, *times, *figures, verdict]


def table(performances: Sequence[dict[str, Any]]) -> str:
    """The performances as a Markdown table."""
    lines = [list(_HEAD), ["---"] * len(_HEAD), *map(cells, performances)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Perform rows, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default=",".join(ROWS), help="names of rows, with commas")
    parser.add_argument("--times", type=int, default=1, help="performances of each row")
    parser.add_argument("--jobs", type=int, default=1, help="rows performed at the same time")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    for name in names:
        if reason := refusal(ROWS[name]):
            parser.error(f"row '{name}' cannot run here: {reason}; leave it out (--rows)")
    given.out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stopped = threading.Event()
    tasks = [(ROWS[name], time_) for name in names for time_ in range(1, given.times + 1)]
    with ThreadPoolExecutor(given.jobs) as pool:
        futures = [
            pool.submit(perform, row, given.out / f"{row.name}-{time_}.json", stopped)
            for row, time_ in tasks
        ]
        try:
            wait(futures)
        except KeyboardInterrupt:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            return 130
    print(table([future.result() for future in futures if future.exception() is None]))
    for (row, _), future in zip(tasks, futures, strict=True):
        if error := future.exception():
            print(f"{row.name}: no verdict:", file=sys.stderr)
            traceback.print_exception(error)
    are_done = all(future.exception() is None for future in futures)
    return 0 if are_done and all(future.result()["holds"] for future in futures) else 1


if __name__ == "__main__":
    sys.exit(main())
