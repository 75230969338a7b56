"""The database unwilling: connections cut, writes refused, tables locked, under a real run."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Program
from tests.support.studies import Held, states

pytestmark = pytest.mark.acceptance


@pytest.fixture
def admin(url: str) -> Iterator[Callable[[str], list[tuple]]]:
    """Statements from another session, on another database of the same server."""
    parsed = make_url(url).set(drivername="postgresql", database="postgres")
    connection = psycopg2.connect(parsed.render_as_string(hide_password=False))
    connection.autocommit = True

    def execute(statement: str) -> list[tuple]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    yield execute
    connection.close()


def ours(url: str) -> str:
    """The condition on `pg_stat_activity` that selects connections of runs and workers."""
    name = make_url(url).database
    return f"datname = '{name}' AND application_name LIKE 'hpo %'"


def cut(admin: Callable[[str], list[tuple]], url: str) -> int:
    """Cut the connections of runs and workers; return their number."""
    which = ours(url)
    return len(admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}"))


def logs(home: Path) -> str:
    return "".join(log.read_text() for log in home.rglob("worker*.log"))


def begun(program: Program, objective: Path, n: int) -> subprocess.Popen[str]:
    arguments = ("--objective", str(objective), "--study_name", "s", "--n_trials", str(n))
    return program.start(*arguments, "--workers", "2")


def test_connections_that_are_cut_all_the_time_end_nothing(
    program: Program, url: str, slow: Path, admin: Callable[[str], list[tuple]]
):
    """9. Before: one `pg_terminate_backend` killed a worker, or the run."""
    process = begun(program, slow, 6)
    cuts = 0

    while process.poll() is None:
        cuts += cut(admin, url)
        admin("SELECT pg_sleep(0.3)")
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert cuts > 10
    assert "ended with code" not in output[1]
    assert sum(states(url, "s").values()) == 6
    assert not {"RUNNING", "FAIL"} & set(states(url, "s"))


def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(
    program: Program, url: str, held: Held, admin: Callable[[str], list[tuple]]
):
    """10. Before: a demoted primary ended the run within a second."""
    name = make_url(url).database
    held.hold(2, 3)
    process = begun(program, held.path, 4)
    wait_until(held.is_holding)

    admin(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    cut(admin, url)
    held.let_go()
    wait_until(lambda: "read-only" in logs(program.home))
    admin(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert "ended with code" not in output[1]
    assert not {"RUNNING", "FAIL"} & set(states(url, "s"))


@pytest.mark.parametrize("table", ["trial_intermediate_values", "hpo.leases"])
def test_a_locked_table_is_waited_for_and_ctrl_c_is_obeyed(
    program: Program, url: str, held: Held, admin: Callable[[str], list[tuple]], table: str
):
    """11. Before: LOCK TABLE stopped everything, and Ctrl-C twice was not obeyed in 48 s."""
    held.hold(2, 3)
    process = begun(program, held.path, 6)
    wait_until(held.is_holding)
    other = psycopg2.connect(url.replace("+psycopg2", ""))
    waits = f"SELECT pid FROM pg_stat_activity WHERE {ours(url)} AND wait_event_type = 'Lock'"

    with other.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table}")
        held.let_go()
        wait_until(lambda: admin(waits))
        process.send_signal(signal.SIGINT)
        # A statement that waits is given up 2 s after a stop, and workers have a grace of 30 s.
        output = process.communicate(timeout=60)
    other.close()
    after = begun(program, held.path, 6).communicate(timeout=HANGS_S)

    assert process.returncode == 130, output[1]
    assert "6 of 6 trials done" in after[1]
    assert not {"RUNNING", "FAIL"} & set(states(url, "s"))


def test_a_worker_has_two_connections_at_most_and_a_run_three(
    program: Program, url: str, slow: Path, admin: Callable[[str], list[tuple]]
):
    """11. Before: four each, so that a server's connections ran out."""
    process = begun(program, slow, 6)
    most: Counter[str] = Counter()

    while process.poll() is None:
        names = [
            row[0]
            for row in admin(f"SELECT application_name FROM pg_stat_activity WHERE {ours(url)}")
        ]
        for name, count in Counter(names).items():
            most[name] = max(most[name], count)
    process.communicate(timeout=HANGS_S)

    assert process.returncode == 0
    assert set(most) >= {"hpo fleet", "hpo cpu:0", "hpo cpu:1"}
    assert most["hpo fleet"] <= 3
    assert max(most["hpo cpu:0"], most["hpo cpu:1"]) <= 2
