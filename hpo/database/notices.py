"""Notices of a study's tickets: a connection that listens, and a process that waits for it.

A trigger on the tickets sends them (`triggers`): a ticket is open, or the last ones have ended.
They only shorten the waiting. Who waits looks again after some time, because a notice may be lost
with its connection, and some poolers pass none on.

Border: knows no ticket; who waits decides for how long, and looks at the tickets itself.
"""

from __future__ import annotations

import logging
import math
import select
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo.database.faults import reason
from hpo.database.limits import is_pooled

# A request to end is obeyed within this time.
_LOOK_S = 0.2
# After a failure to listen, the next attempt is made after this time: each may be a connection.
_AGAIN_S = 5.0

_logger = logging.getLogger(__name__)


class Notices:
    """The notices of one study, on one connection of an engine; a context that gives it back.

    Args:
        study_uid: The study's.

    Attributes:
        is_listening: True while notices arrive, as far as this process knows.
    """

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine, self._channel = engine, f"hpo {study_uid}"
        self._connection: sa.Connection | None = None
        self._driver: Any = None
        self._next_at = -math.inf

    def __enter__(self) -> Notices:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_listening(self) -> bool:
        return self._connection is not None

    def listen(self) -> None:
        """Listen from now on, if it is possible; what came before is not seen."""
        if self._connection is not None or time.monotonic() < self._next_at:
            return
        try:
            self._connection = self._engine.connect()
            self._connection.execution_options(isolation_level="AUTOCOMMIT")
            self._driver = self._connection.connection.dbapi_connection
            if not is_pooled(self._connection):
                self._connection.exec_driver_sql(f'LISTEN "{self._channel}"')
                return
            # In transaction mode it hands a connection, and so the listening, to its next client.
            _logger.info("a pooler is before the database, and may pass no notices on")
            self._next_at = math.inf
        except SQLAlchemyError as error:
            # Whoever waits looks at the tickets next, and waits there for a database that is away.
            _logger.info("no notices: %s", reason(error))
            self._next_at = time.monotonic() + _AGAIN_S
        self.close()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for a notice; return True if one came, or the connection broke."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not stop.is_set():
            if self._driver is None:
                stop.wait(left_s)
            elif self._has_news(min(left_s, _LOOK_S)):
                return True
        return False

    def _has_news(self, seconds: float) -> bool:
        poller = select.poll()
        try:
            poller.register(self._driver.fileno(), select.POLLIN)
            if not self._driver.notifies and poller.poll(math.ceil(1000 * seconds)):
                self._driver.poll()
        except psycopg2.Error as error:
            _logger.info("the connection that listened broke: %s", reason(error))
            self.close()
            return True
        found = bool(self._driver.notifies)
        self._driver.notifies.clear()
        return found

    def rest(self) -> None:
        """Listen no longer, and give the connection back for another purpose."""
        if self._connection is None:
            return
        try:
            self._connection.exec_driver_sql("UNLISTEN *")
            self._connection.close()
            self._connection = self._driver = None
        except SQLAlchemyError:
            self.close()

    def close(self) -> None:
        """Listen no longer, and close the connection; a server that may be away is not asked."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
            connection.close()
