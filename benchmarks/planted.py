"""Test the guard on planted faults and healthy situations, in all three precisions.

    python benchmarks/planted.py [--device cuda]
    python benchmarks/planted.py --healthy_steps 10000 --network hybrid

The first command prints the verdict on every situation next to the expected one. The second trains
a network of the RIS objective over its wide space and counts false alarms. Exit code 1 if any
verdict is wrong.
"""

from __future__ import annotations

import argparse
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import planted_ris
import torch
from situations import SITUATIONS
from situations.expected import Outcome, Words
from situations.task import Log, Planted, Situation

from hpo.engine import trial
from hpo.engine.plan import Plan, Result
from hpo.guard.evidence import Divergence, Evidence
from hpo.task.forward import PRECISIONS

Ended = Result | Exception


@dataclass(frozen=True, kw_only=True)
class Row:
    """The outcome of a situation in one precision.

    Attributes:
        steps: Steps from the first bad one to the verdict; None if the trial was not pruned.
        wrong: Deviations from the expected outcome, in words; empty if there are none.
    """

    situation: Situation
    precision: str
    ended: Ended
    task: Planted
    steps: int | None
    wrong: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        """The cells of the table's row."""
        expected = self.situation.expected[self.precision].reason or "healthy"
        words = self.task.words
        verdict, names, steps = _verdict(self.ended), ("-", "-", "-"), "-"
        if isinstance(self.ended, Result):
            verdict += f" ({self.ended.skipped} skipped, {self.ended.spikes} spikes)"
        if isinstance(self.ended, Divergence):
            found, steps = self.ended.evidence, str(self.steps)
            names = (words.role(found.term), words.role(found.parameter), found.operation or "-")
        mark = f"**wrong**: {'; '.join(self.wrong)}" if self.wrong else "right"
        return (self.situation.sentence, self.precision, expected, verdict, *names, steps, mark)


def run(situation: Situation, precision: str, device: torch.device, *, seed: int = 0) -> Row:
    """Train a situation to its end or its verdict, and compare that with the expected outcome.

    Args:
        seed: Seed of the random names of its parts.
    """
    task, log = situation.build(device, Words(seed)), Log()
    plan = Plan(
        epochs=task.steps // task.steps_per_epoch,
        precision=precision,
        device=device,
        metric="error",
    )
    scaler = partial(torch.amp.GradScaler, growth_interval=task.growth_interval)
    ended: Ended
    # The default of 2,000 clean steps before the scale grows would take too long.
    with mock.patch.object(torch.amp, "GradScaler", scaler):
        try:
            ended = trial.train(task, plan, log)
        except Exception as error:
            ended = error
    observed = min(task.observed, default=task.step + 1)
    steps = None if isinstance(ended, Result) else task.step + 1 - observed
    expected = situation.expected[precision]
    wrong = tuple(judged(expected, ended, task=task, log=log, steps=steps))
    return Row(
        situation=situation, precision=precision, ended=ended, task=task, steps=steps, wrong=wrong
    )


def judged(
    expected: Outcome, ended: Ended, *, task: Planted, log: Log, steps: int | None
) -> Iterator[str]:
    """Yield the deviations from the expected outcome."""
    found, wanted = _verdict(ended), expected.reason or "healthy"
    least, most = expected.bad
    if not least <= len(task.observed) <= most:
        yield f"{len(task.observed)} bad steps instead of {least} to {most}"
    if not task.signs(log.epochs):
        yield "the situation did not come about"
    if found != wanted:
        yield f"{found} instead of {wanted}"
        if not isinstance(ended, Result):
            yield str(ended).splitlines()[0]
    elif isinstance(ended, Divergence):
        if steps is not None and steps > expected.within:
            yield f"{steps} steps instead of {expected.within} at most"
        yield from _misnamed(expected, ended.evidence, task)
    elif isinstance(ended, Result):
        if ended.skipped != len(task.observed):
            yield f"{ended.skipped} skipped of {len(task.observed)} bad steps"
        if expected.spikes is not None and ended.spikes != expected.spikes:
            yield f"{ended.spikes} spikes instead of {expected.spikes}"
        if log.epochs[-1].metrics["error"] >= log.epochs[0].metrics["error"]:
            yield "no progress"
        if not all(p.isfinite().all() for p in task.parameters()):
            yield "weights that are not finite"


def _verdict(ended: Ended) -> str:
    if isinstance(ended, Result):
        return "healthy"
    if isinstance(ended, Divergence):
        return ended.reason
    return f"raised {type(ended).__name__}"


def _misnamed(expected: Outcome, evidence: Evidence, task: Planted) -> Iterator[str]:
    """Yield the names in the evidence that are wrong."""
    words, handed_in = task.words, expected.handed_in
    # A weight has a dot in its name; a part of the batch is called by its key.
    if handed_in is not None and "." in handed_in:
        handed_in = words(handed_in)
    names = {
        "term": (evidence.term, expected.term and words(expected.term)),
        "kind": (evidence.kind, expected.kind),
        "direction": (evidence.direction, expected.direction),
        "parameter": (evidence.parameter, expected.parameter and words(expected.parameter)),
        "operation": (evidence.operation, expected.operation),
        "module": (evidence.module, expected.module and words(expected.module)),
        "handed_in": (evidence.handed_in, handed_in),
    }
    for what, (found, wanted) in names.items():
        if wanted is not None and found != wanted:
            yield f"{what} {found} instead of {wanted}"
    if expected.parameters is not None:
        roles = [words(role) for role in expected.parameters]
        if list(evidence.parameters) != roles:
            yield f"parameters {list(evidence.parameters)} instead of {roles}"
    # A custom autograd function is known only by its node, which has no source line.
    operation = expected.operation
    if operation and operation[0] != "_" and not _is_there(operation, evidence.where):
        yield f"{operation} is not at {evidence.where}"


def _is_there(operation: str, where: str | None) -> bool:
    """Return whether a line, as `numerics.py:55 in plant`, does hold the operation."""
    file, _, rest = (where or "").partition(":")
    number = rest.partition(" ")[0]
    path = Path(__file__).with_name("situations") / file
    if not number.isdigit() or not path.is_file():
        return False
    return operation.removeprefix("linalg_") in linecache.getline(str(path), int(number))


def machine(device: torch.device) -> str:
    """The device and the version of torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    return f"{name}, torch {torch.__version__}"


def table(device: torch.device, seed: int) -> int:
    """Print every situation and return the number of wrong verdicts."""
    print("| situation | precision | expected | verdict | term | parameter | operation | steps | |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for situation in SITUATIONS.values():
        for precision in reversed(PRECISIONS):
            rows.append(run(situation, precision, device, seed=seed))
            print(f"| {' | '.join(rows[-1].cells())} |", flush=True)
    wrong = sum(bool(row.wrong) for row in rows)
    print(
        f"\n{len(SITUATIONS)} situations, {len(rows)} runs: {len(rows) - wrong} right, "
        f"{wrong} wrong ({machine(device)})"
    )
    return wrong


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seed", type=int, default=0, help="of the names; default 0")
    parser.add_argument(
        "--healthy_steps", type=int, default=0, help="train the RIS objective for so many steps"
    )
    parser.add_argument("--network", default="unrolled", help="of the RIS objective")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    if given.healthy_steps:
        steps, network = given.healthy_steps, given.network
        sys.exit(bool(planted_ris.table(device, steps, given.seed, network)))
    sys.exit(bool(table(device, given.seed)))


if __name__ == "__main__":
    main()
