"""The networks of the RIS objective in fp32, bf16 and fp16: time of a step, share in half, J.

    python benchmarks/precision.py --size full --device cuda
    python benchmarks/precision.py --size unit --epochs 8

Each row is the default configuration of one network in one precision:

- A step of the engine, with its guard, against a step of a plain loop of the same task: autocast, a
  GradScaler in fp16, the loss in fp32, clipping and fused AdamW. They take turns of eight steps, as
  the guard reads its counters at every eighth. Time is CPU time on a CPU, and wall time on a GPU,
  whose queue is emptied after each turn. It leaves out the drawing of batches.
- The share of the forward's multiply-adds that ran in half precision, as dispatched.
- The peak of allocated memory in those turns, both loops together; on a GPU alone.
- J after whole trials by the engine over several seeds, its difference to fp32 over the same seeds,
  the steps that the guard or the scaler withheld, and the trials that were pruned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

import torch
from products import Products
from situations.task import Log

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.guard.evidence import Divergence
from hpo.guard.verdict import READ_EVERY
from hpo.task.forward import PRECISIONS
from hpo.task.random_state import random_state
from objectives import Context, Task, bound, complete
from objectives.ris_covariance import objective
from objectives.ris_networks.registry import NETWORKS

_HEAD = (
    *("network", "precision", "engine, ms", "plain loop, ms", "ratio", "in half", "peak, MB"),
    *("J, dB", "J − fp32's, dB", "withheld", "pruned"),
)
# The first turns choose kernels and fill the allocator.
_WARM_UP_TURNS = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table: a network in a precision, at a size, on a device."""

    network: str
    precision: str
    size: str
    device: torch.device
    epochs: int

    def task(self, seed: int) -> Task:
        """Build the task of the network's default configuration."""
        options = complete(objective.options, {"network": self.network})
        under = bound(objective, options)
        torch.manual_seed(seed)
        context = Context(
            device=self.device,
            size=self.size,
            epochs=self.epochs,
            seed=seed,
            problem_seed=objective.problem_seed(self.size),
            options=options,
        )
        return under.build(under.defaults("wide"), context)

    def plan(self) -> Plan:
        """Plan a whole trial in this precision."""
        return Plan(
            epochs=self.epochs,
            precision=self.precision,
            device=self.device,
            metric=objective.metric,
        )


def autocast(case: Case) -> torch.autocast:
    """Autocast to the precision of a case, off in fp32."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(case.precision)
    return torch.autocast(case.device.type, dtype=dtype, enabled=dtype is not None)


class PlainLoop:
    """The loop that a user would write for the same task, without guard, figures or checkpoint."""

    def __init__(self, case: Case) -> None:
        self.case, self.task, self.taken = case, case.task(0), 0
        groups = [
            {"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay}
            for group in self.task.groups
        ]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        enabled = case.precision == "fp16"
        self.scaler = torch.amp.GradScaler(case.device.type, enabled=enabled)

    def step(self, batch: Any) -> None:
        """Run one step."""
        task, case = self.task, self.case
        progress = self.taken / (case.epochs * task.steps_per_epoch)
        for group, state in zip(task.groups, self.optimizer.param_groups, strict=True):
            state["lr"] = group.lr * task.schedule(min(progress, 1.0))
        self.taken += 1
        with autocast(case):
            outputs = task.forward(batch)
        terms = task.loss(outputs, batch)  # outputs and labels are fp32 in every precision
        loss = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        for group in task.groups:
            torch.nn.utils.clip_grad_norm_(list(group.parameters), group.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """CPU time of this process on a CPU, wall time on a GPU, in ms."""
    if device.type != "cuda":
        started = time.process_time()
        work()
        return 1e3 * (time.process_time() - started)
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def step_times(case: Case, turns: int) -> tuple[float, float, float | None]:
    """Medians over turns, in ms a step, of engine and plain loop; peak memory in MB on a GPU."""
    trial, loop = engine._Trial(case.task(0), case.plan()), PlainLoop(case)
    for part in (trial.task, loop.task):
        part.modules["net"].train()
    batches: list[Any] = []

    def by_engine() -> None:
        for batch in batches:
            is_read_due = trial.is_read_due
            rng = random_state(case.device) if is_read_due else {}
            trial.train_step(batch)
            if is_read_due:
                trial.judge(batch, rng)

    def by_loop() -> None:
        for batch in batches:
            loop.step(batch)

    spent: list[tuple[float, float]] = []
    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(case.device)
    for turn in range(turns + _WARM_UP_TURNS):
        first = turn * READ_EVERY
        batches[:] = [trial.task.batch(step) for step in range(first, first + READ_EVERY)]
        spent.append((milliseconds(by_engine, case.device), milliseconds(by_loop, case.device)))
    peak_mb = None
    if case.device.type == "cuda":
        peak_mb = torch.cuda.max_memory_allocated(case.device) / 2**20
    ours_ms, plain_ms = (median(column[_WARM_UP_TURNS:]) for column in zip(*spent, strict=True))
    return ours_ms / READ_EVERY, plain_ms / READ_EVERY, peak_mb


def half_share(case: Case) -> float:
    """Share of the multiply-adds of a training batch's forward that ran in half precision."""
    task = case.task(0)
    batch = task.batch(0)
    with Products() as products, torch.no_grad(), autocast(case):
        task.forward(batch)
    return float(products.half_share)


