"""The checkpoints of ended trials: of all of them only the best one's stays.

Border: which files and copies go; `engine.checkpoint_files` knows their names, `depot` the copies.
"""

from __future__ import annotations

import time

import numpy as np
from optuna.trial import TrialState

from hpo.database.history import ABSENT, History
from hpo.database.history_reader import best_number
from hpo.engine import checkpoint_files
from hpo.study.study import OpenStudy
from hpo.worker.context import WorkerContext

# The folder is listed at most this often, and once at a worker's end.
_SWEEP_S = 60.0
_OPEN = (ABSENT, TrialState.RUNNING.value, TrialState.WAITING.value)


def keep_best(
    context: WorkerContext, opened: OpenStudy, *, number: int, attempt: int, value: float | None
) -> None:
    """Delete the checkpoints of a trial that has just ended, or those of the best one before it.

    Args:
        attempt: The attempt that ended it.
        value: The trial's value; None if it did not complete.
    """
    history = opened.storage.history(opened.study_id)
    is_max = opened.config.direction == "maximize"
    before = _best(history, maximize=is_max, but=number)
    best = None if before is None else float(history.rows["value"][before[0]])
    is_best = value is not None and (best is None or (value > best if is_max else value < best))
    folder = context.checkpoints
    checkpoint_files.discard(folder, number, attempt, but=attempt if is_best else None)
    if is_best and before is not None:
        checkpoint_files.discard(folder, *before)
    if context.depot is not None:
        first = None if before is None else before[0]
        context.depot.end(number, attempt, is_best=is_best, before=first)
    if time.monotonic() - context.swept_at > _SWEEP_S:
        context.swept_at = time.monotonic()
        _sweep(context, history, keep=(number, attempt) if is_best else before)


def sweep(context: WorkerContext, opened: OpenStudy) -> None:
    """Delete what lost workers left, and trials that ended at the same moment as a better one."""
    opened.storage.refresh_history(opened.study_id, running=False)
    history = opened.storage.history(opened.study_id)
    keep = _best(history, maximize=opened.config.direction == "maximize")
    _sweep(context, history, keep=keep)


def _best(history: History, *, maximize: bool, but: int | None = None) -> tuple[int, int] | None:
    """Number and attempt of the best trial, but for one; None without one."""
    best = best_number(history, maximize=maximize, but=but)
    # Trials that an earlier version ended have no attempt, and a file without one.
    return None if best is None else (best, max(0, int(history.rows["attempt"][best])))


def _sweep(context: WorkerContext, history: History, *, keep: tuple[int, int] | None) -> None:
    ended = set((~np.isin(history.rows["state"], _OPEN)).nonzero()[0].tolist())
    checkpoint_files.sweep(context.checkpoints, ended, keep=keep)
    if context.depot is not None:
        context.depot.sweep(ended, keep=keep)
