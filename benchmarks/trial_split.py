"""CPU time of a trial by part: data, forward, loss, backward and step, validation, database.

    python benchmarks/trial_split.py --storage "$(python -m hpo url)"

It runs real trials of `ris_covariance` through the worker, the first of its default configuration,
in a study that is deleted afterwards. A clock around each part measures the CPU time of the whole
process, which has one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch

from hpo.database.connection import connect
from hpo.database.storage import TrialStorage
from hpo.engine import trial
from hpo.study.join import prepare_study
from hpo.study.request import RunRequest
from hpo.worker import worker
from objectives.ris_covariance import RisCovariance
from objectives.ris_training.task import RisCovarianceTask

_spent: dict[str, float] = defaultdict(float)
_open: list[str] = []


def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function: add its CPU time to a part and subtract it from the enclosing part."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        _open.append(part)
        try:
            return function(*args, **kwargs)
        finally:
            _open.pop()
            spent = time.process_time() - started
            _spent[part] += spent
            if _open:
                _spent[_open[-1]] -= spent

    return timed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--trials", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for target, name, part in (
        (RisCovariance, "build", "build (first: frozen sets, ridge)"),
        (RisCovariance, "references", "references (MUSIC, once a study)"),
        (RisCovarianceTask, "batch", "data"),
        (RisCovarianceTask, "forward", "forward"),
        (RisCovarianceTask, "loss", "loss"),
        (trial._Trial, "train_step", "backward and step"),
        (trial._Trial, "validate", "validation"),
        (trial._Trial, "save", "checkpoint"),
        (TrialStorage, "_in_transaction", "database: writes"),
        (TrialStorage, "get_all_trials", "database: reads"),
        (optuna.Trial, "_suggest", "sampler"),
        (optuna.Trial, "should_prune", "pruner"),
    ):
        setattr(target, name, clocked(part, getattr(target, name)))
    name = f"split-{time.time_ns()}"
    request = RunRequest(
        objective="ris_covariance",
        study_name=name,
        n_trials=given.trials,
        space="narrow",
        pruner="none",
    )
    prepared = prepare_study(connect(given.storage), request, on_gpu=False)
    with tempfile.TemporaryDirectory() as folder:
        config = worker.WorkerConfig(
            name="split", slot="cpu:0", device="cpu", checkpoints=Path(folder)
        )
        runner = worker.Worker(config, prepared.opened, prepared.db, threading.Event())
        started = time.process_time()
        clocked("the rest", runner.run)()
        total = time.process_time() - started
    optuna.delete_study(study_name=name, storage=prepared.opened.storage)
    print(f"torch {torch.__version__}, {given.trials} trials, {total:.1f} s of CPU, one thread")
    print("| part | CPU s | share |")
    print("|---|---|---|")
    for part, spent in sorted(_spent.items(), key=lambda item: -item[1]):
        print(f"| {part} | {spent:.2f} | {100 * spent / total:.1f} % |")


if __name__ == "__main__":
    main()
