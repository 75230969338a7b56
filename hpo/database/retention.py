"""Retention of predictions: removal of those that are too old or exceed the size limit.

Border: rows of `predictions` alone; no prompt and no output. PostgreSQL reuses the freed room for
later rows; `VACUUM FULL hpo.predictions` returns it to the disk.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from hpo.database.schema import predictions
from hpo.errors import ConfigurationError

_KEY = tuple(predictions.primary_key)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the predictions that are kept.

    Attributes:
        days: Older predictions are removed.
        megabytes: If the remaining ones take more, the oldest are removed.
    """

    days: float = 30.0
    megabytes: float = 1000.0

    def __post_init__(self) -> None:
        for name, flag in (("days", "--older_than"), ("megabytes", "--larger_than")):
            value = getattr(self, name)
            if not 0 <= value <= 1e6:
                raise ConfigurationError(f"{value!r} {name}: write 0 to 1,000,000 ({flag})")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Numbers of removed and kept rows, and their sizes in bytes."""

    of_gone_studies: int
    too_old: int
    too_many: int
    removed_bytes: int
    kept: int
    kept_bytes: int

    @property
    def removed(self) -> int:
        return self.of_gone_studies + self.too_old + self.too_many

    def flat(self) -> dict[str, Any]:
        """All fields and the sum of removed rows, as plain data for JSON."""
        return {**asdict(self), "removed": self.removed}


def collect(
    engine: sa.Engine, limits: Limits, *, living: sa.Select[Any], dry_run: bool = False
) -> Collected:
    """Remove predictions of deleted studies, then old ones, then those beyond the size limit.

    Args:
        living: The statement that selects the uids of the studies that exist. Each of ours looks
            by itself, so that a study that begins meanwhile is one of them.
        dry_run: Count, and remove nothing.
    """
    table = predictions
    size = sa.func.pg_column_size(sa.literal_column("predictions"))
    age = sa.func.now() - table.c.at
    why = sa.case(
        (table.c.study_uid.not_in(living), "of_gone_studies"),
        (age > sa.func.make_interval(0, 0, 0, 0, 0, 0, limits.days * 86400), "too_old"),
    )
    rows = sa.select(*table.primary_key, size.label("bytes"), why.label("why"), table.c.at).cte()
    # The running sum starts at the newest row, so that the size limit removes the oldest.
    room = sa.func.sum(rows.c.bytes).over(
        partition_by=rows.c.why, order_by=[rows.c.at.desc(), *(rows.c[c.name] for c in _KEY)]
    )
    too_many = sa.case((room > limits.megabytes * 1e6, "too_many"))
    judged = sa.select(
        *(rows.c[column.name] for column in _KEY),
        rows.c.bytes,
        sa.func.coalesce(rows.c.why, too_many, "kept").label("why"),
    ).cte()
    counted = sa.select(judged.c.why, sa.func.count(), sa.func.sum(judged.c.bytes)).group_by(
        judged.c.why
    )
    with engine.begin() as connection:
        found = {why: (count, int(size)) for why, count, size in connection.execute(counted)}
        if not dry_run:
            condemned = sa.select(*(judged.c[c.name] for c in _KEY)).where(judged.c.why != "kept")
            connection.execute(table.delete().where(sa.tuple_(*_KEY).in_(condemned)))
    kept, kept_bytes = found.pop("kept", (0, 0))
    reasons = ("of_gone_studies", "too_old", "too_many")
    counts = {name: found.get(name, (0, 0))[0] for name in reasons}
    removed_bytes = sum(size for _, size in found.values())
    return Collected(**counts, removed_bytes=removed_bytes, kept=kept, kept_bytes=kept_bytes)
