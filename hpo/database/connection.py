"""PostgreSQL connections: engines from URLs, advisory locks, retries during an outage.

Border: knows nothing of Optuna, tickets or trials.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from hpo.errors import ConfigurationError, StorageError

DRIVER = "postgresql+psycopg2"
STORAGE = "--storage or HPO_STORAGE"
# A dead host must be reported in less than 5 s.
_CONNECT_TIMEOUT_S = 3
# A trial waits out a shorter outage. This is well below a lease's life (`LEASE_S`, 90 s).
_PATIENCE_S = 45.0

_logger = logging.getLogger(__name__)
T = TypeVar("T")


def mask(url: str | URL) -> str:
    """The URL with its password replaced by ***, in its query too, even if it cannot be parsed."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    # The match runs to the last @, because a password may contain @ and /, a user's name @.
    text = re.sub(r"(://[^:/]*):(.*)@", r"\1:***@", text)
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
        raise ConfigurationError(
            f"storage URL '{mask(url)}' cannot be read; write "
            f"'{DRIVER}://USER:PASSWORD@HOST/DATABASE' {where}"
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


def engine_kwargs(application: str) -> dict[str, Any]:
    """Arguments of `create_engine` for every connection of this program."""
    return {
        # With fewer than two, RDBStorage waits for a connection that it holds itself.
        "pool_size": 2,
        "max_overflow": 4,
        "pool_pre_ping": True,
        "connect_args": {
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": f"hpo {application}",
            # Optuna's timestamps are naive UTC; another zone would break checks of staleness.
            # A client that vanished inside a transaction must not hold its locks for hours.
            "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60000",
            "tcp_user_timeout": 20_000,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    }


def connect(url: str, *, application: str = "client", flag: str = STORAGE) -> sa.Engine:
    """A SQLAlchemy engine on the database, tested by one round trip.

    Raises:
        ConfigurationError: The URL cannot work.
        StorageError: The server cannot be reached or refuses the login.
    """
    engine = sa.create_engine(parse_url(url, flag=flag), **engine_kwargs(application))
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except DBAPIError as error:
        engine.dispose()
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        raise StorageError(f"storage '{mask(url)}' does not answer: {reason} ({flag})") from error
    return engine


def other_programs(engine: sa.Engine) -> list[str]:
    """Names of this service's programs connected to the database: runs, workers, dashboards."""
    statement = sa.text("""
        SELECT DISTINCT application_name FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'hpo %'
        AND application_name NOT IN ('hpo client', 'hpo prepare') ORDER BY 1
    """)
    with engine.connect() as connection:
        return list(connection.scalars(statement))


@contextmanager
def locked(engine: sa.Engine, name: str) -> Iterator[None]:
    """Hold the advisory lock of this name; others wait for it."""
    with engine.begin() as connection:
        lock(connection, name)
        yield


@contextmanager
def alone(engine: sa.Engine, name: str) -> Iterator[bool]:
    """Try to hold the advisory lock of this name without waiting; yield True if it is held."""
    statement = sa.text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
    with engine.begin() as connection:
        yield bool(connection.scalar(statement, {"name": name}))


def lock(connection: sa.Connection, name: str) -> None:
    """Hold the advisory lock of this name until the transaction ends."""
    statement = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(statement, {"name": name})


_hurried = threading.Event()


def stop_waiting() -> None:
    """End all waiting of this process for the database, because the user wants it to end."""
    _hurried.set()


def is_hurried() -> bool:
    """True if `stop_waiting` was called."""
    return _hurried.is_set()


def set_patience(seconds: float) -> None:
    """Have this process wait for the database for so long."""
    global _PATIENCE_S
    _PATIENCE_S = seconds


def since_outage_s() -> float:
    """The time since the last outage that this process saw ended, in s; infinite without one."""
    return float("inf")


def with_retries(work: Callable[[], T]) -> T:
    """Return the result of `work`, retried for up to 45 s while the database is unreachable.

    `work` must be one transaction, or safe to repeat.
    """
    deadline = time.monotonic() + _PATIENCE_S
    pause_s = 0.1
    while True:
        try:
            return work()
        except Exception as error:
            left_s = deadline - time.monotonic()
            if not _is_outage(error) or pause_s > left_s or _hurried.is_set():
                raise
            _logger.warning(
                "the database is away; trying again in %.1f s, for %.0f s more", pause_s, left_s
            )
        _hurried.wait(pause_s)
        pause_s = min(2 * pause_s, 5.0)


def _is_outage(error: Exception) -> bool:
    # Optuna wraps SQLAlchemy's errors.
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    return isinstance(cause, OperationalError)
