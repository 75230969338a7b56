"""How trials ended: the best one, the default one, and each one's outcome by name."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo import guard
from hpo.samplers import RERUN_OF


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial; None as long as there is none."""
    try:
        return study.best_trial
    except ValueError:
        return None


def outcome(trial: FrozenTrial) -> str:
    """How a trial stands: its `prune_reason`, else its state, for example `complete`."""
    if trial.state == TrialState.PRUNED:
        return str(trial.user_attrs.get("prune_reason", "pruner"))
    return trial.state.name.lower()


def divergence(trial: FrozenTrial) -> str | None:
    """Why the guard pruned a trial; None where it did not."""
    reason = trial.user_attrs.get("prune_reason")
    return reason if reason in guard.NONFINITE else None


def is_default(trial: FrozenTrial) -> bool:
    """Whether a trial is the complete one of the default configuration."""
    is_fixed = "fixed_params" in trial.system_attrs and RERUN_OF not in trial.user_attrs
    return is_fixed and trial.state == TrialState.COMPLETE
