"""Cost of keeping predictions: the share of a trial's time spent on 8 samples an epoch.

    python benchmarks/predictions_cost.py
    python benchmarks/predictions_cost.py --device cuda

It trains the default configuration of each objective at the tiny size (full on a GPU). Timed in the
trial itself are the prediction of the samples, and the share of an epoch's transaction that stores
them.
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import sqlalchemy as sa
import torch

from hpo import environ
from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.database.records import Records
from hpo.database.schema import metrics
from hpo.engine import trial
from hpo.engine.plan import Plan
from hpo.engine.predictions import predicted
from hpo.engine.reports import Epoch, Reporter
from hpo.study.request import usual
from objectives import Context, complete, load

_EPOCHS = 12
_SAMPLES = 8


class _Keeper(Reporter):
    """A reporter that stores epochs as a worker does and times the share of the predictions."""

    def __init__(self, records: Records, db: sa.Engine) -> None:
        self._records, self._db = records, db
        self.seconds = 0.0

    def must_stop(self) -> bool:
        return False

    def on_epoch(self, epoch: Epoch) -> bool:
        where: dict[str, Any] = {"epoch": epoch.epoch, "step": epoch.step}
        where["run_uid"] = str(uuid.uuid4())
        started_at = time.perf_counter()
        self._keep(_metrics(self._records.epoch(**where, ticket=1, values=epoch.flat())))
        plain_s = time.perf_counter() - started_at
        where["run_uid"] = str(uuid.uuid4())
        started_at = time.perf_counter()
        samples = [vars(sample) for sample in epoch.samples]
        self._keep(
            _metrics(self._records.epoch(**where, ticket=1, values=epoch.flat())),
            self._records.predicted(samples, **where, trial_number=0),
        )
        self.seconds += time.perf_counter() - started_at - plain_s
        return False

    def _keep(self, *kept: tuple[sa.Executable, Sequence[Mapping[str, Any]]]) -> None:
        """Execute statements with their rows in one transaction, as a trial's storage does."""
        with self._db.begin() as connection:
            for statement, rows in kept:
                if rows:
                    connection.execute(statement, rows)


def _metrics(row: Mapping[str, Any]) -> tuple[sa.Executable, Sequence[Mapping[str, Any]]]:
    """The statement that stores a row of `Records.epoch`, as the function `write_trial` does."""
    columns = {"r": "run_uid", "e": "epoch", "u": "study_uid", "t": "ticket", "s": "step"}
    values = {name: row[letter] for letter, name in columns.items()}
    return metrics.insert(), [{**values, "values": row["v"]}]


def measured(
    name: str, device: torch.device, records: Records, db: sa.Engine
) -> tuple[float, float, float]:
    """Seconds of a trial, of predicting the samples in it, and of storing them."""
    objective = load(name)
    size = usual(on_gpu=device.type == "cuda")["size"]
    context = Context(
        device=device,
        size=size,
        epochs=_EPOCHS,
        seed=0,
        problem_seed=objective.problem_seed(size),
        options=complete(objective.options, {}),
    )
    asking = 0.0

    def timed(*args: Any) -> Any:
        nonlocal asking
        started_at = time.perf_counter()
        found = predicted(*args)
        asking += time.perf_counter() - started_at
        return found

    torch.manual_seed(0)
    task = objective.build(objective.defaults("wide"), context)
    keeper = _Keeper(records, db)
    plan = Plan(
        epochs=_EPOCHS,
        precision=usual(on_gpu=device.type == "cuda")["precision"],
        device=device,
        metric=objective.metric,
        predictions=_SAMPLES,
    )
    with mock.patch.object(trial, "predicted", timed):
        seconds = trial.train(task, plan, keeper).seconds
    return seconds, asking, keeper.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="the torch device (default: cpu)")
    parser.add_argument("--rounds", type=int, default=3, help="trials of each (default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    db = connect(environ.storage_url(None))
    create_tables(db)
    records = Records(db, str(uuid.uuid4()))
    print("| objective | trial, s | asking, ms | keeping, ms | share of the trial |")
    print("|---|---|---|---|---|")
    for name in ("ris_covariance", "arc_prompt"):
        rounds = [
            measured(name, torch.device(args.device), records, db) for _ in range(args.rounds)
        ]
        seconds, asking, keeping = map(statistics.median, zip(*rounds, strict=True))
        shares = [100 * (ask + keep) / whole for whole, ask, keep in rounds]
        print(
            f"| {name} | {seconds:.1f} | {1e3 * asking:.0f} | {1e3 * keeping:.0f} | "
            f"{statistics.median(shares):.2f} % ({min(shares):.2f} to {max(shares):.2f}) |"
        )


if __name__ == "__main__":
    main()
