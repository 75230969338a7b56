"""A worker's role: it runs a whole study, and may neither delete nor create, change or drop."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.database.rights import grant
from hpo.database.schema import OWN
from hpo.embedded.server import Server
from hpo.errors import StorageError
from hpo.tickets.budget import Tickets
from tests.support.program import Command, Program
from tests.support.servers import admin, query
from tests.support.studies import QUADRATIC, states

PASSWORD = "planted-8c1e"
TABLES = [t.fullname for t in (*models.BaseModel.metadata.sorted_tables, *OWN.sorted_tables)]


@pytest.fixture
def role(server: Server, url: str) -> Iterator[str]:
    """The name of a role that a test makes in a database."""
    name = f"w{uuid.uuid4().hex[:8]}"
    yield name
    with connect(url).begin() as connection:
        if connection.scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :n"), {"n": name}):
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
    admin(server, f"DROP ROLE IF EXISTS {name}")


def of(url: str, role: str) -> str:
    """The URL of a role."""
    made = sa.make_url(url).set(username=role, password=PASSWORD)
    return made.render_as_string(hide_password=False)


def refused(engine: sa.Engine, statement: str) -> bool:
    """Whether a role may not execute a statement."""
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        return getattr(error.orig, "pgcode", None) == "42501"
    return False


def test_the_embedded_servers_role_is_no_superuser(server):
    assert query(server, "SELECT usesuper FROM pg_user WHERE usename = current_user") == [(False,)]


def test_a_workers_role_deletes_creates_changes_and_drops_nothing(url, role):
    assert grant(connect(url), role, PASSWORD)
    theirs = connect(of(url, role))

    for table in TABLES:
        assert refused(theirs, f"DELETE FROM {table}"), table
        assert refused(theirs, f"TRUNCATE {table}"), table
        assert refused(theirs, f"DROP TABLE {table}"), table
        assert refused(theirs, f"ALTER TABLE {table} ADD COLUMN more integer"), table
    for schema in ("hpo", "public"):
        assert refused(theirs, f"CREATE TABLE {schema}.mine (a integer)")
    assert refused(theirs, "UPDATE hpo.schema_version SET version = 1")
    assert refused(theirs, "CREATE SCHEMA mine")
    assert refused(theirs, "DROP FUNCTION hpo.is_over(uuid)")
    assert not refused(theirs, "SELECT * FROM hpo.leases, public.trials")


@pytest.mark.acceptance
def test_a_study_runs_to_its_end_under_a_workers_role(url, role, command: Command, tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    granted = command("grant", role, "--password_file", str(file))
    without = of(url, role).replace(f":{PASSWORD}@", "@")
    program = Program(without, tmp_path / "theirs", is_executed=True)
    program.environment["HPO_STORAGE_PASSWORD_FILE"] = str(file)

    run = program.start(*QUADRATIC, "--n_trials", "6", "--workers", "2", "--json", "--verbose")
    arguments = set()
    while run.poll() is None:
        arguments.add(subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout)
        time.sleep(0.1)
    ran = subprocess.CompletedProcess(run.args, run.returncode, *run.communicate())

    assert granted.returncode == 0, granted.stderr
    assert ran.returncode == 0, ran.stderr
    assert any("hpo worker" in one for one in arguments)
    assert not any(PASSWORD in one for one in arguments)
    assert sum(states(url).values()) == 6
    logs = "".join(path.read_text() for path in (tmp_path / "theirs").rglob("*.log"))
    assert "worker of study" in logs
    assert PASSWORD not in ran.stdout + ran.stderr + granted.stdout + granted.stderr + logs


def test_a_role_that_could_write_before_may_use_what_a_later_version_adds(url, role, db):
    grant(db, role, PASSWORD)
    with db.begin() as connection:
        # As a version without these left it.
        connection.exec_driver_sql(f"REVOKE ALL ON hpo.spans, hpo.spending FROM {role}")
        connection.exec_driver_sql(f"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA hpo FROM {role}")
        connection.exec_driver_sql("DROP TABLE hpo.spans, hpo.spending")
        for name in ("gpus", "step_s", "gpu_bytes"):
            connection.exec_driver_sql(f"ALTER TABLE hpo.leases DROP COLUMN {name}")
        connection.exec_driver_sql("ALTER TABLE hpo.tickets DROP COLUMN cancelled")
        connection.exec_driver_sql("UPDATE hpo.schema_version SET version = 6")
    create_tables(db)
    tickets = Tickets(connect(of(url, role)), str(uuid.uuid4()))
    tickets.grow(1)

    ticket = tickets.take(worker="w", slot="s")
    assert ticket is not None
    tickets.release(ticket.run_uid)

    assert tickets.spent().hours < 1
    assert tickets.take(worker="w", slot="s") is not None


def test_who_may_only_read_ends_no_lease(url, role, db):
    tickets = Tickets(db, str(uuid.uuid4()))
    tickets.grow(1)
    ticket = tickets.take(worker="w", slot="s")
    assert ticket is not None
    with db.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA hpo TO {role}")
        connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA hpo TO {role}")
    reader = connect(of(url, role))

    assert not refused(reader, "SELECT * FROM hpo.leases")
    assert refused(reader, f"SELECT hpo.end_leases(ARRAY['{ticket.run_uid}'::uuid], 0)")
    assert tickets.beat(ticket.run_uid, {}) is not None


def test_the_owner_is_no_workers_role_and_a_new_one_needs_a_password(url, db, role):
    owner = str(sa.make_url(url).username)

    with pytest.raises(StorageError, match="owns the tables, is a member"):
        grant(db, owner, None)
    with pytest.raises(StorageError, match="does not exist yet; give its password"):
        grant(db, role, None)


def test_a_role_that_has_the_owners_rights_by_membership_is_no_workers_role(server, url, db, role):
    owner = str(sa.make_url(url).username)
    admin(server, f"CREATE ROLE {role} LOGIN NOINHERIT", as_superuser=True)
    admin(server, f"GRANT {owner} TO {role}", as_superuser=True)

    try:
        with pytest.raises(StorageError, match="a member of the role that does"):
            grant(db, role, None)
    finally:
        admin(server, f"DROP ROLE {role}", as_superuser=True)


@pytest.mark.parametrize(
    "right",
    [
        "CREATE ON SCHEMA public",
        "CREATE ON DATABASE {database}",
        "DELETE ON public.studies",
        "TRUNCATE ON hpo.metrics",
    ],
)
def test_a_role_that_may_more_by_the_rights_of_all_is_refused(url, db, role, right):
    right = right.format(database=sa.make_url(url).database)
    with db.begin() as connection:
        connection.exec_driver_sql(f"GRANT {right} TO PUBLIC")

    with pytest.raises(StorageError, match=f"REVOKE {right} FROM PUBLIC"):
        grant(db, role, PASSWORD)

    with db.begin() as connection:
        connection.exec_driver_sql(f"REVOKE {right} FROM PUBLIC")
    assert grant(db, role, PASSWORD)


def test_an_owner_that_may_create_no_role_is_told_what_to_have_written(url, db, role):
    other = f"{role}b"
    grant(db, role, PASSWORD)

    with pytest.raises(StorageError, match=f'CREATE ROLE "{other}" LOGIN PASSWORD'):
        grant(connect(of(url, role)), other, PASSWORD)