def trials(case: Case, seeds: int) -> tuple[list[float], int, int]:
    """Train whole trials; J of each seed that was not pruned, steps withheld, trials pruned."""
    values, withheld, pruned = [], 0, 0
    for seed in range(seeds):
        try:
            result = engine.train(case.task(seed), case.plan(), Log())
        except Divergence as verdict:
            print(f"{case.network}, {case.precision}, seed {seed}: {verdict}", flush=True)
            pruned, withheld = pruned + 1, withheld + verdict.skipped
            continue
        values.append(result.value)
        withheld += result.skipped
    return values, withheld, pruned


def row(case: Case, *, turns: int, seeds: int, reference: list[float]) -> tuple[str, list[float]]:
    """One row of the table, and J of its seeds; `reference` holds those of fp32."""
    ours_ms, plain_ms, peak_mb = step_times(case, turns)
    values, withheld, pruned = trials(case, seeds)
    against = "-"
    if reference and len(values) == len(reference):
        differences = [one - exact for one, exact in zip(values, reference, strict=True)]
        against = spread(differences, "+.2f")
    cells = (
        *(case.network, case.precision, f"{ours_ms:.1f}", f"{plain_ms:.1f}"),
        *(f"{ours_ms / plain_ms:.2f}", f"{half_share(case):.1%}"),
        "-" if peak_mb is None else f"{peak_mb:.0f}",
        *(spread(values, ".2f"), against, str(withheld), f"{pruned} of {seeds}"),
    )
    return f"| {' | '.join(cells)} |", values


def spread(values: list[float], form: str) -> str:
    """Mean ± deviation over seeds."""
    if not values:
        return "-"
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):{form}} ± {deviation:.2f}"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="unit")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=list(reversed(PRECISIONS)))
    parser.add_argument("--turns", type=int, default=12, help="of eight steps of each loop")
    parser.add_argument("--epochs", type=int, default=12, help="of a trial")
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    print(f"torch {torch.__version__}, {name}, size {given.size}, {given.epochs} epochs a trial")
    print(f"| {' | '.join(_HEAD)} |", f"|{'---|' * len(_HEAD)}", sep="\n")
    for network in given.networks:
        reference: list[float] = []
        for precision in given.precisions:
            case = Case(
                network=network,
                precision=precision,
                size=given.size,
                device=device,
                epochs=given.epochs,
            )
            line, values = row(case, turns=given.turns, seeds=given.seeds, reference=reference)
            reference = values if precision == "fp32" else reference
            print(line, flush=True)


if __name__ == "__main__":
    main()
