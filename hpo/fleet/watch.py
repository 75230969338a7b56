"""A run's view of its study: the trials as they end, their statistics, and the best so far.

A look costs what has ended since the last one, however many trials the study holds. Border: reads;
`tally` counts, `fleet` decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from hpo.database import ended
from hpo.database.ended import Snapshot
from hpo.database.ends import Ends, Seen
from hpo.database.history import Rows
from hpo.fleet.tally import Before, Tally
from hpo.study.outcomes import best_trial, better
from hpo.study.study import OpenStudy


class Watch:
    """The ended trials of a study, as they end.

    Attributes:
        tally: Their statistics.
        best: The best trial so far; None without one.
    """

    def __init__(self, opened: OpenStudy, *, slots: int) -> None:
        self._opened = opened
        self._ends = Ends()
        self.tally = Tally(slots, self._fates)
        self.best: FrozenTrial | None = None

    def look(self, opened: OpenStudy) -> Sequence[FrozenTrial]:
        """Update from the study; return the trials that ended since the last look, in order.

        Raises:
            KeyError: The study was deleted or renamed.
        """
        self._opened = opened
        seen, before = ended.read(opened.storage.engine, opened.study_id, self._read)
        best = self.best if before is None else best_trial(opened.load())
        self.best = better(best, seen.new, maximize=opened.config.direction == "maximize")
        self._ends.note(seen)
        self.tally.take(seen.new, before)
        return seen.new

    def _read(self, found: Snapshot) -> tuple[Seen, Before | None]:
        seen = self._ends.read(found)
        return seen, Before.read(found) if seen.is_first else None

    def _fates(self) -> Sequence[Rows]:
        engine, study_id = self._opened.storage.engine, self._opened.study_id
        return ended.read(engine, study_id, Snapshot.fates)
