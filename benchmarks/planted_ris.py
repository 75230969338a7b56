"""False alarms of the guard on healthy trials of the RIS objective, in all precisions.

`python benchmarks/planted.py --healthy_steps 10000 --network hybrid` runs it. Every configuration
is drawn from the network's wide space (rate, width, depth, batch, schedule, weights of the terms)
and trained once in each precision. Every trial that the guard prunes there counts as a false alarm,
as likelihoods keep a network from divergence. The transformer has none and may diverge at the
highest rates: read its verdicts.
"""

from __future__ import annotations

import math
import time
from collections import Counter

import optuna
import torch
from optuna.samplers import RandomSampler
from situations.task import Log

from hpo.engine import trial
from hpo.engine.plan import Plan
from hpo.guard.evidence import Divergence
from hpo.task.forward import PRECISIONS
from objectives import Context, Params, bound, complete
from objectives.ris_covariance import objective
from objectives.ris_networks.registry import FIRST

_EPOCHS, _STEPS_PER_EPOCH = 2, 50
# Each configuration trains this many steps in the three precisions together.
STEPS = _EPOCHS * _STEPS_PER_EPOCH * len(PRECISIONS)


def table(device: torch.device, steps: int, seed: int, network: str = FIRST) -> int:
    """Train at least so many steps, print them by precision, return the number of false alarms."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    drawing = bound(objective, {"network": network})
    counts: dict[str, Counter[str]] = {precision: Counter() for precision in PRECISIONS}
    configurations = math.ceil(steps / STEPS)
    started = time.monotonic()
    for number in range(configurations):
        params = drawing.suggest(study.ask(), "wide")
        for precision, count in counts.items():
            count.update(_trial(network, params, precision, device, seed=seed + number))
    print("| precision | trials | steps | skipped | spikes | pruned |")
    print("|---|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for precision, count in reversed(counts.items()):
        total += count
        figures = (count[key] for key in ("trials", "steps", "skipped", "spikes", "pruned"))
        print(f"| {precision} | {' | '.join(map(str, figures))} |")
    print(
        f"\n{configurations} configurations of the wide space of {network}, size unit, "
        f"{total['steps']} steps: {total['pruned']} false alarms "
        f"({time.monotonic() - started:.0f} s)"
    )
    return total["pruned"]


def _trial(
    network: str, params: Params, precision: str, device: torch.device, *, seed: int
) -> dict[str, int]:
    torch.manual_seed(seed)
    task = objective.build(
        params,
        Context(
            device=device,
            size="unit",
            epochs=_EPOCHS,
            seed=seed,
            problem_seed=objective.problem_seed("unit"),
            options=complete(objective.options, {"network": network}),
        ),
    )
    # The size's own epochs have 5 steps: validation would take most of the time.
    task.steps_per_epoch = _STEPS_PER_EPOCH
    plan = Plan(epochs=_EPOCHS, precision=precision, device=device, metric=objective.metric)
    try:
        result = trial.train(task, plan, Log())
    except Divergence as verdict:
        print(f"{precision}, seed {seed}, {dict(params)}: {verdict}")
        return {"trials": 1, "pruned": 1, "skipped": verdict.skipped}
    steps = result.epochs * task.steps_per_epoch
    return {"trials": 1, "steps": steps, "skipped": result.skipped, "spikes": result.spikes}
