"""A database that is another program's, or where a right is missing: a line, and no table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.errors import StorageError
from tests.support.program import Program
from tests.support.servers import admin
from tests.support.studies import QUADRATIC


def sql(url: str, *statements: str) -> None:
    with connect(url).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def tables(url: str) -> set[str]:
    statement = """
        SELECT schemaname || '.' || tablename FROM pg_tables
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    """
    with connect(url).connect() as connection:
        return set(connection.scalars(sa.text(statement)))


def schemas(url: str) -> set[str]:
    return {name.partition(".")[0] for name in tables(url)}


@pytest.fixture
def guest(server, empty_url: str) -> Iterator[str]:
    """The URL of a role that may write schema `mine` alone, which it chooses as its own."""
    database = empty_url.rsplit("/", 1)[1]
    admin(server, "CREATE ROLE guest_of_mine LOGIN PASSWORD 'p'")
    sql(
        empty_url,
        "CREATE SCHEMA mine AUTHORIZATION guest_of_mine",
        "REVOKE CREATE ON SCHEMA public FROM public",
        f"REVOKE CREATE ON DATABASE {database} FROM guest_of_mine",
    )
    yield (
        sa.make_url(empty_url)
        .set(username="guest_of_mine", password="p")
        .update_query_dict({"options": "-csearch_path=mine"})
        .render_as_string(False)
    )
    sql(empty_url, "DROP OWNED BY guest_of_mine", "DROP ROLE guest_of_mine")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("bda7b8c39065", "is another program's: its alembic_version is 'bda7b8c39065'; name"),
        ("v2.4.0.a", "is of an older Optuna: .*; write 'optuna storage upgrade"),
    ],
)
def test_tables_that_are_not_this_optunas_are_left_alone(empty_url, row, says):
    sql(
        empty_url,
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{row}')",
    )

    with pytest.raises(StorageError, match=says) as refused:
        create_tables(connect(empty_url))

    assert "\n" not in str(refused.value)
    assert tables(empty_url) == {"public.alembic_version"}
    with connect(empty_url).connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == row


def test_tables_of_a_later_optuna_are_left_alone_beside_ours(url):
    sql(url, "UPDATE alembic_version SET version_num = 'v99.0.0.a'")

    with pytest.raises(StorageError, match=r"is of a later Optuna: .*; update Optuna"):
        create_tables(connect(url))


def test_a_missing_right_is_named_and_its_sql_is_enough(guest, empty_url):
    with pytest.raises(StorageError, match="may not create schema hpo") as first:
        create_tables(connect(guest))
    before = tables(empty_url)

    sql(empty_url, str(first.value).partition("write: ")[2])
    create_tables(connect(guest))

    assert before == set()
    assert schemas(empty_url) == {"mine", "hpo"}


def test_a_schema_that_may_not_be_written_is_named(guest, empty_url):
    sql(empty_url, "CREATE SCHEMA hpo AUTHORIZATION guest_of_mine")
    elsewhere = guest.replace("mine", "public").replace("guest_of_public", "guest_of_mine")

    with pytest.raises(StorageError, match='GRANT CREATE ON SCHEMA "public" TO "guest_of_mine"'):
        create_tables(connect(elsewhere))
    with pytest.raises(StorageError, match="names no schema that exists"):
        create_tables(connect(elsewhere.replace("public", "nowhere")))

    assert tables(empty_url) == set()


def test_a_search_path_that_misses_the_tables_of_optuna_makes_no_second_ones(guest, empty_url):
    sql(empty_url, "CREATE SCHEMA hpo AUTHORIZATION guest_of_mine")
    create_tables(connect(guest))

    with pytest.raises(StorageError, match="are in schema 'mine', which search_path"):
        create_tables(connect(empty_url))

    assert schemas(empty_url) == {"mine", "hpo"}


@pytest.mark.acceptance
def test_a_study_runs_in_the_schema_that_the_url_chooses(guest, empty_url, tmp_path):
    sql(empty_url, "CREATE SCHEMA hpo AUTHORIZATION guest_of_mine")

    ran = Program(guest, tmp_path / "home")(*QUADRATIC, "--n_trials", "2", "--workers", "1")

    assert ran.returncode == 0, ran.stderr
    assert schemas(empty_url) == {"mine", "hpo"}
