"""Every trial tunes something itself with Optuna, in memory, and silences Optuna for good.

Right: six complete trials with their values: an inner study is not the study.
"""

import optuna
from calm import Calm, CalmTask

EXIT, CHECK, VALUES = 0, 0, "calm"


def inner(trial):
    x = trial.suggest_float("x", 0, 1)
    if x > 0.5:
        raise optuna.TrialPruned("too large")
    return x


class Task(CalmTask):
    def validate(self):
        optuna.logging.disable_default_handler()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).optimize(inner, 5)
        return super().validate()


class Hostile(Calm):
    task = Task


objective = Hostile()
