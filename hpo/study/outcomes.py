"""Outcomes of trials: the best one, the default one, and the name of each one's outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.guard import verdict
from hpo.search.samplers import RERUN_OF
from hpo.tickets.budget import Budget

_TICKETS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
# This system attribute marks a trial that tries an enqueued configuration.
ENQUEUED = "hpo:enqueued"


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial; None without one."""
    try:
        return study.best_trial
    except ValueError:
        return None


def outcome(trial: FrozenTrial) -> str:
    """The name of a trial's outcome: its prune reason, else its state, for example `complete`."""
    if trial.state == TrialState.PRUNED:
        return str(trial.user_attrs.get("prune_reason", "pruner"))
    return trial.state.name.lower()


def trials_as_budget(trials: Sequence[FrozenTrial]) -> Budget:
    """The budget that some ended trials fill, for a copy that has no tickets of its own yet."""
    states = Counter(_TICKETS[trial.state] for trial in trials if trial.state in _TICKETS)
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
    is_other = RERUN_OF in trial.user_attrs or ENQUEUED in trial.system_attrs
    return is_fixed and not is_other and trial.state == TrialState.COMPLETE
