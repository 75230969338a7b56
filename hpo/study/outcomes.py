"""Outcomes of trials: the best one, the default one, and the name of each one's outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database.binding import OUTCOMES
from hpo.database.outside import ENDED_OUTSIDE, OUTSIDE
from hpo.guard import verdict
from hpo.search.samplers import RERUN_OF
from hpo.tickets.budget import Budget

# This system attribute marks a trial that tries an enqueued configuration.
ENQUEUED = "hpo:enqueued"
# And this one a configuration that was chosen because no other trial has it.
CHOSEN = "hpo:chosen"
# This system attribute holds the number of the attempt that ended a trial and wrote its checkpoint,
# and 0 while it runs. Trials that an earlier version ended do not have it.
ATTEMPT = "hpo:attempt"


def numbered(trials: Sequence[FrozenTrial], number: int | None) -> FrozenTrial | None:
    """The trial of this number; its place in the list differs once another trial was deleted."""
    return next((trial for trial in trials if trial.number == number), None)


def attempt_of(trial: FrozenTrial) -> int:
    """The attempt whose checkpoint belongs to a trial; 0 for the file of an earlier version."""
    return int(trial.system_attrs.get(ATTEMPT, 0))


def is_measured(trial: FrozenTrial) -> bool:
    """Return whether a worker of this service measured the trial's value."""
    # The trial tells it from its end on; its worker notes it within a beat, and caches keep what
    # they saw before.
    is_told = trial.user_attrs.get("prune_detail") == ENDED_OUTSIDE
    is_told |= trial.system_attrs.get(ATTEMPT) == 0
    return "run_uid" in trial.user_attrs and not is_told


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial; None without one.

    In a study of this service it is one that a worker measured: another program may tell any value.
    """
    best = _best_of_all(study)
    if best is None or is_measured(best) or "study_uid" not in study.user_attrs:
        return best
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    measured = {
        sign * trial.value: trial
        for trial in reversed(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        if trial.value is not None and is_measured(trial) and _is_feasible(trial)
    }
    return measured[min(measured)] if measured else None


def left_out(study: optuna.Study) -> str | None:
    """A remark on the trial that is better than the best, but was told from outside, if any."""
    best = _best_of_all(study)
    if best is None or is_measured(best) or "study_uid" not in study.user_attrs:
        return None
    return f"trial {best.number} has {best.value:.6g}, told from outside: it is left out"


def _best_of_all(study: optuna.Study) -> FrozenTrial | None:
    try:
        return study.best_trial
    except ValueError:
        return None


def _is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def outcome(trial: FrozenTrial) -> str:
    """The name of a trial's outcome: its prune reason, else its state, for example `complete`."""
    if trial.state == TrialState.PRUNED:
        reason = str(trial.user_attrs.get("prune_reason", "-"))
        return OUTSIDE if reason == "-" else reason
    return trial.state.name.lower()


def trials_as_budget(trials: Sequence[FrozenTrial]) -> Budget:
    """The budget that some ended trials fill, for a copy that has no tickets of its own yet."""
    states = Counter(OUTCOMES[trial.state] for trial in trials if trial.state in OUTCOMES)
    return Budget(**states)


def prune_reasons(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Numbers of pruned trials by prune reason, the most frequent first."""
    pruned = (outcome(trial) for trial in trials if trial.state == TrialState.PRUNED)
    return dict(Counter(pruned).most_common())


def divergence(trial: FrozenTrial) -> str | None:
    """The reason for which the guard pruned a trial; None if it did not."""
    reason = trial.user_attrs.get("prune_reason")
    return reason if reason in verdict.NONFINITE else None


def is_default(trial: FrozenTrial) -> bool:
    """Return whether a trial has completed the default configuration."""
    is_fixed = "fixed_params" in trial.system_attrs
    is_other = RERUN_OF in trial.user_attrs or trial.system_attrs.keys() & {ENQUEUED, CHOSEN}
    is_complete = trial.state == TrialState.COMPLETE and is_measured(trial)
    return is_fixed and not is_other and is_complete
