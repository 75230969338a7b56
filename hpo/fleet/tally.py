"""Statistics of a study's trials during a run: counts, times, failures in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from hpo.search.hopeless import Hopeless, holds, hopeless
from hpo.study.outcomes import prune_reasons
from hpo.tickets.budget import Budget
from hpo.tickets.leases import Lease

# An objective that raises five times in a row is broken; a bad region of the space seldom lasts
# so long.
MOST_FAILURES = 5
# The mean of the latest trials alone follows a pruner, which makes later trials shorter.
_RECENT = 20


class Tally:
    """Statistics of a study's trials, updated as they end during one run.

    Attributes:
        reasons: Numbers of pruned trials by prune reason.
        hopeless: Values with which every trial fails, which samplers avoid.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._known: set[int] | None = None
        self._seconds: list[float] = []
        self._in_a_row: list[FrozenTrial] = []
        self._paces: dict[int, tuple[int, float]] = {}
        self.reasons: Mapping[str, int] = {}
        self.hopeless: Sequence[Hopeless] = ()
        self._explained: set[int] = set()

    def take(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Update from a study's trials; return those that ended since the last call, in order."""
        ended = [trial for trial in trials if trial.state.is_finished()]
        # A trial that another program added may lack its times.
        ended.sort(key=lambda trial: trial.datetime_complete or datetime.min)
        new = [t for t in ended if self._known is not None and t.number not in self._known]
        self._known = {trial.number for trial in ended}
        seconds = (trial.user_attrs.get("seconds") for trial in ended[-_RECENT:])
        self._seconds = [value for value in seconds if value]
        self.reasons = prune_reasons(trials)
        self.hopeless = hopeless(ended)
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
        return new

    @property
    def failures(self) -> Sequence[FrozenTrial]:
        """The latest unbroken row of failed trials in this run that no hopeless value explains."""
        return [trial for trial in self._in_a_row if trial.number not in self._explained]

    def trial_s(self, leases: Sequence[Lease]) -> float | None:
        """Estimated seconds per trial: mean of the latest, else by the pace of running ones."""
        if self._seconds:
            return fmean(self._seconds)
        estimates = [seconds for lease in leases if (seconds := self._estimate_s(lease))]
        return fmean(estimates) if estimates else None

    def _estimate_s(self, lease: Lease) -> float | None:
        """Estimated seconds of a running trial, by its pace since the first epoch seen here."""
        if not lease.epoch or not lease.epochs:
            return None
        epoch, held_s = self._paces.setdefault(lease.ticket, (lease.epoch, lease.held_s))
        if lease.epoch <= epoch:
            return None
        return (lease.held_s - held_s) / (lease.epoch - epoch) * lease.epochs

    def left_s(self, spent: Budget, leases: Sequence[Lease]) -> float | None:
        """Estimated seconds until the study ends on this run's slots; running trials count half."""
        trial_s = self.trial_s(leases)
        left = spent.open + spent.leased / 2
        slots = max(1, min(self._slots, spent.open + spent.leased))
        return None if trial_s is None else left * trial_s / slots
