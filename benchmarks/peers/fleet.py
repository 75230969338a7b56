"""A fleet of simulated workers, forked from this process, and what the server does meanwhile."""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import shutil
import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import psutil

from peers import simulated, studies
from peers.processes import busy_s
from peers.server import Server
from peers.simulated import Timed
from peers.space import EPOCHS

# A fork, two logins and the opening of the study: 30 to 50 ms of CPU of worker and server.
_START_S = 0.1
# A worker notices the end of its window at its next sleep.
_GRACE_S = 30.0
_PLENTY = 20_000
# Running trials of other workers are read again at most once a second; the reading takes one.
_APART_S = 2.2


@contextmanager
def copied(server: Server, *, tickets: int) -> Iterator[str]:
    """A fresh copy of our study with two ended trials and some open tickets."""
    name = f"f{uuid.uuid4().hex[:12]}"
    server.make(name, template=studies.templates(server, studies.RUN)["hpo"])
    try:
        studies.open_tickets(server, name, first=studies.RUN + 1, count=tickets)
        yield name
    finally:
        server.drop(name)


def busy(server: Server, *, workers: int, trial_s: float, window_s: float) -> dict[str, Any]:
    """Figures of workers that train; most are at different epochs, as they began one by one."""
    with copied(server, tickets=_PLENTY) as name:
        start_s = max(trial_s, workers * _START_S)
        fleet = Fleet(name, ["work"] * workers, epoch_s=trial_s / EPOCHS, start_s=start_s)
        return fleet.observed(server, warm_s=0.5 * trial_s + 3.0, window_s=window_s)


def idle(server: Server, *, workers: int, window_s: float) -> dict[str, Any]:
    """Figures of workers that wait for a ticket while another one is held."""
    with copied(server, tickets=1) as name:
        roles = ["hold", *["work"] * workers]
        fleet = Fleet(name, roles, epoch_s=1.0, start_s=workers * _START_S)
        # An idle session of PostgreSQL adds up to 10 s later to the statistics what it has done.
        return fleet.observed(server, warm_s=20.0, window_s=window_s)


def reports(server: Server, *, running: int, window_s: float) -> dict[str, Any]:
    """Figures of one worker among other running trials, which are rows that do not change."""
    with copied(server, tickets=0) as name:
        first, others = studies.RUN, running - 1
        studies.add_running(server, name, first=first, count=others)
        studies.open_tickets(server, name, first=first + others + 1, count=_PLENTY)
        fleet = Fleet(name, ["work"], epoch_s=_APART_S, start_s=0.0)
        found = fleet.observed(server, warm_s=3.0, window_s=window_s)
    # Beats, and the begin and end of trials, are in it, too.
    server_ms = 1000 * found["server_cores"] * window_s
    return {**found, "server_ms_a_report": server_ms / found["calls"]["report"]["count"]}


@dataclass(frozen=True, kw_only=True)
class State:
    """A moment: the time, and what was counted and taken until then.

    Attributes:
        server_s, worker_s, all_s: CPU seconds of the server, the workers, the whole machine.
    """

    at: float
    transactions: float
    server_s: float
    worker_s: float
    all_s: float


