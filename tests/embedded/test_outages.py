"""The embedded server and a run: it starts for it, goes away under it, and is not taken from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.embedded import server
from hpo.embedded.folder import Folder
from hpo.embedded.postmaster import postmaster
from hpo.errors import PostgresError
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Program
from tests.support.studies import Held, trials

pytestmark = pytest.mark.acceptance


def notices_the_outage(home: Path) -> bool:
    """Return whether a worker has logged the outage and retries."""
    return any("the database is away" in log.read_text() for log in home.rglob("worker*.log"))


def test_an_outage_of_the_database_is_waited_out(alone: Program, held: Held):
    url = alone("url").stdout.strip()
    held.hold(1)
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "4")
    process = alone.start(*command, "--workers", "1")
    wait_until(held.is_holding)

    server.stop(alone.home, immediate=True)
    held.let_go()
    wait_until(lambda: notices_the_outage(alone.home))
    server.start(alone.home)
    output = process.communicate(timeout=HANGS_S)
    ended = trials(url, "s")

    assert process.returncode == 0, output[1]
    assert "Traceback" not in output[1]
    assert len(ended) == 4
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in ended)


def test_a_run_starts_its_own_server_again_that_died(alone: Program, held: Held):
    url = alone("url").stdout.strip()
    held.hold(1)
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "4")
    process = alone.start(*command, "--workers", "1")
    wait_until(held.is_holding)

    died = postmaster(Folder.of(alone.home).data)
    os.kill(died, signal.SIGKILL)
    held.let_go()
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert postmaster(Folder.of(alone.home).data) not in (died, None)
    assert [t.state.is_finished() for t in trials(url, "s")] == [True] * 4


def test_the_timeout_holds_while_the_database_is_away(alone: Program, held: Held):
    alone("url")
    held.hold(1)
    command = ("--objective", str(held.path), "--study_name", "s", "--workers", "1")
    process = alone.start(*command, "--timeout", "8", "--grace", "1")
    wait_until(held.is_holding)

    server.stop(alone.home, immediate=True)
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 130, output[1]
    assert "the same command goes on" in output[1]


def test_a_server_that_a_command_stopped_is_not_revived(alone: Program):
    alone("url")
    server.stop(alone.home)

    server.revive(alone.home)

    assert server.running(alone.home) is None


def test_a_server_is_revived_once_the_cause_of_a_failed_revival_is_mended(alone: Program):
    alone("url")
    folder = Folder.of(alone.home)
    settings = folder.data / "postgresql.conf"
    died = postmaster(folder.data)
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: postmaster(folder.data) is None)
    aside = settings.rename(f"{settings}.aside")

    with pytest.raises(PostgresError, match="does not start"):
        server.revive(alone.home)
    aside.rename(settings)
    server.revive(alone.home)

    assert server.running(alone.home) is not None


def test_a_stop_by_the_program_holds_while_the_database_is_away(alone: Program, held: Held):
    alone("url")
    held.hold(1)
    code = STOPPED.format(objective=str(held.path), home=str(alone.home))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=alone.environment,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(held.is_holding)

    server.stop(alone.home, immediate=True)
    wait_until(lambda: notices_the_outage(alone.home))
    output = process.communicate("stop\n", timeout=60)

    assert process.returncode == 0, output[1]
    assert "the run was stopped, and the database is away" in output[0]


# A run of a program, which its owner stops by a line on standard input.
STOPPED = """
import sys, threading
import hpo

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
try:
    hpo.run(objective={objective!r}, home={home!r}, workers=1, patience=86400, grace=1, stop=stop)
except hpo.HpoError as error:
    print(error)
"""


def test_ctrl_c_is_obeyed_while_the_database_is_away(alone: Program, tmp_path: Path):
    # Whoever waited for the database, or for the workers' grace, would do so for hours.
    held = Held(
        tmp_path, head="from hpo.database.patience import set_patience\nset_patience(36_000)"
    )
    alone("url")
    held.hold(1)
    process = alone.start(
        *("--objective", str(held.path), "--study_name", "s", "--workers", "1"),
        *("--grace", "36000"),
    )
    wait_until(held.is_holding)
    refused = alone("stop")
    server.stop(alone.home, immediate=True)
    held.let_go()
    wait_until(lambda: notices_the_outage(alone.home))

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=HANGS_S)

    assert refused.returncode == 2
    assert process.returncode == 130, output[1]


def test_the_embedded_server_starts_by_itself_and_stops_only_when_nobody_works(
    alone: Program, held: Held
):
    held.hold(1)
    process = alone.start("--objective", str(held.path), "--study_name", "s", "--workers", "1")
    found = alone("url").stdout.strip()
    wait_until(held.is_holding)

    refused = alone("stop")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGS_S)
    stopped = alone("stop")
    again = alone("stop")
    resumed = alone("url").stdout.strip()

    assert refused.returncode == 2
    assert "cpu:0" in refused.stderr
    assert stopped.returncode == again.returncode == 0
    assert "not running" in again.stderr
    assert resumed == found
    assert not os.environ.get("HPO_STORAGE")
