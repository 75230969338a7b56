"""PostgreSQL connections: engines from URLs, and advisory locks.

A process has one engine, which Optuna's storage uses, too. Border: knows nothing of Optuna, tickets
or trials; `patience` waits for a database that is away, `waiting` for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError

from hpo.database import waiting
from hpo.database.faults import is_outage, is_read_only, reason
from hpo.database.patience import with_retries
from hpo.errors import ConfigurationError, StorageError

DRIVER = "postgresql+psycopg2"
STORAGE = "--storage or HPO_STORAGE"
# A thread uses one connection at a time, and one more for each of `alone` and `locked` around it. A
# run prepares its study under two of them. From then on it listens for notices on one and reads by
# another; were only one kept open, each read would make its own. A worker listens on one of its two
# while it has no ticket and so no beat.
CONNECTIONS, KEPT = 3, 2
# A thread that needs longer for a free connection waits for one that waits for an outage.
_POOL_S = 10.0
# A partner that vanished without a word is noticed after 20 to 25 s.
_PARAMETERS: dict[str, Any] = {
    "connect_timeout": int(waiting.CONNECT_S),
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",
}
# A lock that another session holds must not stop a process for ever. A client that was suspended or
# vanished inside a transaction must not hold its locks for hours. PgBouncer refuses such settings
# at the start of a connection, where they would also replace the options of the URL.
_SETTINGS = (
    "SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '60s';"
    " SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)

# What libpq says of TLS, and what to write in the URL.
_TLS = (
    (
        "does not match host name",
        "name the host as its certificate does, or write sslmode=verify-ca in the URL",
    ),
    (
        "certificate verify failed",
        "name the certificate of the authority that signed the server's: sslrootcert=FILE",
    ),
    (
        "root certificate file .* does not exist",
        "name the file with the authority's certificate: sslrootcert=FILE, or =system",
    ),
    (
        "no encryption$",
        "if it takes TLS alone, write ?sslmode=verify-full&sslrootcert=FILE in the URL",
    ),
    (
        "server does not support SSL",
        "have it offer TLS, or leave sslmode out on a network that you trust",
    ),
)

T = TypeVar("T")


def mask(url: str | URL) -> str:
    """The URL with its password replaced by ***, in its query too, even if it cannot be parsed."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    # The match runs to the last @, because a password may contain @ and /, a user's name @.
    text = re.sub(r"(?s)(://[^:/]*):(.*)@", r"\1:***@", text)
    if "://" not in text:
        text = re.sub(r":[^/]*@", ":***@", text)
    return re.sub(r"(?i)(pass\w*=)[^&]*", r"\1***", text)


def parse_url(url: str, *, flag: str = STORAGE) -> URL:
    """Parse a storage URL, which must name PostgreSQL and its driver.

    Args:
        flag: The option that gave the URL, for messages.

    Raises:
        ConfigurationError: The URL is malformed, names another database system or no driver.
    """
    where = f"({flag})"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # It is not shown: where its password begins and ends cannot be read either.
        raise ConfigurationError(
            f"the storage URL cannot be read; write '{DRIVER}://USER:PASSWORD@HOST/DATABASE' "
            f"{where}"
        ) from None
    if parsed.drivername == DRIVER:
        return parsed
    if parsed.drivername in ("postgres", "postgresql"):
        fixed = mask(parsed.set(drivername=DRIVER))
        raise ConfigurationError(
            f"storage URL '{mask(parsed)}' does not name its driver; write '{fixed}' {where}"
        )
    embedded = ", or leave it out for the embedded one" if flag == STORAGE else ""
    raise ConfigurationError(
        f"storage URL '{mask(parsed)}' is not a PostgreSQL database with psycopg2; write "
        f"'{DRIVER}://USER:PASSWORD@HOST/DATABASE'{embedded} {where}"
    )


