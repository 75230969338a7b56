"""Bare Optuna on PostgreSQL, as its tutorial has it: one process, `study.optimize`.

    python bare_optuna.py URL STUDY TRIALS SEED

With TRIALS 0 it makes the study and ends.
"""

from __future__ import annotations

import sys

import optuna
import torch
from optuna.storages import RDBStorage

from peers.plain import attributes, epochs
from peers.space import EPOCHS, SPACE


def _objective(trial: optuna.Trial) -> float:
    params = {name: spec.suggest(trial, name) for name, spec in SPACE.items()}
    for name, value in attributes(trial.number).items():
        trial.set_user_attr(name, value)
    value = 0.0
    for epoch, value in epochs(params):
        trial.report(value, epoch)
        # The last report decides nothing any more, here as in the service.
        if epoch < EPOCHS and trial.should_prune():
            raise optuna.TrialPruned
    return value


def main() -> None:
    """Run trials of a study."""
    url, name, trials, seed = sys.argv[1:]
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(url)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="minimize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=int(seed)),
        # The service's own settings of `median` for 12 epochs.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )
    if int(trials):
        study.optimize(_objective, n_trials=int(trials))


if __name__ == "__main__":
    main()
