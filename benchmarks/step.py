"""CPU time of a step, a validation and a trial of the RIS objective, against another checkout.

    python benchmarks/step.py --against ../other-checkout --turns 5

Each turn trains the default configuration of the `wide` space for a trial in a process of its own,
first of one checkout and then of the others, so that a busy machine slows all alike. The loop is a
plain one, AdamW with clipping, so that checkouts with different engines compare. Times are CPU
times of a process with one thread, and the memory is its peak. The table shows medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# A worker's allocator keeps freed memory: see `hpo.machine.slots`.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
_ROWS = {
    "step_ms": "step, median, ms",
    "validation_ms": "validation, median, ms",
    "build_s": "problem and network, s",
    "trial_s": "trial without it, s",
    "J_db": "J, dB",
    "peak_mb": "peak memory, MB",
}


def turn(size: str, epochs: int, seed: int, changes: Mapping[str, Any]) -> dict[str, float]:
    """Train one configuration in this process; CPU times, J and the peak memory."""
    import torch

    from objectives import Context, load

    torch.set_num_threads(1)
    objective = load("ris_covariance")
    options = {name: option.default for name, option in objective.options.items()}
    if "network" in options:
        # Only this one is in every checkout.
        options["network"] = "unrolled"
    context = Context(
        device=torch.device("cpu"),
        size=size,
        epochs=epochs,
        seed=seed,
        problem_seed=objective.problem_seed(size),
        options=options,
    )
    space = objective.spaces["wide"]
    params = {**{name: spec.default for name, spec in space.items()}, **changes}
    torch.manual_seed(seed)
    started = time.process_time()
    task = objective.build(params, context)
    groups = [{"params": list(group.parameters), "lr": group.lr} for group in task.groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    net = task.modules["net"]
    net.eval()
    with torch.no_grad():
        task.validate()
    build_s = time.process_time() - started

    def step(index: int) -> None:
        net.train()
        for group, state in zip(task.groups, optimizer.param_groups, strict=True):
            state["lr"] = group.lr * task.schedule(index / steps)
        batch = task.batch(index)
        terms = task.loss(task.forward(batch), batch).values()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack([term.weight * term.value for term in terms]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in task.groups:
            torch.nn.utils.clip_grad_norm_(list(group.parameters), group.clip)
        optimizer.step()

    def validate() -> Mapping[str, float]:
        net.eval()
        with torch.no_grad():
            return task.validate()

    steps, step_s, validation_s = epochs * task.steps_per_epoch, [], []
    figures: Mapping[str, float] = {}
    for index in range(steps):
        step_s.append(_cpu_s(partial(step, index))[0])
        if (index + 1) % task.steps_per_epoch == 0:
            spent_s, figures = _cpu_s(validate)
            validation_s.append(spent_s)
    return {
        "step_ms": 1e3 * median(step_s),
        "validation_ms": 1e3 * median(validation_s),
        "build_s": build_s,
        "trial_s": sum(step_s) + sum(validation_s),
        "J_db": figures["J_db"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _cpu_s(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = function()
    return time.process_time() - started, found


def measured(checkout: Path, given: argparse.Namespace, seed: int) -> dict[str, float]:
    """One turn of a checkout, in a process of its own."""
    told = {"size": given.size, "epochs": given.epochs, "seed": seed, "changes": given.params}
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(Path(__file__).resolve()), "--turn", json.dumps(told)]
    done = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, action="append", default=[])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--params", type=json.loads, default={}, help="changes to the default")
    parser.add_argument("--turn", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.turn is not None:
        print(json.dumps(turn(**given.turn)))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = [here, *(path.resolve() for path in given.against)]
    rows: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for seed in range(given.turns):
        for checkout in checkouts:
            rows[checkout].append(measured(checkout, given, seed))
            print(f"turn {seed}: {checkout.name}: {rows[checkout][-1]}", file=sys.stderr)
    print("| median of the turns |", *(f"{checkout.name} |" for checkout in checkouts))
    print("|---" * (len(checkouts) + 1) + "|")
    for name, label in _ROWS.items():
        medians = [median(row[name] for row in rows[checkout]) for checkout in checkouts]
        print(f"| {label} |", *(f"{value:.2f} |" for value in medians))


if __name__ == "__main__":
    main()