def connect(
    url: str,
    *,
    application: str = "client",
    flag: str = STORAGE,
    needs_writes: bool = False,
    connections: int = CONNECTIONS,
    kept: int = KEPT,
) -> sa.Engine:
    """A SQLAlchemy engine on the database, tested by a connection. It is tried once.

    Args:
        application: The name under which the server lists the connections, after "hpo ".
        flag: The option that gave the URL, for messages.
        needs_writes: Refuse a server that is read-only, and prefer among several the one that
            takes writes.
        connections: The most connections at the same time.
        kept: The most that stay open while they are not used.

    Raises:
        ConfigurationError: The URL cannot work.
        StorageError: The server cannot be reached or refuses the login.
    """
    parsed = parse_url(url, flag=flag)
    # The URL's own parameters overrule these.
    parameters = {name: _PARAMETERS[name] for name in _PARAMETERS if name not in parsed.query}
    if not needs_writes:
        parameters.pop("target_session_attrs", None)
    engine = sa.create_engine(
        parsed,
        pool_size=kept,
        max_overflow=connections - kept,
        pool_timeout=_POOL_S,
        connect_args={"application_name": f"hpo {application}", **parameters},
    )
    sa.event.listen(engine, "connect", _set_up)
    sa.event.listen(engine, "checkout", _replace_if_closed)
    sa.event.listen(engine, "handle_error", _leave_if_read_only)
    try:
        engine.connect().close()
    except DBAPIError as error:
        engine.dispose()
        raise StorageError(f"{_refusal(mask(url), error)} ({flag})") from error
    return engine


def _refusal(shown: str, error: DBAPIError) -> str:
    """The sentence on a storage that cannot be connected to."""
    said = reason(error)
    if "session is read-only" in said:
        return f"storage '{shown}' is read-only; name the primary, or have it take writes"
    if "unsupported startup parameter" in said:
        return (
            f"storage '{shown}' is behind PgBouncer, which does not pass options on: {said}; "
            "leave them out of the URL and write ALTER ROLE ... SET search_path = ..."
        )
    cure = next((f"; {text}" for pattern, text in _TLS if re.search(pattern, said)), "")
    return f"storage '{shown}' does not answer: {said}{cure}"


def _set_up(connection: Any, _: object) -> None:
    """Set what holds for a new connection, in one round trip."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS)
    connection.autocommit = False


def _replace_if_closed(connection: Any, _: object, proxy: Any) -> None:
    """Replace a connection that the server has closed; to see that takes no round trip."""
    try:
        if not waiting.is_readable(connection):
            return
        # The server has something to say: a farewell, or a changed setting.
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except Exception as error:
        raise DisconnectionError("the server has closed this connection") from error


def _leave_if_read_only(context: sa.engine.ExceptionContext) -> None:
    """Close the connections to a server that takes no writes any more, as after a failover."""
    if is_read_only(context.original_exception):
        context.is_disconnect = True


def other_programs(engine: sa.Engine) -> list[str]:
    """Names of this service's programs connected to the database: runs, workers, dashboards."""
    statement = sa.text("""
        SELECT DISTINCT application_name FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'hpo %'
        AND application_name <> 'hpo client' ORDER BY 1
    """)
    with engine.connect() as connection:
        return list(connection.scalars(statement))


@contextmanager
def locked(engine: sa.Engine, name: str) -> Iterator[None]:
    """Hold the advisory lock of this name; others wait for it."""

    def take(connection: sa.Connection) -> None:
        stay(connection)
        lock(connection, name)

    with held(engine, take):
        yield


@contextmanager
def alone(engine: sa.Engine, name: str) -> Iterator[bool]:
    """Try to hold the advisory lock of this name without waiting; yield True if it is held."""
    statement = sa.text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")

    def take(connection: sa.Connection) -> bool:
        stay(connection)
        return bool(connection.scalar(statement, {"name": name}))

    with held(engine, take) as is_alone:
        yield is_alone


@contextmanager
def held(engine: sa.Engine, take: Callable[[sa.Connection], T]) -> Iterator[T]:
    """Hold the locks that `take` takes, by a transaction that writes nothing; yield its result.

    If its connection breaks, others may take the locks from then on; nothing is raised for it.
    """

    def taken() -> tuple[sa.Connection, T]:
        connection = engine.connect()
        try:
            return connection, take(connection)
        except BaseException:
            connection.close()
            raise

    connection, result = with_retries(taken)
    try:
        yield result
    finally:
        try:
            connection.rollback()
        except DBAPIError as error:
            if not is_outage(error):
                raise
            connection.invalidate(error)
        finally:
            connection.close()


def stay(connection: sa.Connection) -> None:
    """Let a transaction wait for its client without limit: its locks last as long as its work."""
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def lock(connection: sa.Connection, name: str) -> None:
    """Hold the advisory lock of this name until the transaction ends; wait for it without limit."""
    statement = sa.text("""
        SELECT set_config('lock_timeout', '0', true),
        pg_advisory_xact_lock(hashtextextended(:name, 0)),
        set_config('lock_timeout', before.setting, true)
        FROM (SELECT current_setting('lock_timeout') AS setting OFFSET 0) AS before
    """)
    connection.execute(statement, {"name": name})
