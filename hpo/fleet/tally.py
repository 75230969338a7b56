"""What has become of a study's trials while a run goes on: counts, times, failures in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from hpo.study.outcomes import prune_reasons
from hpo.tickets.budget import Budget
from hpo.tickets.leases import Lease

# An objective that raises five times in a row will raise again; a bad region seldom lasts so long.
MOST_FAILURES = 5
# The mean of fewer trials follows a study whose pruner has begun to work.
_RECENT = 20


class Tally:
    """The trials of a study as one run sees them end."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._known: set[int] | None = None
        self._seconds: list[float] = []
        self._in_a_row: list[FrozenTrial] = []
        self._paces: dict[int, tuple[int, float]] = {}
        self.reasons: Mapping[str, int] = {}

    def take(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Take note of a study's trials; those that ended since the last time, in their order."""
        ended = [trial for trial in trials if trial.state.is_finished()]
        # Another program may have added one without its times.
        ended.sort(key=lambda trial: trial.datetime_complete or datetime.min)
        new = [t for t in ended if self._known is not None and t.number not in self._known]
        self._known = {trial.number for trial in ended}
        seconds = (trial.user_attrs.get("seconds") for trial in ended[-_RECENT:])
        self._seconds = [value for value in seconds if value]
        self.reasons = prune_reasons(trials)
        for trial in new:
            self._in_a_row = [*self._in_a_row, trial] if trial.state == TrialState.FAIL else []
        return new

    @property
    def failures(self) -> Sequence[FrozenTrial]:
        """The trials that failed in a row up to now, in this run."""
        return self._in_a_row

    def trial_s(self, leases: Sequence[Lease]) -> float | None:
        """About how long a trial takes: the mean of late ones, else what running ones promise."""
        if self._seconds:
            return fmean(self._seconds)
        promised = [seconds for lease in leases if (seconds := self._promise(lease))]
        return fmean(promised) if promised else None

    def _promise(self, lease: Lease) -> float | None:
        """How long a running trial will have taken, by its pace since its first epoch was seen."""
        if not lease.epoch or not lease.epochs:
            return None
        epoch, held_s = self._paces.setdefault(lease.ticket, (lease.epoch, lease.held_s))
        if lease.epoch <= epoch:
            return None
        return (lease.held_s - held_s) / (lease.epoch - epoch) * lease.epochs

    def left_s(self, spent: Budget, leases: Sequence[Lease]) -> float | None:
        """About how long the study still takes on this run's slots; running trials count half."""
        trial_s = self.trial_s(leases)
        left = spent.open + spent.leased / 2
        slots = max(1, min(self._slots, spent.open + spent.leased))
        return None if trial_s is None else left * trial_s / slots
