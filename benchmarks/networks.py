"""Gains of search for each network of the RIS objective: default, best of 50, long training.

    python benchmarks/networks.py --networks unrolled transformer hybrid --seeds 0 1 2 --train 3

For every network and seed a study is run (and resumed, if an earlier call made it); one more draws
ten configurations at random and prunes none. The table has J of the default configuration, the
median of the random ones, the best, and the trial that first reached 90 % of the gain from the
default to the best. With `--train 3` the best of each study is trained at full length over three
seeds. Curves of the best so far, and the importances of parameters, are printed below. All is kept
in the storage (HPO_HOME or HPO_STORAGE), so that an interrupted call goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.importance import get_param_importances
from optuna.trial import TrialState

import hpo

_SHARE = 0.9


def studied(name: str, network: str, size: str, *, n_trials: int, **settings: Any) -> float:
    """Run a study to its end; its wall time in s, of this call."""
    started_s = time.monotonic()
    hpo.run(
        "ris_covariance",
        n_trials=n_trials,
        study=name,
        size=size,
        options={"network": network},
        **settings,
    )
    return time.monotonic() - started_s


def values_of(study: optuna.Study) -> list[float]:
    """J of each trial in order; infinite where it is not complete."""
    return [
        trial.value if trial.state == TrialState.COMPLETE and trial.value is not None else math.inf
        for trial in study.get_trials(deepcopy=False)
    ]


def best_so_far(values: Sequence[float]) -> list[float]:
    """The least value of every beginning of the list."""
    return [min(values[: count + 1]) for count in range(len(values))]


def reached(curve: Sequence[float], share: float) -> int:
    """Trials until a share of the gain from the first trial to the last was there."""
    goal = curve[0] + share * (curve[-1] - curve[0])
    return next(count for count, value in enumerate(curve, 1) if value <= goal)


def trained(name: str, folder: Path, seeds: int) -> list[float]:
    """J of the best configuration at full length, one for each seed."""
    out = folder / name
    how = ("--seeds", str(seeds), "--out", str(out), "--json")
    subprocess.run(
        [sys.executable, "-m", "hpo", "train", "--study_name", name, *how],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    result = json.loads((out / "training.json").read_text())
    return [seed["value"] for seed in result["seeds"]]


def row(study: optuna.Study, name: str, random: Sequence[float], long: Sequence[float]) -> str:
    """One row of the table."""
    values = values_of(study)
    curve = best_so_far(values)
    complete = sum(value < math.inf for value in values)
    at_length = ", ".join(f"{value:.2f}" for value in long) or "-"
    return (
        f"| {name} | {values[0]:.2f} | {median(random):.2f} | {curve[-1]:.2f} | "
        f"{reached(curve, _SHARE)} | {complete} of {len(values)} | {at_length} |"
    )


def main() -> None:
    """Run what is not there yet, and print the table, the curves and the importances."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=["unrolled", "transformer", "hybrid"])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--n_trials", type=int, default=50)
    parser.add_argument("--random", type=int, default=10, help="random configurations")
    parser.add_argument("--train", type=int, default=0, help="train the best over so many seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("networks"), help="of trainings")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows, notes = [], []
    for network in given.networks:
        drawn = f"{network}-{given.size}-random"
        settings: dict[str, Any] = {"workers": given.workers}
        free: dict[str, Any] = {"sampler": "random", "pruner": "none", "seed": 100, **settings}
        studied(drawn, network, given.size, n_trials=given.random + 1, **free)
        # A study's first trial is the default configuration.
        random = values_of(hpo.open(study=drawn).optuna())[1:]
        for seed in given.seeds:
            name = f"{network}-{given.size}-{seed}"
            wall_s = studied(
                name, network, given.size, n_trials=given.n_trials, seed=seed, **settings
            )
            study = hpo.open(study=name).optuna()
            long = trained(name, given.out, given.train) if given.train else []
            rows.append(row(study, name, random, long))
            curve = best_so_far(values_of(study))
            shown = ", ".join(f"{value:.2f}" for value in curve[:: max(1, len(curve) // 10)])
            weights = get_param_importances(study)
            most = ", ".join(f"{param} {share:.2f}" for param, share in list(weights.items())[:5])
            best = study.best_trial
            notes.append(
                f"{name}: {wall_s:.0f} s here; best so far {shown}; importances {most}; "
                f"best trial {best.number} {json.dumps(best.params)}"
            )
            print(rows[-1], notes[-1], sep="\n", flush=True)
    print("| study | default | median of random | best | 90 % of gain at | complete | trained |")
    print("|---|---|---|---|---|---|---|", *rows, "", *notes, sep="\n")


if __name__ == "__main__":
    main()
