"""The queue of configurations that are tried next: enqueued by a run, or by another program.

A configuration waits in its ticket, not in a trial. Border: gives tickets out and adds some;
`budget` leases them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hpo.database.connection import lock
from hpo.database.patience import with_retries
from hpo.database.schema import tickets


class Queue:
    """The enqueued configurations of one study."""

    def __init__(self, engine: sa.Engine, study_uid: str) -> None:
        self._engine = engine
        self._study_uid = study_uid

    def untried(
        self, configurations: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """The configurations that equal no ticket's and no trial's parameters, each once.

        Args:
            tried: The parameters of the study's trials.
        """

        def once() -> list[Mapping[str, Any]]:
            with self._engine.connect() as connection:
                return self._untried(connection, configurations, tried)

        return with_retries(once)

    def _untried(
        self,
        connection: sa.Connection,
        configurations: Sequence[Mapping[str, Any]],
        tried: Sequence[Mapping[str, Any]],
    ) -> list[Mapping[str, Any]]:
        given = sa.select(tickets.c.params).where(
            tickets.c.study_uid == self._study_uid, tickets.c.params.is_not(None)
        )
        known = found_in(configurations, chain(connection.scalars(given), tried))
        new: list[Mapping[str, Any]] = []
        for one in configurations:
            if one not in known and one not in new:
                new.append(one)
        return new

    def free(self) -> int:
        """The number of open tickets, but the first, with neither a trial nor a configuration."""
        statement = sa.select(sa.func.count()).select_from(tickets).where(*self._free())

        def once() -> int:
            with self._engine.connect() as connection:
                return connection.scalar(statement) or 0

        return with_retries(once)

    def _free(self) -> list[sa.ColumnElement[bool]]:
        return [
            tickets.c.study_uid == self._study_uid,
            tickets.c.state == "open",
            # The first ticket tries the default configuration.
            tickets.c.ticket > 1,
            tickets.c.trial_number.is_(None),
            tickets.c.rerun_of.is_(None),
            tickets.c.params.is_(None),
        ]

    def enqueue(
        self, configurations: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]
    ) -> tuple[int, int]:
        """Assign the untried configurations to the next free tickets, all of them or none.

        Returns:
            The number of configurations that got a ticket, and of tickets that are lacking.
        """

        def once() -> tuple[int, int]:
            with self._engine.begin() as connection:
                # Two runs may enqueue the same file at the same time.
                lock(connection, f"hpo enqueue {self._study_uid}")
                new = self._untried(connection, configurations, tried)
                # A ticket that a worker is taking at this moment is skipped.
                free = sa.select(tickets.c.ticket).where(*self._free()).order_by(tickets.c.ticket)
                chosen = free.limit(len(new)).with_for_update(skip_locked=True)
                found = connection.scalars(chosen).all()
                if len(found) < len(new):
                    return 0, len(new) - len(found)
                for ticket, params in zip(found, new, strict=True):
                    mine = (tickets.c.study_uid == self._study_uid, tickets.c.ticket == ticket)
                    connection.execute(tickets.update().where(*mine).values(params=dict(params)))
                return len(new), 0

        return with_retries(once)

    def reserve(
        self,
        ticket: int,
        choose: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any] | None],
    ) -> Mapping[str, Any] | None:
        """Note what `choose` chooses as the configuration of a leased ticket; return it.

        Those who choose for a study do so one after the other, each with all earlier choices.

        Args:
            choose: Called with the configurations of all other tickets; None leaves the choice to
                the trial. A configuration that the ticket has already is not chosen again.
        """
        mine = (tickets.c.study_uid == self._study_uid, tickets.c.ticket == ticket)

        def once() -> Mapping[str, Any] | None:
            with self._engine.begin() as connection:
                lock(connection, f"hpo enqueue {self._study_uid}")
                earlier: Mapping[str, Any] | None = connection.scalar(
                    sa.select(tickets.c.params).where(*mine)
                )
                if earlier is not None:
                    return earlier
                others = sa.select(tickets.c.params).where(
                    mine[0], tickets.c.ticket != ticket, tickets.c.params.is_not(None)
                )
                chosen = choose(connection.scalars(others).all())
                if chosen is not None:
                    values = {"params": dict(chosen)}
                    connection.execute(tickets.update().where(*mine).values(values))
                return chosen

        return with_retries(once)

    def make_room(self, waiting: sa.ScalarSelect[int]) -> int:
        """Add the tickets that trials enqueued by other programs lack; return their number.

        Args:
            waiting: The expression that counts these trials. Counted in one statement with the
                tickets, a trial that begins at the same time is counted once.
        """
        mine = tickets.c.study_uid == self._study_uid
        # A worker that holds a ticket without a trial is about to begin one.
        is_free = (*self._free()[2:], tickets.c.state.in_(("open", "leased")))
        free = sa.select(sa.func.count()).where(mine, *is_free).scalar_subquery()
        total = sa.select(sa.func.max(tickets.c.ticket)).where(mine).scalar_subquery()
        number = sa.func.generate_series(total + 1, total + waiting - free)
        lacking = sa.select(sa.literal(self._study_uid, tickets.c.study_uid.type), number)
        columns = [tickets.c.study_uid, tickets.c.ticket]
        statement = insert(tickets).from_select(columns, lacking).on_conflict_do_nothing()

        def once() -> int:
            with self._engine.begin() as connection:
                if not connection.scalar(sa.select(waiting)):
                    return 0
                # Two runs may notice the same trials at the same time.
                lock(connection, f"hpo enqueue {self._study_uid}")
                return max(0, connection.execute(statement).rowcount)

        return with_retries(once)


def found_in(
    configurations: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The configurations that equal one of many others, which are looked at once each."""
    by_key: dict[object, list[Mapping[str, Any]]] = {}
    for one in configurations:
        by_key.setdefault(_key(one), []).append(one)
    found: list[Mapping[str, Any]] = []
    for other in others:
        alike = by_key.get(_key(other), ())
        found += (one for one in alike if one == other and one not in found)
    return found


def _key(configuration: Mapping[str, Any]) -> object:
    """Equal for equal configurations, and different for most others."""
    try:
        return frozenset(configuration.items())
    except TypeError:
        # A choice that is a list cannot be hashed.
        return len(configuration)
