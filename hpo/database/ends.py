"""The trials of a study that end, each once, for a run that watches them.

Border: reads what ended since; `hpo.fleet.watch` counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial

from hpo.database.ended import STATES, Snapshot
from hpo.database.frozen import newer

_SEEN = f"""
SELECT t.trial_id, t.number, t.state IN {STATES}
FROM studies s LEFT JOIN trials t ON t.study_id = s.study_id AND ({{which}})
WHERE s.study_id = %(study_id)s
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The trials that one reading has found.

    Attributes:
        is_first: Whether the study was not read before.
        ended: The numbers of ended trials, by id.
        open: The ids of the others.
        new: The trials that ended since the reading before, in the order of their ends.
    """

    study_id: int
    is_first: bool
    ended: Mapping[int, int]
    open: Sequence[int]
    new: Sequence[FrozenTrial]


class Ends:
    """The trials of a study that end, each once.

    A reading may be tried again; what it found counts once it is noted. Trial ids grow within a
    study, because its row is locked while a trial is created.
    """

    def __init__(self) -> None:
        self._study_id: int | None = None
        self._latest = -1
        self._open: Sequence[int] = ()
        self._numbers: set[int] | None = None

    def read(self, found: Snapshot) -> Seen:
        """What changed since the last reading that was noted.

        The first reading finds no new trial. A study with another id is the same one, renamed.

        Raises:
            KeyError: There is no such study.
        """
        is_first = found.study_id != self._study_id
        which, values = ("true", {}) if is_first else newer(self._open, self._latest)
        rows = found.rows(_SEEN.format(which=which), **values)
        if not rows:
            raise KeyError(f"there is no study with the id {found.study_id}")
        ended = {trial_id: number for trial_id, number, has_ended in rows if has_ended}
        known = set(ended.values()) if self._numbers is None else self._numbers
        ids = [trial_id for trial_id, number in ended.items() if number not in known]
        return Seen(
            study_id=found.study_id,
            is_first=is_first,
            ended=ended,
            open=[trial_id for trial_id, _, has_ended in rows if trial_id and not has_ended],
            # A trial that another program added may lack its times.
            new=sorted(found.among(ids), key=lambda one: one.datetime_complete or datetime.min),
        )

    def note(self, seen: Seen) -> None:
        """Have the next reading begin where this one ended."""
        latest = -1 if seen.is_first else self._latest
        self._study_id, self._open = seen.study_id, seen.open
        self._latest = max([latest, *seen.ended])
        self._numbers = set() if self._numbers is None else self._numbers
        self._numbers.update(seen.ended.values())
