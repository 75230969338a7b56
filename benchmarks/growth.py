"""Time of each call that reads a whole study, at 1,000, 10,000 and 100,000 ended trials.

    python benchmarks/growth.py                                 # everything, about 20 minutes
    python benchmarks/growth.py --sizes 1000 10000 --calls status best

A server of its own holds a study of each size, written by SQL (`ended_trials.py`). Commands are
processes; what a run or a worker does is called in a process of its own, without its start-up.
Each cell is the wall time, the CPU time of the process, and the peak of its memory: that of a whole
command, or what a call adds to it. The server's work is in the wall time alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg2
from ended_trials import STUDY, add, fill

from hpo.database.connection import connect
from hpo.embedded import server as postgres
from hpo.study.study import OpenStudy, open_study

SIZES = (1_000, 10_000, 100_000)
_CSV = "trials.csv"

# The arguments of a command; a later one may change the study, the last one deletes it.
COMMANDS = {
    "best": ("best", "--json"),
    "status": ("status", "--json"),
    "studies": ("studies", "--json"),
    "export_csv": ("status", "--json", "--export_csv", _CSV),
    "copy": ("copy", "--to", "-", "--as", "copied", "--study_name", STUDY),
    "delete": ("delete", "--yes", "--study_name", "copied"),
}


def first_read(opened: OpenStudy) -> Iterator[None]:
    """All trials, as a program of Optuna's reads them from this service's storage."""
    yield
    opened.storage.get_all_trials(opened.study_id, deepcopy=False)


def trials(opened: OpenStudy) -> Iterator[None]:
    """The table of trials of `hpo.open().trials()`."""
    from hpo.study.table import trial_rows

    yield
    trial_rows(opened)


def dashboard(opened: OpenStudy) -> Iterator[None]:
    """The start of the dashboard, and its first view of the study."""
    from hpo.dashboard.server import make_dashboard

    url = opened.storage.engine.url.render_as_string(hide_password=False)
    yield
    server = make_dashboard(url, host="127.0.0.1", port=0)
    Thread(target=server.serve_forever, daemon=True).start()
    view = f"{server.address}api/studies/{opened.study_id}?after=0"
    with urllib.request.urlopen(view) as answer:
        answer.read()
    server.shutdown()


def enqueue(opened: OpenStudy) -> Iterator[None]:
    """Joining the study with 20 configurations to try next."""
    run = _prepared(opened, 20)
    yield
    run()


def run_start(opened: OpenStudy) -> Iterator[None]:
    """The first look of a run at the study that it goes on with."""
    fleet = _fleet(opened)
    yield
    fleet._report()


def run_poll(opened: OpenStudy) -> Iterator[None]:
    """A later look of that run, after a trial has ended."""
    fleet = _fleet(opened)
    fleet._report()
    count = fleet._prepared.tickets.count().total
    add(opened.storage.engine, opened, 1, first=count)
    yield
    fleet._report()


CALLS: dict[str, Callable[[OpenStudy], Iterator[None]]] = {
    one.__name__: one for one in (first_read, trials, dashboard, run_start, run_poll, enqueue)
}


def _prepared(opened: OpenStudy, enqueued: int) -> Callable[[], Any]:
    from hpo.study.join import prepare_study
    from hpo.study.request import RunRequest
    from hpo.tickets.budget import Tickets
    from objectives import load

    objective = load("quadratic")
    defaults = opened.config.narrowing.defaults(objective, opened.config.space)
    name = next(name for name, value in defaults.items() if isinstance(value, float))
    known = [{**defaults, name: defaults[name] * (1 - 0.01 * n)} for n in range(1, enqueued + 1)]
    db = opened.storage.engine
    total = Tickets(db, opened.uid).count().total + enqueued
    request = RunRequest(study_name=STUDY, n_trials=total, enqueue=known)
    return lambda: prepare_study(db, request, on_gpu=False)


def _fleet(opened: OpenStudy) -> Any:
    from hpo.fleet.config import FleetConfig
    from hpo.fleet.fleet import Fleet
    from hpo.launch.local import LocalLauncher
    from hpo.study.join import Prepared
    from hpo.tickets.budget import Tickets

    db, here = opened.storage.engine, Path()
    prepared = Prepared(
        url=db.url.render_as_string(hide_password=False),
        db=db,
        opened=opened,
        tickets=Tickets(db, opened.uid),
        objective="quadratic",
        is_new=False,
    )
    config = FleetConfig(slots=(), checkpoints=here, logs=here)
    return Fleet(prepared, config, LocalLauncher(os.environ), lambda _: None)


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def called(name: str, url: str) -> None:
    """Make a call in this process, and print what it cost."""
    opened = open_study(connect(url), STUDY)
    call = CALLS[name](opened)
    next(call)
    # The peak counts from here on.
    Path("/proc/self/clear_refs").write_text("5")
    before, cpu_s, wall_s = _memory_mb("VmRSS"), time.process_time(), time.perf_counter()
    next(call, None)
    costs = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(json.dumps([*costs, _memory_mb("VmHWM") - before]))


def measured(name: str, url: str, home: Path) -> tuple[float, float, float]:
    """Wall time and CPU time in s, and peak memory in MB, of a command or a call."""
    environment = {**os.environ, "HPO_STORAGE": url, "HPO_HOME": str(home)}
    if name in CALLS:
        command = [sys.executable, __file__, "--call", name]
        answer = subprocess.run(
            command, env=environment, cwd=home, check=True, stdout=subprocess.PIPE, text=True
        )
        wall_s, cpu_s, mb = json.loads(answer.stdout.splitlines()[-1])
        return wall_s, cpu_s, mb
    command = [sys.executable, "-m", "hpo", *COMMANDS[name]]
    began = time.perf_counter()
    with (home / "out").open("w") as out, (home / "in").open("w+") as given:
        given.write(url)
        given.seek(0)
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdin=given, stdout=out, stderr=out
        )
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: {(home / 'out').read_text()}")
    wall_s = time.perf_counter() - began
    return wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


@contextmanager
def _server(home: Path) -> Iterator[postgres.Server]:
    home.chmod(0o755)
    try:
        yield postgres.start(home)
    finally:
        postgres.stop(home, immediate=True)
        shutil.rmtree(home, ignore_errors=True)


def filled(server: postgres.Server, size: int) -> str:
    """The URL of a database with a study of so many trials."""
    connection = psycopg2.connect(server.libpq_url)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE growth_{size}")
    connection.close()
    url = server.url.rsplit("/", 1)[0] + f"/growth_{size}"
    db = connect(url)
    fill(db, size)
    db.dispose()
    return url


def compare(sizes: Sequence[int], names: Sequence[str]) -> None:
    """Measure, and print the table as Markdown."""
    rows: dict[str, list[str]] = {name: [] for name in names}
    with _server(Path(tempfile.mkdtemp(prefix="growth-"))) as server:
        for size in sizes:
            url = filled(server, size)
            for name in names:
                wall_s, cpu_s, mb = measured(name, url, server.home)
                rows[name].append(f"{wall_s:.2f} / {cpu_s:.2f} / {mb:.0f}")
                print(f"{size:>7} {name:<12} {rows[name][-1]}", file=sys.stderr, flush=True)
    head = ["wall s / CPU s / peak MB", *(f"{size:,} trials" for size in sizes)]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure all, or make the one call that another process of this file asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    every = [*CALLS, *COMMANDS]
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--calls", nargs="+", choices=every, default=every, metavar="CALL")
    parser.add_argument("--call", choices=CALLS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.call:
        called(given.call, os.environ["HPO_STORAGE"])
    else:
        compare(given.sizes, given.calls)


if __name__ == "__main__":
    main()
