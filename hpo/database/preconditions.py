"""Conditions of a database that must hold before a table is created in it.

Border: only reads. `migrations` raises what is found here, `doctor` shows it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from optuna.storages import _rdb

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_SCRIPTS = Path(str(_rdb.__file__)).parent / "alembic"
_REVISION = re.compile(r"""^((?:down_)?revision)\b.*=\s*["'](.+)["']""", re.MULTILINE)
ELSEWHERE = "name another database (--storage or HPO_STORAGE), or another schema in search_path"

# A schema called as the role comes first in the usual search_path, here `hpo` for role `hpo`. So
# tables are looked up by their names alone, as PostgreSQL would find them.
_LOOK = sa.text("""
    SELECT current_user AS role, current_database() AS database, current_schema() AS schema,
    current_setting('search_path') AS search_path,
    own.oid IS NOT NULL AS has_own_schema,
    coalesce(has_schema_privilege(own.oid, 'USAGE'), true) AS may_use_own,
    coalesce(has_schema_privilege(own.oid, 'CREATE'),
        has_database_privilege(current_database(), 'CREATE')) AS may_create_own,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
    (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c
        WHERE c.relnamespace = own.oid AND c.relname = 'tickets') AS owns_tables,
    EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = own.oid AND c.relname = 'schema_version')
        AS has_own_tables,
    (SELECT c.oid::regclass::text FROM pg_class c WHERE (c.oid = to_regclass('alembic_version')
        OR c.relnamespace = own.oid AND c.relname = 'schema_version')
        AND NOT has_table_privilege(c.oid, 'SELECT') LIMIT 1) AS unreadable,
    to_regclass('alembic_version') IS NOT NULL AS has_revision,
    (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass('version_info')) AS optunas,
    (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = 'trial_values' AND NOT pg_table_is_visible(c.oid) LIMIT 1) AS elsewhere
    FROM (SELECT 1) AS one LEFT JOIN pg_namespace own ON own.nspname = 'hpo'
""")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The state of a database before a table is created.

    Attributes:
        schema: The schema that unqualified tables are created in; None if search_path has none.
        has_own_tables: Whether schema hpo has tables of ours.
        owns_tables: Whether the role owns them; None without tables.
        optunas: The schema of Optuna's tables; None if search_path finds none.
        elsewhere: Another schema, with tables of Optuna's that are not found by search_path.
        unreadable: A table that holds a version, if the role may not read it.
        revision: The row of `alembic_version`, empty without a row; None without the table.
        version: The version of our tables; None without them, or without the right to read it.
    """

    role: str
    database: str
    schema: str | None
    search_path: str
    has_own_schema: bool
    may_use_own: bool
    may_create_own: bool
    may_create: bool
    owns_tables: bool | None
    has_own_tables: bool
    optunas: str | None
    elsewhere: str | None
    unreadable: str | None
    revision: str | None = None
    version: int | None = None

    @property
    def is_optunas(self) -> bool:
        """Whether the tables of Optuna are there, as this version of it makes them."""
        return self.optunas is not None and self.revision == head()


def look(engine: sa.Engine) -> Found:
    """Read the state of a database."""
    with engine.connect() as connection:
        row = dict(connection.execute(_LOOK).mappings().one())
        revision = version = None
        may_read = row["unreadable"] is None
        if row.pop("has_revision") and may_read:
            found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            revision = found or ""
        if row["has_own_tables"] and row["may_use_own"] and may_read:
            version = connection.scalar(sa.text("SELECT version FROM hpo.schema_version"))
    return Found(**row, revision=revision, version=version)


@cache
def head() -> str:
    """The revision of Optuna's tables that this version of Optuna makes.

    It is read from Optuna's scripts: to import them with alembic takes each process 90 ms.
    """
    files = (_SCRIPTS / "versions").glob("*.py")
    found = [dict(_REVISION.findall(file.read_text(encoding="utf-8"))) for file in files]
    earlier = {one.get("down_revision") for one in found}
    heads = {one.get("revision") for one in found} - earlier - {None}
    if len(heads) != 1:
        return _scripts().get_current_head() or ""
    return str(heads.pop())


def _scripts() -> ScriptDirectory:
    # Its import tells a worker's log each of its plugins.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_SCRIPTS))


def foreign(found: Found) -> tuple[str, str] | None:
    """The fault and the cure of tables that are not this version of Optuna's; None if they are."""
    if found.revision is None:
        if found.has_own_tables and found.optunas is None and found.elsewhere is not None:
            return (
                "the tables of Optuna that belong to schema hpo are in schema "
                f"'{found.elsewhere}', which search_path ({found.search_path}) does not name",
                "name it there, or another database (--storage or HPO_STORAGE)",
            )
        return None
    known = [script.revision for script in _scripts().walk_revisions()]
    row = f"its alembic_version is '{found.revision}'"
    if found.revision not in known:
        if found.optunas is not None:
            return f"database '{found.database}' is of a later Optuna: {row}", "update Optuna"
        return f"database '{found.database}' is another program's: {row}", ELSEWHERE
    if found.revision != head():
        return (
            f"database '{found.database}' is of an older Optuna: {row}",
            f"write 'optuna storage upgrade --storage URL', or {ELSEWHERE}",
        )
    if found.optunas is None:
        return f"database '{found.database}' lacks tables of Optuna's, and {row}", ELSEWHERE
    return None


def grants(found: Found) -> str:
    """The SQL that grants all that a study needs to the role, where the tables are there."""
    where = f'IN SCHEMA hpo, {found.optunas or "public"} TO "{found.role}"'
    return (
        f'GRANT USAGE ON SCHEMA hpo TO "{found.role}"; '
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES {where}; "
        f"GRANT USAGE ON ALL SEQUENCES {where}; "
        f'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hpo TO "{found.role}"'
    )


def missing_right(found: Found) -> tuple[str, str] | None:
    """The fault and the SQL for a role that may not create what is missing; None if it may."""
    role = f"role '{found.role}'"
    to = f'TO "{found.role}"'
    if not found.may_use_own and not found.has_own_tables:
        return f"{role} may not use schema hpo", f"GRANT USAGE, CREATE ON SCHEMA hpo {to}"
    if not found.may_use_own:
        return f"{role} may not use schema hpo", grants(found)
    if found.unreadable is not None:
        return f"{role} may not read '{found.unreadable}'", grants(found)
    if not found.may_create_own and found.has_own_schema:
        return f"{role} may not create tables in schema hpo", f"GRANT CREATE ON SCHEMA hpo {to}"
    if not found.may_create_own:
        return (
            f"{role} may not create schema hpo in database '{found.database}'",
            f'CREATE SCHEMA hpo AUTHORIZATION "{found.role}"',
        )
    if found.owns_tables is False:
        return (
            f"{role} does not own the tables in schema hpo, which are of an earlier version",
            "run any command once as the role that owns them",
        )
    if found.optunas is not None or found.may_create:
        return None
    if found.schema is None:
        return (
            f"search_path ({found.search_path}) names no schema that exists",
            f'CREATE SCHEMA ... AUTHORIZATION "{found.role}"',
        )
    return (
        f"{role} may not create tables in schema '{found.schema}'",
        f'GRANT CREATE ON SCHEMA "{found.schema}" {to}',
    )
