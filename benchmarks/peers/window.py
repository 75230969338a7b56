"""A measured window of a study: from where all workers are warm until enough trials have ended.

The first trials of each worker, with imports and first reads, are left out, of all peers alike.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from peers import studies
from peers.processes import ROOT, busy_s, environment, kill, largest_mb, tree_cpu_s
from peers.server import Server

_POLL_S = 0.2
# A worker of a large study needs some 20 s for its start, on two busy cores several times that.
_STUCK_S = 240.0
# More than a window can use; the window's end kills the workers.
_PLENTY = 5000

# The workers of new trials that have ended, with their numbers of trials.
_WORKERS = """
SELECT a.value_json, count(*) FROM trials t JOIN trial_user_attributes a USING (trial_id)
WHERE t.number >= %s AND t.state = 'COMPLETE' AND a.key = 'worker' GROUP BY 1
"""
_STARTS = """
SELECT extract(epoch FROM datetime_start)::float8, extract(epoch FROM datetime_complete)::float8,
    state, (SELECT count(*) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id)
FROM trials t WHERE number >= %s ORDER BY datetime_start
"""


@dataclass(frozen=True, kw_only=True)
class State:
    """A moment of a window.

    Attributes:
        at: The time by the wall clock, in s.
        ended: New trials that have ended.
        worker_s, server_s, all_s: CPU seconds of workers, of the server, of the whole machine.
    """

    at: float
    ended: int
    worker_s: float
    server_s: float
    all_s: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """A window's size.

    Attributes:
        warm: Trials of each worker that are left out.
        timed: Trials that are measured, or fewer if the time is over.
        longest_s: Longest time of the window.
    """

    warm: int = 3
    timed: int = 30
    longest_s: float = 15.0


def command(peer: str, number: int, url: str, *, seed: int) -> tuple[list[str], dict[str, str]]:
    """The words of a peer's worker after the interpreter, and its own environment."""
    if peer == "optuna":
        return ["-m", "peers.bare_optuna", url, studies.STUDY, str(_PLENTY), str(seed)], {}
    words = ("--study_name", studies.STUDY, "--slot", f"cpu:{number}")
    named = ("--objective", str(studies.OBJECTIVE))
    return ["-m", "hpo", "worker", *words, *named], {"HPO_STORAGE": url}


def measure(
    server: Server,
    peer: str,
    template: str,
    *,
    ended: int,
    workers: int,
    size: Size,
    port: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Run workers of a peer on a fresh copy of a study; return the figures of one window."""
    name = f"w{uuid.uuid4().hex[:12]}"
    server.make(name, template=template)
    if peer == "hpo":
        studies.open_tickets(server, name, first=ended + 1, count=_PLENTY)
    home = studies.home(server.folder, name)
    log = (home / "workers.log").open("wb")
    started: list[psutil.Popen] = []
    try:
        url = server.url(name, port=port)
        for number in range(workers):
            words, own = command(peer, number, url, seed=seed * workers + number)
            started.append(
                psutil.Popen(
                    [sys.executable, *words],
                    env=environment(HPO_HOME=str(home), **own),
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return _window(server, name, started, ended=ended, size=size)
    except RuntimeError as error:
        tail = (home / "workers.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{peer}: {error}; the log ends with\n{tail}") from error
    finally:
        kill(started)
        for process in started:
            process.wait()
        log.close()
        server.drop(name)
        shutil.rmtree(home, ignore_errors=True)


def _window(
    server: Server, name: str, started: Sequence[psutil.Popen], *, ended: int, size: Size
) -> dict[str, Any]:
    connection = server.connect(name)
    cursor = connection.cursor()

    def counts() -> list[int]:
        if any(process.poll() is not None for process in started):
            raise RuntimeError("a worker has ended")
        cursor.execute(_WORKERS, (ended,))
        return [count for _, count in cursor.fetchall()]

    def state() -> State:
        return State(
            at=time.time(),
            ended=sum(counts()),
            worker_s=sum(tree_cpu_s(process) for process in started),
            server_s=server.cpu_s(),
            all_s=busy_s(),
        )

    begun = time.monotonic()
    while min(found := counts(), default=0) < size.warm or len(found) < len(started):
        if time.monotonic() - begun > _STUCK_S:
            raise RuntimeError(f"not all workers were warm after {_STUCK_S:.0f} s: {found}")
        time.sleep(_POLL_S)
    first = last = state()
    while last.ended - first.ended < size.timed and last.at - first.at < size.longest_s:
        time.sleep(_POLL_S)
        last = state()
    memory_mb = largest_mb(started)
    cursor.execute(_STARTS, (ended,))
    rows = cursor.fetchall()
    connection.close()
    return {
        "warm_s": round(first.at - last.at + time.monotonic() - begun, 2),
        "memory_mb": round(memory_mb),
        **_figures(rows, first, last, workers=len(started)),
    }


def _figures(
    rows: Sequence[tuple[Any, ...]],
    first: State,
    last: State,
    *,
    workers: int,
) -> dict[str, Any]:
    """Times by the database's clock, which is this machine's, within the window."""
    inside = [row for row in rows if row[1] is not None and first.at <= row[1] <= last.at]
    starts = sorted(row[0] for row in rows if first.at <= row[0] <= last.at)
    if len(starts) < 2 or len(inside) < 2:
        raise RuntimeError("fewer than two trials in the window")
    between = [b - a for a, b in itertools.pairwise(starts)]
    ends = sorted(row[1] for row in inside)
    within = statistics.mean(row[1] - row[0] for row in inside)
    done, worker_s = last.ended - first.ended, last.worker_s - first.worker_s
    server_s, all_s = last.server_s - first.server_s, last.all_s - first.all_s
    return {
        "trials": len(inside),
        "pruned": sum(row[2] == "PRUNED" for row in inside),
        "reports": statistics.mean(row[3] for row in inside),
        "per_trial_ms": 1000 * (starts[-1] - starts[0]) / len(between),
        "per_trial_median_ms": 1000 * statistics.median(between),
        "within_ms": 1000 * within,
        "trials_per_s": (len(ends) - 1) / (ends[-1] - ends[0]),
        "worker_cpu_ms": 1000 * worker_s / done,
        "server_cpu_ms": 1000 * server_s / done,
        "cpu_ms": 1000 * (worker_s + server_s) / done,
        "others_cores": (all_s - worker_s - server_s) / (last.at - first.at),
        "workers": workers,
    }
