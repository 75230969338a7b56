"""The cost of a study, and its limits: hours and GPU hours.

Hours are those in which at least one worker held one of its tickets; GPU hours are those of each
ticket that was held on a GPU, times its share of the GPU. Both are counted by the database's clock,
from the taking of a ticket until it has ended or was given back, over all runs and workers. What
lost workers took counts, up to a lease's life after their last beat. Border: limits and sums;
`hpo.database.spending` counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hpo.database.patience import with_retries
from hpo.database.schema import spending

_HOUR_S = 3600.0
_READ = sa.text("SELECT * FROM hpo.spent(CAST(:study_uid AS uuid))")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a study has spent by now.

    Attributes:
        hours: Hours in which at least one of its trials was being trained.
        gpu_hours: Hours of its trials on GPUs.
        lost: Workers that were lost.
        max_hours: The most hours; None for no limit.
        max_gpu_hours: The most GPU hours; None for no limit.
    """

    hours: float = 0.0
    gpu_hours: float = 0.0
    lost: int = 0
    max_hours: float | None = None
    max_gpu_hours: float | None = None

    @property
    def reached(self) -> str | None:
        """The flag of the limit that was reached; None if the study may go on."""
        over = (one.flag for one in self._kinds() if one.most is not None and one.used >= one.most)
        return next(over, None)

    def parts(self) -> list[str]:
        """What was spent in words, as '0.31 of 2 GPU hours'; GPU hours only where there are any."""
        kinds = self._kinds()
        return [str(one) for one in kinds if one.used or one.most is not None or one is kinds[-1]]

    def limited(self) -> list[str]:
        """The same of what has a limit."""
        return [str(one) for one in self._kinds() if one.most is not None]

    def sentence(self, *, left: int) -> str:
        """The sentence for a study whose budget is spent.

        Args:
            left: The number of its tickets that stay open.
        """
        used = next((str(one) for one in self._kinds() if one.flag == self.reached), "")
        stay = f"{left} trial{' stays' if left == 1 else 's stay'} open"
        return f"the study's budget is spent ({used}): {stay}, and a larger {self.reached} goes on"

    def _kinds(self) -> Sequence[_Kind]:
        return (
            _Kind("GPU hours", "--max_gpu_hours", self.gpu_hours, self.max_gpu_hours),
            _Kind("hours", "--max_hours", self.hours, self.max_hours),
        )

    def flat(self) -> dict[str, Any]:
        """All fields as plain data for JSON."""
        rounded = {"hours": round(self.hours, 4), "gpu_hours": round(self.gpu_hours, 4)}
        return asdict(self) | rounded


class _Kind(NamedTuple):
    """A kind of hours: its name and flag, what was used, and the most."""

    name: str
    flag: str
    used: float
    most: float | None

    def __str__(self) -> str:
        small = 0 < self.used < 0.01
        shown = f"{self.used:.2g}" if small else f"{self.used:.2f}"
        return f"{shown}{'' if self.most is None else f' of {self.most:g}'} {self.name}"


def read_spent(connection: sa.Connection, study_uid: str) -> Spent:
    """What a study has spent by now, living workers included."""
    row = connection.execute(_READ, {"study_uid": study_uid}).one()
    return Spent(
        hours=row.busy_s / _HOUR_S,
        gpu_hours=row.gpu_s / _HOUR_S,
        lost=row.lost,
        max_hours=row.max_hours,
        max_gpu_hours=row.max_gpu_hours,
    )


def spent(engine: sa.Engine, study_uid: str) -> Spent:
    """What a study has spent by now, retried while the database is away."""

    def once() -> Spent:
        with engine.connect() as connection:
            return read_spent(connection, study_uid)

    return with_retries(once)


def limit(engine: sa.Engine, study_uid: str, given: Mapping[str, float | None]) -> None:
    """Set limits of a study by their columns; None leaves one as it is, infinity removes it."""
    asked = {name: hours for name, hours in given.items() if hours is not None}
    values = {name: None if math.isinf(hours) else hours for name, hours in asked.items()}
    statement = insert(spending).values(study_uid=study_uid, **values)
    key = ["study_uid"]
    if values:
        statement = statement.on_conflict_do_update(index_elements=key, set_=values)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=key)

    def once() -> None:
        with engine.begin() as connection:
            connection.execute(statement)

    with_retries(once)
