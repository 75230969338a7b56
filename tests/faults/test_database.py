"""A run whose connections break, whose tables are locked, whose server takes no writes."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.embedded.server import Server
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Program
from tests.support.servers import admin, query
from tests.support.studies import QUADRATIC, Held, states, trials

pytestmark = pytest.mark.acceptance


def of(url: str) -> str:
    return f"datname = '{url.rsplit('/', 1)[1]}' AND application_name LIKE 'hpo %'"


def cut(server: Server, url: str) -> int:
    """Terminate all connections of a run and its workers."""
    statement = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of(url)}"
    return len(query(server, statement))


def logs(program: Program) -> str:
    return "".join(log.read_text() for log in program.home.rglob("worker*.log"))


def test_connections_that_break_all_the_time_cost_no_trial(
    program: Program, server: Server, url: str, held: Held
):
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "12")
    process = program.start(*command, "--workers", "2")
    wait_until(lambda: held.built)
    broken = 0

    def has_ended() -> bool:
        nonlocal broken
        broken += cut(server, url)
        return process.poll() is not None

    wait_until(has_ended)
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert broken > 20
    assert len(trials(url, "s")) == 12
    assert set(states(url, "s")) <= {"COMPLETE", "PRUNED"}
    assert "Traceback" not in logs(program)


def test_a_worker_takes_two_connections_at_most_and_a_run_three(
    program: Program, server: Server, url: str, held: Held
):
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "8")
    process = program.start(*command, "--workers", "2")
    most: Counter[str] = Counter()
    statement = (
        f"SELECT application_name, count(*) FROM pg_stat_activity WHERE {of(url)} GROUP BY 1"
    )

    def has_ended() -> bool:
        for name, count in query(server, statement):
            most[name] = max(most[name], count)
        return process.poll() is not None

    wait_until(has_ended)
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert set(most) == {"hpo fleet", "hpo cpu:0", "hpo cpu:1"}
    assert most["hpo fleet"] <= 3
    assert max(most["hpo cpu:0"], most["hpo cpu:1"]) <= 2


@pytest.mark.parametrize("table", ["hpo.leases", "trial_user_attributes"])
def test_ctrl_c_is_obeyed_while_another_session_locks_the_tables(
    program: Program, server: Server, url: str, held: Held, table: str
):
    held.hold(1)
    command = ("--objective", str(held.path), "--study_name", "s", "--workers", "1")
    process = program.start(*command, "--grace", "36000")
    wait_until(held.is_holding)

    with connect(url).begin() as other:
        other.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        other.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        held.let_go()
        waiting = sa.text("SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL")
        wait_until(lambda: other.scalar(waiting))
        process.send_signal(signal.SIGINT)
        # The statements have 2 s each; what waits without end takes hours.
        output = process.communicate(timeout=60)

    assert process.returncode == 130, output[1]


def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(
    program: Program, server: Server, url: str, held: Held
):
    name = url.rsplit("/", 1)[1]
    held.hold(1)
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "3")
    process = program.start(*command, "--workers", "1")
    wait_until(held.is_holding)

    admin(server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    cut(server, url)
    held.let_go()
    wait_until(lambda: "the database is read-only" in logs(program))
    admin(server, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
    assert len(trials(url, "s")) == 3
    assert "the database is back after" in logs(program)


def test_a_run_without_room_for_its_connections_says_so_and_goes_on(
    server: Server, empty_url: str, tmp_path: Path
):
    name = empty_url.rsplit("/", 1)[1]
    admin(server, f"CREATE ROLE r{name} LOGIN PASSWORD 'secret' CONNECTION LIMIT 6")
    admin(server, f"ALTER DATABASE {name} OWNER TO r{name}")
    url = sa.make_url(empty_url).set(username=f"r{name}", password="secret")
    program = Program(url.render_as_string(False), tmp_path / "home")

    ran = program(*QUADRATIC, "--n_trials", "9", "--workers", "3")

    assert ran.returncode == 0, ran.stderr
    assert "3 workers and the run take 9 connections, and the database has 6 left" in ran.stderr
    assert "write --workers 1, or raise CONNECTION LIMIT of the role" in ran.stderr
    assert sum(states(empty_url).values()) == 9
