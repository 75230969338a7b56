"""The guard's cost in a healthy trial: its own calls against a training step of the same trial.

    python benchmarks/guard_cost.py [--device cuda] [--sizes tiny base]

The guard calls `Counters.observe` and saves buffers at every step, and calls `Counters.read` at
every 8th; here 10,000 times in a row on the device. Its gradient norms are those that clipping
needs anyway. Also timed are the probe and the whole evidence, which only a suspect step pays for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.guard import forensics
from hpo.guard.verdict import READ_EVERY
from hpo.task.random_state import random_state
from objectives import Context
from objectives.ris_covariance import objective

_REPEATS = 10_000


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of some work on the device, in s."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def begin(size: str, precision: str, device: torch.device) -> engine._Trial:
    """Build a trial of the default configuration."""
    torch.manual_seed(0)
    context = Context(
        device=device,
        size=size,
        epochs=12,
        seed=0,
        problem_seed=objective.problem_seed(size),
        options={"installation": "fixed"},
    )
    task = objective.build(objective.defaults("wide"), context)
    plan = Plan(epochs=12, precision=precision, device=device, metric=objective.metric)
    return engine._Trial(task, plan)


def measure(size: str, precision: str, device: torch.device, steps: int) -> str:
    """Measure one row of the table."""
    trial = begin(size, precision, device)
    times = []
    for step in range(steps + 3):
        batch = trial.task.batch(step)
        times.append(seconds(lambda batch=batch: trial.train_step(batch), device))  # type: ignore[misc]
    step_s = statistics.median(times[3:])
    loss = torch.ones((), device=device)
    norms_G = torch.ones(len(trial.task.groups), device=device)

    def guard() -> None:
        for number in range(_REPEATS):
            trial._buffers.note()
            trial._buffers.put_back(trial.counters.observe(loss, norms_G))
            if number % READ_EVERY == 0:
                trial.counters.read(loss)

    guard_s = seconds(guard, device) / _REPEATS
    task, batch, rng = trial.task, trial.task.batch(0), random_state(device)

    def probe() -> None:
        forensics.probe(task, batch, device=device, precision=precision, rng=rng)

    def examine() -> None:
        forensics.examine(task, batch, device=device, precision=precision, rng=rng)

    figures = (
        *(size, precision, f"{1e3 * step_s:.1f}", f"{1e6 * guard_s:.1f}"),
        *(f"{guard_s / step_s:.2%}", f"{seconds(probe, device):.2f}"),
        f"{seconds(examine, device):.2f}",
    )
    return f"| {' | '.join(figures)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["unit", "tiny", "base"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--steps", type=int, default=30, help="of which the median is taken")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    print(f"torch {torch.__version__}, {name}")
    print("| size | precision | step, ms | guard, µs a step | share | probe, s | evidence, s |")
    print("|---|---|---|---|---|---|---|")
    for size in given.sizes:
        for precision in given.precisions:
            print(measure(size, precision, device, given.steps), flush=True)


if __name__ == "__main__":
    main()
