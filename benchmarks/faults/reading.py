"""The campaign's pruner: it reads the other trials at every report, as Optuna's do; prunes none."""

from __future__ import annotations

from optuna.pruners import MedianPruner

pruner = MedianPruner(n_startup_trials=1_000)
