"""A sampler and a pruner of a user's own."""

from __future__ import annotations

import optuna


class Fixed(optuna.samplers.RandomSampler):
    """Proposes the same thing again and again, by its seed."""

    def sample_independent(self, study, trial, param_name, param_distribution):
        return param_distribution.low + 0.25 * (param_distribution.high - param_distribution.low)


class After(optuna.pruners.BasePruner):
    """Ends every trial but the first after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def prune(self, study, trial):
        return trial.number > 0 and trial.last_step >= self.epoch


def half(epochs: int) -> After:
    """Ends trials half way."""
    return After(epochs // 2)
