"""The campaign's objective, which sleeps and keeps a diary, and the reader of that diary.

A trial is known by its parameter `x`: the diary has no number, since the objective is given none.
Times are of the monotonic clock, which all processes of this machine share and no fault changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCHS = 12
# 6 s a trial: a study of 80 trials on 6 workers takes some 90 s, and a fault fits into it.
_EPOCH_S = 0.5

_SOURCE = '''
"""Sleep in each epoch, and a line in the diary at each build and epoch."""
import json, os, socket, time
import torch
from torch import nn
from objectives import Float, Group, Objective, Task, Term

def note(**event):
    event |= {{"pid": os.getpid(), "host": socket.gethostname(), "at": time.monotonic()}}
    # One write of O_APPEND is one line, whoever else writes and whoever is killed.
    file = os.open({diary!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, (json.dumps(event) + "\\n").encode())
    os.close(file)

class Sleeper(Task):
    steps_per_epoch = 1

    def __init__(self, params, context):
        self.x, self.epochs, self.epoch = params["x"], context.epochs, 0
        self.attempt = f"{{socket.gethostname()}}/{{os.getpid()}}/{{time.monotonic()}}"
        self.net = nn.Linear(1, 1)
        self.modules = {{"net": self.net}}
        self.groups = [Group(name="net", parameters=list(self.net.parameters()), lr=1e-3)]
        self.note("build")

    def note(self, event):
        note(event=event, x=self.x, epoch=self.epoch, attempt=self.attempt)

    def batch(self, step):
        time.sleep({epoch_s})
        self.epoch = step + 1
        return torch.ones(1, 1)

    def forward(self, batch):
        return self.net(batch)

    def loss(self, outputs, batch):
        return {{"mse": Term((outputs - batch).square().mean())}}

    def validate(self):
        self.note("end" if self.epoch == self.epochs else "epoch")
        return {{"error": (self.x - 0.3) ** 2 + 1 / (1 + self.epoch)}}

class Sleep(Objective):
    name, metric, direction = "sleep", "error", "minimize"
    spaces = {{"wide": {{"x": Float(low=0.0, high=1.0, default=0.5)}}}}

    def build(self, params, context):
        return Sleeper(params, context)

objective = Sleep()
'''


def value(x: float, epoch: int) -> float:
    """The metric of a trial after an epoch, as the objective computes it."""
    return (x - 0.3) ** 2 + 1 / (1 + epoch)


@dataclass(frozen=True, kw_only=True)
class Course:
    """The diary's account of one trial.

    Attributes:
        attempts: Epochs of each attempt that trained at least one, in order of their beginnings.
        first: Time of its first line, in s of the monotonic clock.
        ended: Times at which its last epoch was done.
        epochs: Times at which an epoch was done, each with the process that trained it.
    """

    x: float
    attempts: Sequence[Sequence[int]]
    first: float
    ended: Sequence[float]
    epochs: Sequence[tuple[float, int]] = ()

    @property
    def repeated(self) -> int:
        """Number of epochs that were trained again."""
        epochs = [epoch for attempt in self.attempts for epoch in attempt]
        return len(epochs) - len(set(epochs))

    @property
    def is_continuous(self) -> bool:
        """True if each attempt goes epoch by epoch, from no later than where the others were."""
        reached = 0
        for attempt in self.attempts:
            if attempt[0] > reached + 1 or list(attempt) != list(
                range(attempt[0], attempt[-1] + 1)
            ):
                return False
            reached = max(reached, attempt[-1])
        return True


class Diary:
    """The objective's file and the diary that its trials write."""

    def __init__(self, folder: Path, *, epoch_s: float = _EPOCH_S) -> None:
        self.path, self._diary = folder / "sleep.py", folder / "diary.jsonl"
        self.path.write_text(_SOURCE.format(diary=str(self._diary), epoch_s=epoch_s))

    def lines(self) -> list[dict[str, Any]]:
        """Its lines, as they were written."""
        if not self._diary.exists():
            return []
        # The last line may be half read.
        whole = self._diary.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def ended(self) -> int:
        """Number of trials whose last epoch was done."""
        return len({line["x"] for line in self.lines() if line["event"] == "end"})

    def courses(self) -> list[Course]:
        """The account of every trial, in order of their first lines."""
        by_trial: dict[float, list[dict[str, Any]]] = {}
        for line in self.lines():
            by_trial.setdefault(line["x"], []).append(line)
        return [_course(x, lines) for x, lines in by_trial.items()]


def _course(x: float, lines: Sequence[dict[str, Any]]) -> Course:
    attempts: dict[str, list[int]] = {}
    for line in lines:
        # The validation before the first step is epoch 0, and a resumed attempt has none.
        if line["epoch"] > 0:
            attempts.setdefault(line["attempt"], []).append(line["epoch"])
    return Course(
        x=x,
        attempts=list(attempts.values()),
        first=lines[0]["at"],
        ended=[line["at"] for line in lines if line["event"] == "end"],
        epochs=[(line["at"], line["pid"]) for line in lines if line["epoch"] > 0],
    )
