"""The rights of a worker's role: to read, add and change what a study needs, and to delete nothing.

A role that runs workers has no rights to create, change or drop tables, and no DELETE on any table,
Optuna's or ours. What a worker deletes, functions of the owner delete for it (`spending`,
`removal`). Border: SQL and its execution as the owner; `cli.grant` is the command.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from optuna.storages._rdb import models
from psycopg2.extensions import encrypt_password

from hpo.database.preconditions import look
from hpo.database.schema import OWN, version_table
from hpo.errors import StorageError

# These delete with the rights of the owner, and so not for everyone who may use the schema.
_AS_OWNER = (
    "hpo.fold_spans(uuid)",
    "hpo.end_leases(uuid[], integer)",
    "hpo.clear_records(uuid, integer[])",
    "hpo.discard_checkpoints(uuid, integer, integer, integer)",
    "hpo.forget_workers(uuid, text[], text[])",
)

# A role that could write the leases before is a worker's. It needs the functions, and the tables
# that this version has added: those on which nobody has been granted a right yet.
_HAND_ON = """
DO $$
DECLARE
    v_role text;
    v_table regclass;
BEGIN
    FOR v_role IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class c, aclexplode(c.relacl)
        WHERE c.oid = 'hpo.leases'::regclass AND grantee <> relowner
        AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
        GROUP BY grantee HAVING count(DISTINCT privilege_type) = 3
    LOOP
        EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hpo TO %s', v_role);
        FOR v_table IN SELECT oid FROM pg_class
            WHERE relnamespace = 'hpo'::regnamespace AND relkind = 'r' AND relacl IS NULL
            AND relname <> 'schema_version'
        LOOP
            EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %s TO %s', v_table, v_role);
        END LOOP;
    END LOOP;
END $$
"""


def hand_on(connection: sa.Connection) -> None:
    """Give the roles of workers what this version has added, and nobody else the functions."""
    revoked = f"REVOKE EXECUTE ON FUNCTION {', '.join(_AS_OWNER)} FROM PUBLIC"
    for statement in (revoked, _HAND_ON):
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def granted(engine: sa.Engine, role: str) -> list[str]:
    """The SQL that gives a role all that a worker needs, and takes what it does not need.

    The tables must be there.
    """
    optunas = look(engine).optunas or "public"
    quote = engine.dialect.identifier_preparer.quote
    to, schema = quote(role), quote(optunas)
    with engine.connect() as connection:
        sequences = list(connection.scalars(sa.text(_SEQUENCES), {"schema": optunas}))
    theirs = [f"{schema}.{quote(t.name)}" for t in models.BaseModel.metadata.sorted_tables]
    versions = [f"{schema}.version_info", f"{schema}.alembic_version", version_table.fullname]
    written = [name for name in theirs if name not in versions]
    written += [table.fullname for table in OWN.sorted_tables if table is not version_table]
    every = ", ".join([*written, *versions])
    return [
        f"REVOKE ALL ON {every} FROM {to}",
        f"REVOKE CREATE ON SCHEMA hpo, {schema} FROM {to}",
        f"GRANT USAGE ON SCHEMA hpo, {schema} TO {to}",
        f"GRANT SELECT ON {every} TO {to}",
        f"GRANT INSERT, UPDATE ON {', '.join(written)} TO {to}",
        *(f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {to}" for _ in sequences[:1]),
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hpo TO {to}",
    ]


_SEQUENCES = """
SELECT s.oid::regclass::text FROM pg_class s
JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE s.relkind = 'S' AND n.nspname = :schema AND t.relname ~ '^(studies|study_|trials|trial_)'
ORDER BY 1
"""


def grant(engine: sa.Engine, role: str, password: str | None) -> bool:
    """Create a worker's role, unless it exists, and give it its rights; return whether it is new.

    Args:
        password: Its password; None leaves that of a role which exists. The server is sent a
            verifier made of it, so that its logs never hold the password.

    Raises:
        StorageError: The role is one that owns tables or may do everything; it has a right too many
            from elsewhere; or it is new, and has no password, or may not be created.
    """
    with engine.begin() as connection:
        refuse(connection, role)
        is_new = connection.scalar(sa.text(_EXISTS), {"role": role}) is None
        if is_new and password is None:
            raise StorageError(f"role '{role}' does not exist yet; give its password")
        if is_new and not connection.scalar(sa.text(_MAY_CREATE)):
            raise StorageError(
                f"role '{role}' does not exist, and this one may not create roles; have an "
                f"administrator write: CREATE ROLE \"{role}\" LOGIN PASSWORD '...', and repeat this"
            )
        for statement in _login(connection, role, password, is_new=is_new):
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        for statement in granted(engine, role):
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        _refuse_more(connection, role)
    return is_new


_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = :role"
_MAY_CREATE = "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
_MAY_ALL = """
SELECT rolsuper OR EXISTS (
    SELECT FROM pg_class c WHERE c.oid = 'hpo.leases'::regclass
    AND pg_has_role(r.oid, c.relowner, 'MEMBER')
) FROM pg_roles r WHERE rolname = :role
"""
# What was not granted to the role by its own name, no REVOKE from it takes.
_MORE = """
SELECT format('%s ON %I.%I', p.name, n.nspname, c.relname) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace, (VALUES ('DELETE'), ('TRUNCATE')) AS p(name)
WHERE c.relkind = 'r' AND has_table_privilege(:role, c.oid, p.name)
AND (n.nspname = 'hpo' OR c.oid IN (SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) t))
UNION ALL
SELECT format('CREATE ON SCHEMA %I', n.nspname) FROM pg_namespace n
WHERE has_schema_privilege(:role, n.oid, 'CREATE') AND n.oid IN (
    SELECT relnamespace FROM pg_class WHERE oid IN ('hpo.leases'::regclass, 'studies'::regclass))
UNION ALL
SELECT format('CREATE ON DATABASE %I', current_database())
WHERE has_database_privilege(:role, current_database(), 'CREATE')
ORDER BY 1
"""


def refuse(connection: sa.Connection, role: str) -> None:
    """Refuse a role that has all rights on the tables."""
    if connection.scalar(sa.text(_MAY_ALL), {"role": role}):
        raise StorageError(
            f"role '{role}' owns the tables, is a member of the role that does, or is a superuser, "
            "and no grant takes rights from it; name another role for the workers"
        )


def _refuse_more(connection: sa.Connection, role: str) -> None:
    """Refuse a role that may do more, as by the rights of PUBLIC or of a role that it is in."""
    tables = [table.name for table in models.BaseModel.metadata.sorted_tables]
    more = list(connection.scalars(sa.text(_MORE), {"role": role, "tables": tables}))
    if more:
        others = f", and {len(more) - 1} rights more" if more[1:] else ""
        raise StorageError(
            f"role '{role}' has {more[0]}{others}, from PUBLIC or from a role that it is a member "
            f"of, and nothing was changed; have an administrator write: REVOKE {more[0]} FROM "
            "PUBLIC (or that role), and repeat this"
        )


def _login(
    connection: sa.Connection, role: str, password: str | None, *, is_new: bool
) -> Iterator[str]:
    name = connection.dialect.identifier_preparer.quote(role)
    if is_new:
        yield f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"
    if password is not None:
        driver = connection.connection.dbapi_connection
        verifier = encrypt_password(password, role, driver, "scram-sha-256")
        yield f"ALTER ROLE {name} LOGIN PASSWORD '{verifier}'"
