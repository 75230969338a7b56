"""A fleet of simulated workers, forked from this process, and what the server does meanwhile."""

from __future__ import annotations

import gc
import json
import multiprocessing
import shutil
import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import psutil

from peers import simulated, studies
from peers.server import Server
from peers.simulated import Timed
from peers.space import EPOCHS

# A fork, two logins and the opening of the study: 30 to 50 ms of CPU of worker and server.
_START_S = 0.1
# A worker notices the end of its window at its next sleep.
_GRACE_S = 30.0
_PLENTY = 20_000
# Running trials of other workers are read again at most once a second.
_APART_S = 1.1


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
    """Figures of workers that train; the window begins once all have ended or are in a trial."""
    with copied(server, tickets=_PLENTY) as name:
        start_s = max(trial_s, workers * _START_S)
        begin = time.monotonic() + start_s + 0.5 * trial_s + 3.0
        return _observed(
            server, name, ["work"] * workers, begin, window_s, start_s=start_s, trial_s=trial_s
        )


def idle(server: Server, *, workers: int, window_s: float) -> dict[str, Any]:
    """Figures of workers that wait for a ticket while another one is held."""
    with copied(server, tickets=1) as name:
        start_s = workers * _START_S
        begin = time.monotonic() + start_s + 8.0
        roles = ["hold", *["work"] * workers]
        return _observed(server, name, roles, begin, window_s, start_s=start_s, trial_s=EPOCHS)


def reports(server: Server, *, running: int, window_s: float) -> dict[str, Any]:
    """Figures of one worker among other running trials, which are rows that do not change."""
    with copied(server, tickets=0) as name:
        first, others = studies.RUN, running - 1
        studies.add_running(server, name, first=first, count=others)
        studies.open_tickets(server, name, first=first + others + 1, count=_PLENTY)
        begin, trial_s = time.monotonic() + 3.0, EPOCHS * _APART_S
        found = _observed(server, name, ["work"], begin, window_s, start_s=1.0, trial_s=trial_s)
    # Beats, and the begin and end of trials, are in it, too.
    server_ms = 1000 * found["server_cores"] * window_s
    return {**found, "server_ms_a_report": server_ms / found["calls"]["report"]["count"]}


def _observed(
    server: Server,
    name: str,
    roles: Sequence[str],
    begin: float,
    window_s: float,
    *,
    start_s: float,
    trial_s: float,
) -> dict[str, Any]:
    """Fork the workers, wait for the window, read all figures at its begin and end."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-fleet-"))
    timed = Timed(window=(begin, begin + window_s))
    fork = multiprocessing.get_context("fork")
    # Pages that a collection would write to are shared as long as it leaves them alone.
    gc.collect()
    gc.freeze()
    children: list[ForkProcess] = []
    try:
        for number, role in enumerate(roles):
            args = (server.url(name), role, number, trial_s / EPOCHS, timed, folder)
            children.append(fork.Process(target=_be, args=args, daemon=True))
            children[-1].start()
            time.sleep(start_s / len(roles))
        time.sleep(max(0.0, begin - time.monotonic()))
        before = _state(server, name, children)
        time.sleep(max(0.0, timed.window[1] - time.monotonic()))
        after = _state(server, name, children)
        late = _ended(children)
        times = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    finally:
        for child in children:
            child.kill()
        shutil.rmtree(folder, ignore_errors=True)
    spent = {key: (after[key] - before[key]) / (after["at"] - before["at"]) for key in before}
    return {
        "workers": len(roles),
        "without_figures": late,
        "began_late_s": round(before["at"] - begin, 2),
        "server_cores": spent["server_s"],
        "worker_cores": spent["worker_s"],
        "transactions_per_s": spent["transactions"],
        "trials_per_s": sum(len(one["wall"].get("end", ())) for one in times) / window_s,
        "calls": {call: _summary(times, call) for call in sorted(_calls(times))},
    }


def _be(url: str, role: str, number: int, epoch_s: float, timed: Timed, folder: Path) -> None:
    """Be a worker until the window is over, then write its times."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    slot = f"sim:{number}"
    worker = simulated.Worker(url, studies.STUDY, slot, epoch_s=epoch_s, timed=timed)
    worker.hold() if role == "hold" else worker.run()
    path = folder / f"{number}.json"
    path.write_text(json.dumps({"wall": timed.wall, "cpu": timed.cpu}))


def _ended(children: Sequence[ForkProcess]) -> int:
    """Wait for workers to write their times; return how many did not."""
    deadline = time.monotonic() + _GRACE_S
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
    return sum(child.exitcode != 0 for child in children)


def _state(server: Server, name: str, children: Sequence[ForkProcess]) -> dict[str, float]:
    """Transactions of the database, CPU seconds of server and workers so far, and the time."""
    worker_s = 0.0
    for child in children:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(child.pid).cpu_times()
            worker_s += times.user + times.system
    [(transactions,)] = server.database.query(
        f"SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{name}'"
    )
    at, server_s = time.monotonic(), server.cpu_s()
    return {
        "at": at,
        "server_s": server_s,
        "worker_s": worker_s,
        "transactions": float(str(transactions)),
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
