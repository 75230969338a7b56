"""The workers of one peer on a fresh copy of a study, and what they have done and taken so far."""

from __future__ import annotations

import itertools
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from peers import studies
from peers.processes import ROOT, busy_s, environment, kill, largest_mb, tree_cpu_s
from peers.server import Server
from peers.space import EPOCHS

# More trials than a window can use; its end kills the workers.
_PLENTY = 5000
_LOG = "workers.log"

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


_BACKENDS = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, kw_only=True)
class State:
    """A moment of a window.

    Attributes:
        at: The time by the wall clock, in s.
        ended: New trials that have ended.
        worker_s, server_s, all_s: CPU seconds of workers, of their backends, of the machine.
    """

    at: float
    ended: int
    worker_s: float
    server_s: float
    all_s: float


class Running:
    """Workers of a peer that run trials until `close`.

    Args:
        ended: Trials that the study has already.
    """

    def __init__(
        self,
        server: Server,
        peer: str,
        template: str,
        *,
        ended: int,
        workers: int,
        port: int | None,
        seed: int,
    ) -> None:
        self._server, self.peer, self._ended = server, peer, ended
        self._name = f"w{uuid.uuid4().hex[:12]}"
        server.make(self._name, template=template)
        if peer == "hpo":
            studies.open_tickets(server, self._name, first=ended + 1, count=_PLENTY)
        self._home = studies.home(server.folder, self._name)
        self._connection = server.connect(self._name)
        self._cursor = self._connection.cursor()
        self._backends: dict[int, float] = {}
        url = server.url(self._name, port=port)
        self._started = [
            _begin(_command(peer, number, url, seed=seed * workers + number), self._home)
            for number in range(workers)
        ]

    def counts(self) -> list[int]:
        """Numbers of new trials that have ended, by worker.

        Raises:
            RuntimeError: A worker has ended; the message has the end of the log.
        """
        if any(process.poll() is not None for process in self._started):
            tail = (self._home / _LOG).read_text(errors="replace")[-2000:]
            raise RuntimeError(f"a worker of {self.peer} has ended; the log ends with\n{tail}")
        self._cursor.execute(_WORKERS, (self._ended,))
        return [count for _, count in self._cursor.fetchall()]

    def is_warm(self, trials: int) -> bool:
        """Return whether each worker has ended so many trials."""
        found = self.counts()
        return len(found) == len(self._started) and min(found) >= trials

    def state(self) -> State:
        """The state at this moment."""
        self._cursor.execute(_BACKENDS)
        for (pid,) in self._cursor.fetchall():
            # One that has ended keeps what it had taken when it was last seen.
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                self._backends[pid] = times.user + times.system
        return State(
            at=time.time(),
            ended=sum(self.counts()),
            worker_s=sum(tree_cpu_s(process) for process in self._started),
            server_s=sum(self._backends.values()),
            all_s=busy_s(),
        )

    def figures(self, first: State, last: State) -> dict[str, Any]:
        """The figures of a window."""
        self._cursor.execute(_STARTS, (self._ended,))
        rows = self._cursor.fetchall()
        found = _figures(rows, first, last, workers=len(self._started))
        return {**found, "memory_mb": round(largest_mb(self._started))}

    def close(self) -> None:
        """Kill the workers, drop the copy."""
        kill(self._started)
        for process in self._started:
            process.wait()
        self._connection.close()
        self._server.drop(self._name)
        shutil.rmtree(self._home, ignore_errors=True)


def _begin(command: tuple[list[str], dict[str, str]], home: Path) -> psutil.Popen:
    words, own = command
    with (home / _LOG).open("ab") as log:
        return psutil.Popen(
            [sys.executable, *words],
            env=environment(HPO_HOME=str(home), **own),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _command(peer: str, number: int, url: str, *, seed: int) -> tuple[list[str], dict[str, str]]:
    """The words of a peer's worker after the interpreter, and its own environment."""
    if peer == "optuna":
        return ["-m", "peers.bare_optuna", url, studies.STUDY, str(_PLENTY), str(seed)], {}
    words = ("--study_name", studies.STUDY, "--slot", f"cpu:{number}")
    named = ("--objective", str(studies.OBJECTIVE))
    return ["-m", "hpo", "worker", *words, *named], {"HPO_STORAGE": url}


def _figures(
    rows: Sequence[tuple[Any, ...]],
    first: State,
    last: State,
    *,
    workers: int,
) -> dict[str, Any]:
    """Figures by the database's clock, which is this machine's, within the window."""
    inside = [row for row in rows if row[1] is not None and first.at <= row[1] <= last.at]
    starts = sorted(row[0] for row in rows if first.at <= row[0] <= last.at)
    if len(starts) < 2 or len(inside) < 2:
        raise RuntimeError("fewer than two trials in the window")
    if unequal := {row[2:] for row in inside} - {("COMPLETE", EPOCHS)}:
        raise RuntimeError(f"not all trials are complete with {EPOCHS} reports: {unequal}")
    between = [b - a for a, b in itertools.pairwise(starts)]
    ends = sorted(row[1] for row in inside)
    within = statistics.mean(row[1] - row[0] for row in inside)
    done, worker_s = last.ended - first.ended, last.worker_s - first.worker_s
    server_s, all_s = last.server_s - first.server_s, last.all_s - first.all_s
    return {
        "trials": len(inside),
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
