"""Ray Tune with its own searcher, ASHA and reused actors, as fast as its documentation makes it.

    VENV/bin/python -m peers.ray_tune WORKERS TRIALS

Prints the end and the start of each trial, in s of the wall clock, as JSON.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import time
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from objectives import Choice, Float
from peers.plain import attributes, epochs
from peers.space import EPOCHS, SPACE


class Trainable(tune.Trainable):  # type: ignore[misc]
    """One weight, one step an epoch; an actor is reused for the next trial."""

    def setup(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self._begin(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self._begin(config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._started_at, self._epochs = time.time(), epochs(config)

    def step(self) -> dict[str, Any]:
        epoch, value = next(self._epochs)
        is_done = epoch == EPOCHS
        own = {**attributes(0), "started_at": self._started_at, "ended_at": time.time()}
        return {"distance": value, "epoch": epoch, "done": is_done, **own}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        return


def _space() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, spec in SPACE.items():
        if isinstance(spec, Choice):
            found[name] = tune.choice(list(spec.choices))
        elif isinstance(spec, Float):
            draw = tune.loguniform if spec.log else tune.uniform
            found[name] = draw(spec.low, spec.high)
        else:
            found[name] = tune.randint(spec.low, spec.high + 1)
    return found


def main() -> None:
    """Run trials, two by two if there are two workers."""
    workers, trials = map(int, sys.argv[1:])
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            Trainable,
            param_space=_space(),
            tune_config=tune.TuneConfig(
                metric="distance",
                mode="min",
                num_samples=trials,
                reuse_actors=True,
                # Equal curves are never below a rung's cutoff, so each trial is twelve reports.
                scheduler=ASHAScheduler(time_attr="epoch", max_t=EPOCHS + 1, grace_period=2),
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        results = tuner.fit()
        times = [(one.metrics["ended_at"], one.metrics["started_at"]) for one in results]
        reports = [one.metrics["epoch"] for one in results]
    if set(reports) != {EPOCHS}:
        raise SystemExit(f"not all trials had {EPOCHS} reports: {reports}")
    assert not any(math.isnan(end) for end, _ in times)
    ray.shutdown()
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main()
