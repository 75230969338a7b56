"""Statistics of a study's trials during a run: counts, times, failures in a row."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from hpo.database.ended import Snapshot
from hpo.database.history import History, Rows, rows_of
from hpo.search.hopeless import LEAST, Hopeless, has_failed, holds, hopeless_in
from hpo.study.outcomes import outcome, prune_reasons
from hpo.tickets.budget import Budget
from hpo.tickets.leases import Lease

# An objective that raises five times in a row is broken; a bad region of the space seldom lasts
# so long.
MOST_FAILURES = 5
# The mean of the latest trials alone follows a pruner, which makes later trials shorter.
_RECENT = 20


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a run finds of trials that ended before its first look.

    Attributes:
        reasons: Numbers of pruned trials by prune reason.
        latest: The last ones, in the order of their ends.
        failures: Number of those that failed by what their objective did.
    """

    reasons: Mapping[str, int] = field(default_factory=dict)
    latest: Sequence[FrozenTrial] = ()
    failures: int = 0

    @classmethod
    def read(cls, found: Snapshot) -> Before:
        """Count the trials of a study."""
        return cls(
            reasons=prune_reasons(found.groups()),
            latest=found.latest(_RECENT),
            failures=found.failures(),
        )


class Tally:
    """Statistics of a study's trials, updated as they end during one run.

    Args:
        fates: Reads what tells hopeless values of all ended trials; called once, after so many
            failures that there may be one.

    Attributes:
        reasons: Numbers of pruned trials by prune reason, the most frequent first.
        hopeless: Values with which every trial fails, which samplers avoid.
    """

    def __init__(self, slots: int, fates: Callable[[], Iterable[Rows]] = tuple) -> None:
        self._slots, self._fates = slots, fates
        self._counts: Counter[str] = Counter()
        self._latest: deque[FrozenTrial] = deque(maxlen=_RECENT)
        self._own_failures = 0
        self._history: History | None = None
        self._in_a_row: list[FrozenTrial] = []
        self._paces: dict[int, tuple[int, float]] = {}
        self.hopeless: Sequence[Hopeless] = ()
        self._explained: set[int] = set()

    @property
    def reasons(self) -> Mapping[str, int]:
        return dict(self._counts.most_common())

    def take(self, new: Sequence[FrozenTrial], before: Before | None = None) -> None:
        """Update from the trials that ended since the last call, in the order of their ends.

        Args:
            before: What the study holds, the new trials among it; None if it is known.
        """
        self._count(new)
        if before is not None:
            self._counts = Counter(before.reasons)
            self._latest.clear()
            self._latest.extend(before.latest)
            self._own_failures, self._history = before.failures, None
        self.hopeless = self._find_hopeless(new)
        for trial in new:
            if trial.state != TrialState.FAIL:
                self._in_a_row = []
            elif "traceback" in trial.user_attrs:
                # The objective raised. A trial that lost its workers, or that another program
                # ended, says nothing of it.
                self._in_a_row.append(trial)
        # What one value explained stays explained: another failure in between is one more, not six.
        row = self._in_a_row
        self._explained |= {trial.number for trial in row if holds(trial, self.hopeless)}

    def _count(self, new: Sequence[FrozenTrial]) -> None:
        self._counts.update(outcome(one) for one in new if one.state == TrialState.PRUNED)
        self._latest.extend(new)
        self._own_failures += sum(map(has_failed, new))

    def _find_hopeless(self, new: Sequence[FrozenTrial]) -> Sequence[Hopeless]:
        if self._own_failures < LEAST:
            return ()
        if self._history is None:
            self._history = History()
            self._history.add(self._fates())
        for trial in new:
            # What is there already is the same.
            self._history.add(one for one in rows_of(trial) if one.kind != "report")
        return hopeless_in(self._history)

    @property
    def failures(self) -> Sequence[FrozenTrial]:
        """The latest unbroken row of failed trials in this run that no hopeless value explains."""
        return [trial for trial in self._in_a_row if trial.number not in self._explained]

    def trial_s(self, leases: Sequence[Lease]) -> float | None:
        """Estimated seconds per trial: mean of the latest, else by the pace of running ones."""
        seconds = [value for one in self._latest if (value := one.user_attrs.get("seconds"))]
        if seconds:
            return fmean(seconds)
        estimates = [estimate for lease in leases if (estimate := self._estimate_s(lease))]
        return fmean(estimates) if estimates else None

    def _estimate_s(self, lease: Lease) -> float | None:
        """Estimated seconds of a running trial, by its pace since the first epoch seen here."""
        if not lease.epoch or not lease.epochs:
            return None
        epoch, held_s = self._paces.setdefault(lease.ticket, (lease.epoch, lease.held_s))
        if lease.held_s < held_s:
            # Another worker goes on with the trial.
            self._paces[lease.ticket] = (lease.epoch, lease.held_s)
            return None
        if lease.epoch <= epoch:
            return None
        return (lease.held_s - held_s) / (lease.epoch - epoch) * lease.epochs

    def left_s(self, spent: Budget, leases: Sequence[Lease]) -> float | None:
        """Estimated seconds until the study ends on this run's slots; running trials count half."""
        trial_s = self.trial_s(leases)
        left = spent.open + spent.leased / 2
        slots = max(1, min(self._slots, spent.open + spent.leased))
        return None if trial_s is None else left * trial_s / slots