class Fleet:
    """Workers that are forked one by one, and all measured in one window.

    Args:
        roles: What each worker does: `work` as a worker does, or `hold` a ticket.
        start_s: Time from the first fork to the last.
    """

    def __init__(
        self, database: str, roles: Sequence[str], *, epoch_s: float, start_s: float
    ) -> None:
        self._database, self._roles, self._epoch_s = database, roles, epoch_s
        self._start_s = start_s
        self._fork = multiprocessing.get_context("fork")
        self._window = self._fork.RawArray("d", [math.inf, math.inf])
        self._children: list[ForkProcess] = []

    def observed(self, server: Server, *, warm_s: float, window_s: float) -> dict[str, Any]:
        """Fork the workers, decide on the window, read all figures at its begin and end.

        Args:
            warm_s: Time from the last fork to the window.
        """
        folder = Path(tempfile.mkdtemp(prefix="hpo-fleet-"))
        # Pages that a collection would write to are shared as long as it leaves them alone.
        gc.collect()
        gc.freeze()
        begun = time.monotonic()
        try:
            for number, role in enumerate(self._roles):
                self._begin(server, role, number, folder)
                time.sleep(self._start_s / len(self._roles))
            time.sleep(warm_s)
            before = self._state(server)
            self._window[:] = [before.at, before.at + window_s]
            time.sleep(window_s)
            after = self._state(server)
            late = self._ended()
            times = [json.loads(path.read_text()) for path in folder.glob("*.json")]
        finally:
            for child in self._children:
                child.kill()
            shutil.rmtree(folder, ignore_errors=True)
        return {
            "workers": len(self._roles),
            "without_figures": late,
            "warm_s": round(before.at - begun, 1),
            **_rates(before, after),
            "trials_per_s": sum(len(one["wall"].get("end", ())) for one in times) / window_s,
            "calls": {call: _summary(times, call) for call in sorted(_calls(times))},
        }

    def _begin(self, server: Server, role: str, number: int, folder: Path) -> None:
        timed = Timed(window=self._window)
        args = (server.url(self._database), role, number, self._epoch_s, timed, folder)
        self._children.append(self._fork.Process(target=_be, args=args, daemon=True))
        self._children[-1].start()

    def _ended(self) -> int:
        """Wait for workers to write their times; return how many did not."""
        deadline = time.monotonic() + _GRACE_S
        for child in self._children:
            child.join(max(0.0, deadline - time.monotonic()))
        return sum(child.exitcode != 0 for child in self._children)

    def _state(self, server: Server) -> State:
        worker_s = 0.0
        for child in self._children:
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(child.pid).cpu_times()
                worker_s += times.user + times.system
        [(transactions,)] = server.database.query(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database "
            f"WHERE datname = '{self._database}'"
        )
        return State(
            at=time.monotonic(),
            transactions=float(str(transactions)),
            server_s=server.cpu_s(),
            worker_s=worker_s,
            all_s=busy_s(),
        )


def _be(url: str, role: str, number: int, epoch_s: float, timed: Timed, folder: Path) -> None:
    """Be a worker until the window is over, then write its times."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    slot = f"sim:{number}"
    worker = simulated.Worker(url, studies.STUDY, slot, epoch_s=epoch_s, timed=timed)
    worker.hold() if role == "hold" else worker.run()
    path = folder / f"{number}.json"
    path.write_text(json.dumps({"wall": timed.wall, "cpu": timed.cpu}))


def _rates(before: State, after: State) -> dict[str, float]:
    """Cores and transactions per second between two moments."""
    seconds = after.at - before.at
    server = (after.server_s - before.server_s) / seconds
    workers = (after.worker_s - before.worker_s) / seconds
    return {
        "server_cores": server,
        "worker_cores": workers,
        "others_cores": (after.all_s - before.all_s) / seconds - server - workers,
        "transactions_per_s": (after.transactions - before.transactions) / seconds,
    }


def _calls(times: Sequence[dict[str, Any]]) -> set[str]:
    return {call for one in times for call in one["wall"]}


def _summary(times: Sequence[dict[str, Any]], call: str) -> dict[str, float]:
    """Number, quantiles and mean CPU of a call of all workers, in ms."""
    wall = [ms for one in times for ms in one["wall"].get(call, ())]
    cpu = [ms for one in times for ms in one["cpu"].get(call, ())]
    return {
        "count": len(wall),
        "p50_ms": quantile(wall, 0.5),
        "p95_ms": quantile(wall, 0.95),
        "mean_ms": statistics.mean(wall),
        "cpu_ms": statistics.mean(cpu),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of some figures; 0 without any."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]
