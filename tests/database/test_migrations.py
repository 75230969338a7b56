"""A database of an earlier version has the same tables, indexes and triggers as a new one."""

from __future__ import annotations

import psycopg2
import pytest

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from tests.support.program import ROOT

EARLIER = ROOT / "tests" / "data" / "a6cd77b" / "begun.sql"
STATEMENTS = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'hpo'
    """,
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'hpo'",
    "triggers": """
        SELECT pg_get_triggerdef(oid) FROM pg_trigger
        WHERE tgrelid = 'hpo.tickets'::regclass AND NOT tgisinternal
    """,
    "functions": """
        SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'hpo'::regnamespace
    """,
    "version": "SELECT version FROM hpo.schema_version",
}


def found(url: str, what: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(STATEMENTS[what])
            return sorted(cursor.fetchall())
    finally:
        connection.close()


@pytest.fixture
def brought(empty_url: str) -> str:
    connection = psycopg2.connect(empty_url.replace("+psycopg2", ""))
    with connection, connection.cursor() as cursor:
        cursor.execute(EARLIER.read_text())
    connection.close()
    engine = connect(empty_url)
    create_tables(engine)
    engine.dispose()
    return empty_url


@pytest.mark.parametrize("what", STATEMENTS)
def test_what_an_earlier_version_left_becomes_what_this_one_makes(brought, url, what):
    assert found(brought, what) == found(url, what)
    assert found(url, what)
