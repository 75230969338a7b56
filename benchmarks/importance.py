"""Importance of the RIS objective's hyperparameters, by random configurations trained to the end.

    python benchmarks/importance.py --trials 120 --kept importance.jsonl

Every candidate is drawn at random, including those that the objective's spaces no longer search.
Nothing is pruned. The table shows for each the PED-ANOVA importance for reaching the best quarter
(Optuna's default), the share of the variance of J between thirds of its range, and the mean J of
each third. `--kept` continues the measurement of an earlier call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.engine.reports import Epoch, Reporter
from hpo.guard.evidence import Divergence
from objectives import Context, complete, load

CANDIDATES: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 3e-2, log=True),
    "lr_head": FloatDistribution(0.3, 3.0, log=True),
    "schedule": CategoricalDistribution(("constant", "linear", "cosine")),
    "warmup": FloatDistribution(0.01, 0.2),
    "weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
    "width": CategoricalDistribution((32, 64, 96, 128)),
    "layers": CategoricalDistribution((1, 2, 3)),
    "extra_rank": CategoricalDistribution((0, 1, 2, 3)),
    "oversampling": FloatDistribution(0.8, 1.8),
    "batch": CategoricalDistribution((32, 64, 128)),
    "dropout": FloatDistribution(0.0, 0.3),
    "clip": FloatDistribution(0.01, 1.0, log=True),
    "w_covariance": FloatDistribution(0.03, 3.0, log=True),
    "w_likelihood": FloatDistribution(0.03, 3.0, log=True),
    "w_contrast": FloatDistribution(0.03, 3.0, log=True),
    "blend": FloatDistribution(0.0, 0.2),
}


class _Quiet(Reporter):
    """A reporter that keeps the last epoch's metric."""

    value = float("nan")

    def must_stop(self) -> bool:
        return False

    def on_epoch(self, epoch: Epoch) -> bool:
        self.value = epoch.metrics["J_db"]
        return False


def trained(params: Mapping[str, Any], *, seed: int, size: str, epochs: int) -> float:
    """Train a configuration for a trial's epochs; its J in dB."""
    objective = load("ris_covariance")
    context = Context(
        device=torch.device("cpu"),
        size=size,
        epochs=epochs,
        seed=seed,
        problem_seed=objective.problem_seed(size),
        options=complete(objective.options, {}),
    )
    torch.manual_seed(seed)
    plan = Plan(epochs=epochs, precision="fp32", device=context.device, metric="J_db")
    quiet = _Quiet()
    engine.train(objective.build(params, context), plan, quiet)
    return quiet.value


def drawn(rng: random.Random) -> dict[str, Any]:
    """Draw a random configuration of all candidates."""
    params: dict[str, Any] = {}
    for name, candidate in CANDIDATES.items():
        if isinstance(candidate, CategoricalDistribution):
            params[name] = rng.choice(candidate.choices)
        elif isinstance(candidate, FloatDistribution):
            low, high = candidate.low, candidate.high
            unit = rng.random()
            grown = low * (high / low) ** unit if candidate.log else low + (high - low) * unit
            params[name] = grown
    return params


def shares(rows: Sequence[tuple[Mapping[str, Any], float]], name: str) -> tuple[float, str]:
    """The share of J's variance between thirds of a parameter's values, and their means."""
    ordered = sorted(rows, key=lambda row: str(row[0][name]).rjust(9))
    if isinstance(CANDIDATES[name], FloatDistribution):
        ordered = sorted(rows, key=lambda row: float(row[0][name]))
        cuts = [round(i * len(ordered) / 3) for i in range(4)]
        parts = [ordered[a:b] for a, b in itertools.pairwise(cuts)]
    else:
        values = sorted({row[0][name] for row in rows}, key=str)
        parts = [[row for row in rows if row[0][name] == value] for value in values]
    means = [fmean(value for _, value in part) for part in parts]
    whole = [value for _, value in ordered]
    between = sum(
        len(part) * (mean - fmean(whole)) ** 2 for part, mean in zip(parts, means, strict=True)
    )
    share = between / len(whole) / pvariance(whole)
    return share, ", ".join(f"{mean:.2f}" for mean in means)


def importances(rows: Sequence[tuple[Mapping[str, Any], float]]) -> dict[str, float]:
    """The PED-ANOVA importances for reaching the best quarter."""
    study = optuna.create_study()
    for params, value in rows:
        kept = {name: params[name] for name in CANDIDATES}
        trial = optuna.trial.create_trial(params=kept, distributions=CANDIDATES, value=value)
        study.add_trial(trial)
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))


def table(rows: Sequence[tuple[Mapping[str, Any], float]]) -> str:
    """The table, with the most important parameter first."""
    found = importances(rows)
    lines = [
        "| parameter | PED-ANOVA | variance between thirds | mean J of each |",
        "|---|---|---|---|",
    ]
    for name, importance in sorted(found.items(), key=lambda pair: -pair[1]):
        share, means = shares(rows, name)
        lines.append(f"| `{name}` | {importance:.3f} | {share:.0%} | {means} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--kept", type=Path, default=Path("importance.jsonl"))
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    if given.kept.exists():
        rows = [json.loads(line) for line in given.kept.read_text().splitlines()]
    for seed in range(len(rows), given.trials):
        params = drawn(random.Random(seed))
        try:
            value = trained(params, seed=seed, size=given.size, epochs=given.epochs)
            told = f"J {value:.3f} dB"
        except Divergence as verdict:
            value, told = None, str(verdict)
        rows.append({"params": params, "value": value})
        with given.kept.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(f"{seed + 1}/{given.trials}  {told}", flush=True)
    measured = [(row["params"], row["value"]) for row in rows if row["value"] is not None]
    print(f"{len(rows) - len(measured)} diverged and are left out of what follows")
    print(f"\nAll {len(measured)}:\n\n{table(measured)}")
    deep = [(params, value) for params, value in measured if params["layers"] > 1]
    print(f"\nThe {len(deep)} with two visits or three:\n\n{table(deep)}")


if __name__ == "__main__":
    main()
