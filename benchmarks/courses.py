"""Problems for `recording.py`: the learning curve of given parameters, and where it diverges.

Two synthetic functions with a learning curve each, and a table of real trainings of the RIS
covariance network at the size `unit`. A trial costs microseconds, so that thousands of searches
are affordable.

    python benchmarks/courses.py        # trains the table anew, 600 trials in 7 minutes
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpo.engine import trial
from hpo.engine.plan import Plan
from hpo.engine.reports import Epoch, Reporter
from hpo.guard.evidence import Divergence
from objectives import Context, Float, Int, Params, Space
from objectives.ris_covariance import objective

EPOCHS = 12
_TABLE = Path(__file__).with_name("courses_ris.json")


@dataclass(frozen=True, kw_only=True)
class Course:
    """The learning curve of a trial.

    Attributes:
        untrained: The metric before the first step.
        values: The metric after each epoch; fewer than `EPOCHS` if it diverged in the next one.
    """

    untrained: float
    values: tuple[float, ...]

    @property
    def is_diverged(self) -> bool:
        return len(self.values) < EPOCHS


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A search space and the learning curve of a trial in it; the metric is minimized."""

    space: Space
    course: Callable[[Params], Course]


def _learn(value: float, *, untrained: float, time_constant: float, beyond: float) -> Course:
    """An exponential from the untrained to the final value, cut off by divergence.

    v(e) = v₁₂ + (v₀ − v₁₂) · (exp(−e/τ) − exp(−12/τ)) / (1 − exp(−12/τ))

    Args:
        time_constant: τ in epochs.
        beyond: Depth of the parameters in the diverging region: <= 0 is outside, 1 its far end.
            Just inside, a trial diverges in the last epoch; at the far end, in the first.
    """
    tau = time_constant
    left = [math.exp(-e / tau) - math.exp(-EPOCHS / tau) for e in range(EPOCHS + 1)]
    values = [value + (untrained - value) * share / left[0] for share in left[1:]]
    count = EPOCHS if beyond <= 0 else round((EPOCHS - 1) * (1 - min(beyond, 1.0)) ** 2)
    return Course(untrained=untrained, values=tuple(values[:count]))


_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])


def _hartmann(params: Params) -> Course:
    """Hartmann-6 [1], minimum −3.322 at x₀ = .20; diverging where x₀ > 2/3.

    References:
        [1] J. K. Hartman, "Some experiments in global optimization," Naval Res. Logist. Quart.,
        vol. 20, no. 3, pp. 569-576, Sep. 1973.
    """
    x = np.array([params[f"x{i}"] for i in range(6)])
    value = -float(_ALPHA @ np.exp(-(_A * (x - _P) ** 2).sum(1)))
    return _learn(value, untrained=0.0, time_constant=1 + 4 * x[1], beyond=3 * x[0] - 2)


_OPTIMUM = {"log_lr": -2.0, "log_decay": -3.0, "momentum": 0.6}


def _edge(params: Params) -> Course:
    """Ackley's function [1] in 3 dimensions whose minimum, 0, lies at the edge of divergence.

    The larger the momentum, the smaller the learning rate that diverges. From the optimum the edge
    is .3 decades of the rate away, a twentieth of its range; 42 % of the space diverges.

    References:
        [1] D. H. Ackley, A Connectionist Machine for Genetic Hillclimbing. Boston: Kluwer, 1987.
    """
    scale = {"log_lr": 6.0, "log_decay": 6.0, "momentum": 1.0}
    u = np.array([4 * (params[name] - at) / scale[name] for name, at in _OPTIMUM.items()])
    value = (
        20
        + math.e
        - 20 * math.exp(-0.2 * math.sqrt(float((u**2).mean())))
        - math.exp(float(np.cos(2 * math.pi * u).mean()))
    )
    edge = -1.7 - 2 * (params["momentum"] - _OPTIMUM["momentum"])
    tau = 2 + 0.5 * abs(params["log_lr"] - edge)
    return _learn(
        value, untrained=8.0, time_constant=tau, beyond=(params["log_lr"] - edge) / (1 - edge)
    )


