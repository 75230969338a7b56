"""The rows of the campaign: what is done to a study of 80 trials of 6 s while it runs."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults.host import ROOT, send
from faults.stage import Row, Stage, full

Act = Callable[[Stage], None]
ROWS: dict[str, Row] = {}

_FOR_S = 120.0
# A lease lives 90 s without a beat.
_BEYOND_LEASE_S = 100.0
_VALUES = ("trials", "trial_values", "trial_intermediate_values")
_FAKETIME = {
    "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "FAKETIME_TIMESTAMP_FILE": "{folder}/clock",
    "FAKETIME_CACHE_DURATION": "1",
    # A host's monotonic clock never jumps.
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "DONT_FAKE_MONOTONIC": "1",
    "PYTHONPATH": f"{Path(__file__).with_name('faked_clock')}:{ROOT}",
}


def _row(name: str, title: str, **more: Any) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        ROWS[name] = Row(name=name, title=title, act=act, **more)
        return act

    return add


@_row("nothing", "nothing", checks_times=True)
def _nothing(stage: Stage) -> None:
    return


def _kill(every_s: float) -> Act:
    def act(stage: Stage) -> None:
        chosen = random.Random(0)
        with stage.fault():
            until = time.monotonic() + _FOR_S
            while time.monotonic() < until and not stage.is_over:
                processes = [process for host in stage.hosts for process in host.processes()[1:]]
                # There are none while the run waits before it starts workers again.
                if processes:
                    send(signal.SIGKILL, [chosen.choice(processes)])
                    stage.blows += 1
                stage.hold(every_s)

    return act


# Killed each second, workers hardly get to a trial, since a start takes seconds; every 5 s they do.
for _seconds in (1, 5):
    _row(
        f"kill{_seconds}",
        f"`kill -9` of a random process of a worker every {_seconds} s for two minutes",
    )(_kill(_seconds))


@_row(
    "ray",
    "workers on a Ray cluster of three nodes: `kill -9` of a node, and of an actor every 5 s",
    nodes=(2, 2, 2),
)
def _ray(stage: Stage) -> None:
    chosen = random.Random(0)
    with stage.fault():
        until = time.monotonic() + _FOR_S
        node_at = until - _FOR_S / 2
        while time.monotonic() < until and not stage.is_over:
            if node_at and time.monotonic() > node_at:
                node_at = 0.0
                stage.kill_node()
            else:
                stage.kill_actor(chosen)
            stage.hold(5.0)


@_row("stop", "`SIGSTOP` of three workers beyond the lease: one whole, of two one process each")
def _stop(stage: Stage) -> None:
    # They wake while others train their trials, and not after the study's end.
    taken_anew = "SELECT count(*) FROM hpo.tickets WHERE attempt > 1"
    with stage.fault():
        whole, first, last = stage.hosts[0].workers()[:3]
        frozen = [*whole, first[0], last[-1]]
        send(signal.SIGSTOP, frozen)
        until = time.monotonic() + _BEYOND_LEASE_S
        try:
            stage.wait(
                lambda: time.monotonic() > until and stage.database.query(taken_anew) >= [(2,)]
            )
        finally:
            send(signal.SIGCONT, frozen)


@_row("restart", "`pg_ctl restart -m immediate` every 8 s for two minutes")
def _restart(stage: Stage) -> None:
    with stage.fault():
        until = time.monotonic() + _FOR_S
        while time.monotonic() < until and not stage.is_over:
            stage.database.stop()
            stage.database.start()
            stage.blows += 1
            stage.hold(8.0)


def _outage(seconds: float) -> Act:
    def act(stage: Stage) -> None:
        with stage.fault():
            stage.database.stop()
            try:
                stage.hold(seconds)
            finally:
                stage.database.start()

    return act


for _seconds in (30, 60, 300):
    _row(f"outage{_seconds}", f"server down for {_seconds} s")(_outage(_seconds))


@_row("readonly", "server read-only for 20 s")
def _readonly(stage: Stage) -> None:
    with stage.fault(), stage.database.read_only():
        stage.hold(20.0)


def _locked(*tables: str) -> Act:
    def act(stage: Stage) -> None:
        with stage.fault(), stage.database.locked(*tables):
            stage.hold(_BEYOND_LEASE_S)

    return act


_row("lock_values", "`LOCK TABLE` on Optuna's trials and values for 100 s")(_locked(*_VALUES))
_row("lock_leases", "`LOCK TABLE hpo.leases` for 100 s")(_locked("hpo.leases"))


@_row("fleet", "`kill -9` of the run with all workers, three times; the same command", runs=4)
def _fleet(stage: Stage) -> None:
    for trials in (10, 30, 50):
        with stage.fault(after=trials):
            stage.hosts[0].kill()
            stage.hosts[0].start()


def _cut(seconds: float) -> Act:
    def act(stage: Stage) -> None:
        last, port = stage.hosts[-1], stage.database.port
        with stage.fault():
            last.cut_off(port)
            try:
                stage.hold(seconds)
            finally:
                if not last.has_ended():
                    last.reconnect(port)

    return act


for _seconds in (60, 120):
    _row(
        f"cut{_seconds}",
        f"one of two hosts without network for {_seconds} s (packets dropped)",
        workers=3,
        hosts=({}, {}),
        is_separate=True,
    )(_cut(_seconds))


@_row(
    "clients",
    "`max_connections` 20 with 12 workers",
    workers=12,
    settings={"max_connections": "20"},
)
def _clients(stage: Stage) -> None:
    return


def _full(name: str) -> Act:
    def act(stage: Stage) -> None:
        with stage.fault(), full(stage.folder / name):
            stage.hold(60.0)
        # A server that gave up while its disk was full is started by whoever freed the disk.
        stage.database.start()

    return act


_row("full_server", "the server's disk full for 60 s", small="server")(_full("server"))
_row("full_home", "the home's disk full for 60 s", small="home")(_full("host-a"))


@_row(
    "zones",
    "two hosts and a server in three time zones",
    workers=3,
    hosts=({"TZ": "Asia/Tokyo"}, {"TZ": "America/Los_Angeles"}),
    settings={"timezone": "Asia/Kolkata"},
    checks_times=True,
)
def _zones(stage: Stage) -> None:
    return


def _clock(jump: str) -> Act:
    def act(stage: Stage) -> None:
        with stage.fault():
            (stage.folder / "clock").write_text(f"{jump}\n")

    return act


_CLOCKS: Mapping[str, Any] = {"workers": 3, "hosts": ({}, _FAKETIME), "checks_times": True}
_row("clock_ahead", "the clock of one of two hosts jumps 2 h ahead", **_CLOCKS)(_clock("+2h"))
_row("clock_back", "the clock of one of two hosts jumps 2 h back", **_CLOCKS)(_clock("-2h"))
