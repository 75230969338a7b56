"""Faults of the database: outages, which pass, told from refusals, which stay.

What an error is, is decided by SQLSTATE, along the whole chain of its causes: Optuna wraps the
errors of SQLAlchemy, which wraps those of psycopg2. Border: errors in, words out; nothing here
waits, connects or prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hpo.errors import HpoError, StorageError

READ_ONLY = "25006"
# Connection exceptions, rollbacks of other sessions' making (a deadlock), a lack of memory, disk or
# connections, a shutdown, errors of the system below, a read-only server, a lock that is held.
_OUTAGES = re.compile(rf"08|40|53|57P|58|{READ_ONLY}|55P03")
_ROLLBACK = re.compile("40")
# psycopg2 gives no SQLSTATE for a connection that was not made. These refusals do not pass.
_LASTING = re.compile(
    r"authentication failed|no pg_hba\.conf entry|no password supplied|ermission denied|"
    r"(role|database|user|file) .*does not exist|not permitted to log in|no such (database|user)|"
    r"unsupported startup parameter|invalid (port|integer|connection option|\w+ value)|"
    r"does not support SSL"
)


# SQLAlchemy's message if a connection and the one in its place broke before they were used.
_REPLACED_IN_VAIN = "This connection is closed"


@dataclass(frozen=True)
class Fault:
    """A fault of the database in words.

    Attributes:
        what: The state of the database, as a clause.
        cure: The step that ends it, as an imperative.
    """

    what: str
    cure: str


AWAY = Fault("the database is away", "start it, or wait for it")
# The first pattern counts that an error's SQLSTATE or its message has.
_FAULTS = (
    (
        rf"^{READ_ONLY}|session is read-only|read-only transaction",
        Fault(
            "the database is read-only",
            "have it take writes, or name the primary server (--storage or HPO_STORAGE)",
        ),
    ),
    (r"^53100|No space left", Fault("the database's disk is full", "make room")),
    (
        r"^53300|too many clients|remaining connection slots|too many connections|no more conn",
        Fault("the database has no free connection", "end other clients, or raise max_connections"),
    ),
    (
        r"query_wait_timeout",
        Fault(
            "PgBouncer has no free connection",
            "raise its default_pool_size to two for each worker and three for each run",
        ),
    ),
    (
        r"^55P03",
        Fault(
            "another session holds a lock on the tables",
            "end that session (pg_stat_activity lists it)",
        ),
    ),
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and everything that it was raised from, outermost first."""
    found: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop(0)
        if one is None or one in found:
            continue
        found.append(one)
        yield one
        context = None if one.__suppress_context__ else one.__context__
        todo += [getattr(one, "orig", None), one.__cause__, context]


def is_outage(error: BaseException) -> bool:
    """Return whether an error says that the database is away, so that trying again helps."""
    if isinstance(error, HpoError) and not isinstance(error, StorageError):
        # The error was raised on purpose, and may only have come up during an outage.
        return False
    found = list(causes(error))
    return not any(map(_is_lasting, found)) and any(map(_is_away, found))


def is_rollback(error: BaseException) -> bool:
    """Return whether the server rolled a transaction back for the sake of another."""
    return any(_ROLLBACK.match(_state(one)) for one in causes(error))


def is_read_only(error: BaseException) -> bool:
    """Return whether the server refused a write because it is read-only, as a standby is."""
    return any(_state(one) == READ_ONLY for one in causes(error))


def _state(error: BaseException) -> str:
    return getattr(error, "pgcode", None) or ""


def _is_away(error: BaseException) -> bool:
    if _state(error):
        return _OUTAGES.match(_state(error)) is not None
    if isinstance(error, psycopg2.InterfaceError):
        return "closed" in str(error)
    if isinstance(error, psycopg2.OperationalError) or type(error) is psycopg2.DatabaseError:
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    if type(error) is InvalidRequestError:
        return str(error) == _REPLACED_IN_VAIN
    return isinstance(error, PendingRollbackError | PoolTimeout)


def _is_lasting(error: BaseException) -> bool:
    is_connecting = isinstance(error, psycopg2.OperationalError) and not _state(error)
    return is_connecting and _LASTING.search(str(error)) is not None


def reason(error: BaseException) -> str:
    """The database's own message of an error, on one line."""
    found = list(causes(error))
    told = next((one for one in reversed(found) if isinstance(one, psycopg2.Error)), None)
    if told is None:
        told = next((one for one in found if isinstance(one, PoolTimeout)), error)
    lines = str(told).strip().splitlines() or [type(told).__name__]
    return " ".join(re.sub(r"^(FATAL|ERROR): ", "", lines[0]).split())


def fault(error: BaseException) -> Fault:
    """The state of the database that an outage shows."""
    texts = [text for one in causes(error) for text in (_state(one), str(one)) if text]
    found = (said for pattern, said in _FAULTS if any(re.search(pattern, x) for x in texts))
    return next(found, AWAY)