# The table is a grid in this space, of which 38 % diverges.
_RIS_SPACE: dict[str, Float | Int] = {
    "lr": Float(low=1e-4, high=1e2, default=1e-3, log=True),
    "warmup": Float(low=0.0, high=0.5, default=0.05),
    "oversampling": Float(low=0.8, high=1.8, default=1.0),
    "layers": Int(low=1, high=2, default=1),
}
_RIS_POINTS = {"lr": 20, "warmup": 3, "oversampling": 5, "layers": 2}


def _ris(params: Params) -> Course:
    """The learning curve of the nearest point of the table."""
    untrained, *values = _table()[_index(params)]
    return Course(untrained=untrained, values=tuple(values))


def _index(params: Params) -> int:
    index = 0
    for name, count in _RIS_POINTS.items():
        index = index * count + round(_position(name, params[name]) * (count - 1))
    return index


def _position(name: str, value: float) -> float:
    """The position of a parameter's value in its range, 0 to 1."""
    spec = _RIS_SPACE[name]
    scale = math.log if spec.log else float
    return (scale(value) - scale(spec.low)) / (scale(spec.high) - scale(spec.low))


@cache
def _table() -> list[list[float]]:
    rows: list[list[float]] = json.loads(_TABLE.read_text())
    return rows


PROBLEMS = {
    "hartmann": Problem(
        space={f"x{i}": Float(low=0.0, high=1.0, default=0.5) for i in range(6)}, course=_hartmann
    ),
    "edge": Problem(
        space={
            "log_lr": Float(low=-5.0, high=1.0, default=-3.0),
            "log_decay": Float(low=-6.0, high=0.0, default=-4.0),
            "momentum": Float(low=0.0, high=1.0, default=0.9),
        },
        course=_edge,
    ),
    "ris": Problem(space=_RIS_SPACE, course=_ris),
}


class _Curve(Reporter):
    """A reporter that keeps the metric of every epoch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def must_stop(self) -> bool:
        return False

    def on_epoch(self, epoch: Epoch) -> bool:
        self.values.append(epoch.metrics[objective.metric])
        return False


def train(params: Mapping[str, Any]) -> list[float]:
    """Train a trial; the metric before it and after each epoch, up to a divergence."""
    device, curve = torch.device("cpu"), _Curve()
    context = Context(
        device=device,
        size="unit",
        epochs=EPOCHS,
        seed=0,
        problem_seed=objective.problem_seed("unit"),
        options={"installation": "fixed"},
    )
    torch.manual_seed(0)
    task = objective.build({**objective.defaults("wide"), "batch": 64, **params}, context)
    plan = Plan(epochs=EPOCHS, precision="fp32", device=device, metric=objective.metric)
    try:
        trial.train(task, plan, curve)
    except Divergence:
        # The verdict may come after its epoch has been reported.
        return curve.values[:EPOCHS]
    return curve.values


def main() -> None:
    """Train the table anew."""
    torch.set_num_threads(1)
    rows = []
    for point in product(*(range(count) for count in _RIS_POINTS.values())):
        params: dict[str, float] = {}
        for (name, count), step in zip(_RIS_POINTS.items(), point, strict=True):
            spec = _RIS_SPACE[name]
            share = step / (count - 1)
            if isinstance(spec, Int):
                params[name] = spec.low + step
            elif spec.log:
                params[name] = spec.low * (spec.high / spec.low) ** share
            else:
                params[name] = spec.low + share * (spec.high - spec.low)
        rows.append([round(value, 4) for value in train(params)])
        print(len(rows), {name: f"{value:.4g}" for name, value in params.items()}, rows[-1][-1])
    _TABLE.write_text("[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")


if __name__ == "__main__":
    main()
