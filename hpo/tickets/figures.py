"""The figures of a whole study at one moment, as a monitor shows them: read, and never waited for.

Border: reads alone, and raises while the database is away; `hpo.fleet.metrics` serves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from hpo.database.ended import Group, Snapshot
from hpo.database.frozen import snapshot
from hpo.database.schema import identities, leases, tickets
from hpo.tickets.spent import Spent, read_spent


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lease, as its worker's last beat left it.

    Attributes:
        silent_s: Time since that beat, in s.
        step_s: Mean time of its latest steps, in s; None before the first beat of a training.
        gpu_bytes: GPU memory that its process holds; None on a CPU.
    """

    worker: str
    silent_s: float
    step_s: float | None
    gpu_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a study.

    Attributes:
        tickets: Numbers of tickets by state.
        ended: The ended trials by outcome.
    """

    study: str
    tickets: Mapping[str, int]
    leases: Sequence[Held]
    spent: Spent
    ended: Sequence[Group] = field(default_factory=tuple)


def read_figures(engine: sa.Engine, study_uid: str) -> Figures | None:
    """Read the figures of a study; None if it was deleted.

    Raises:
        SQLAlchemyError: The database is away.
    """
    silent_s = sa.cast(sa.extract("epoch", sa.func.now() - leases.c.beat_at), sa.Float)
    held = sa.select(
        leases.c.worker, silent_s.label("silent_s"), leases.c.step_s, leases.c.gpu_bytes
    ).where(leases.c.study_uid == study_uid)
    counted = (
        sa.select(tickets.c.state, sa.func.count())
        .where(tickets.c.study_uid == study_uid)
        .group_by(tickets.c.state)
    )
    # The uid's study of Optuna, under whatever name.
    bound = sa.select(identities.c.study_id, identities.c.name).where(
        identities.c.study_uid == study_uid
    )
    with snapshot(engine) as connection:
        study = connection.execute(bound).one_or_none()
        if study is None:
            return None
        return Figures(
            study=study.name,
            tickets={row[0]: row[1] for row in connection.execute(counted)},
            leases=[Held(**row) for row in connection.execute(held).mappings()],
            spent=read_spent(connection, study_uid),
            ended=Snapshot(connection, study.study_id).groups(),
        )
