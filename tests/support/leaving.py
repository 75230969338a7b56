"""An objective whose trials start processes of several kinds and end none; its third step hangs.

Options: `folder`, where each trial writes the pids of its processes; `hang`, `yes` or `no`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from objectives import Context, Float, Group, Objective, Option, Params, Task, Term

SLEEP = ["sleep", "3600"]
KINDS = 5


def forked(*, twice: bool) -> int:
    """A process that is forked and sleeps; twice: in a session of its own and without a parent."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        if twice:
            os.setsid()
            if os.fork():
                os._exit(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        os.close(write)
        while True:
            time.sleep(3600)
    os.close(write)
    if twice:
        os.waitpid(pid, 0)
    found = int(os.read(read, 20))
    os.close(read)
    return found


def started() -> list[int]:
    """The pids of a child, one with a session, one of a shell that has gone, and two forks."""
    orphan = subprocess.run(
        ["sh", "-c", "setsid sleep 3600 >/dev/null 2>&1 & echo $!"], capture_output=True, check=True
    )
    return [
        subprocess.Popen(SLEEP).pid,
        subprocess.Popen(SLEEP, start_new_session=True).pid,
        int(orphan.stdout),
        forked(twice=False),
        forked(twice=True),
    ]


class LeavingTask(Task):
    """A regression of one weight."""

    steps_per_epoch = 8

    def __init__(self, params: Params, context: Context) -> None:
        self._folder = Path(context.options["folder"])
        self._hangs = context.options["hang"] == "yes"
        self._net = nn.Linear(2, 1)
        self.modules = {"net": self._net}
        self.groups = [Group(name="all", parameters=list(self._net.parameters()), lr=1e-2)]

    def _start(self) -> None:
        """Start processes, and note those of earlier trials that still live."""
        folder = self._folder
        before = [int(pid) for file in folder.glob("*.pids") for pid in file.read_text().split()]
        living = [pid for pid in before if psutil.pid_exists(pid)]
        name = f"{len(list(folder.glob('*.pids')))}.pids"
        (folder / "earlier").write_text(str(living))
        (folder / name).write_text(" ".join(map(str, started())))

    def batch(self, step: int) -> Tensor:
        if step == 0:
            self._start()
        if self._hangs and step == 2:
            time.sleep(3600)
        return torch.randn(4, 2, generator=torch.Generator().manual_seed(step))

    def forward(self, batch: Tensor) -> Tensor:
        return torch.as_tensor(self._net(batch))

    def loss(self, outputs: Tensor, batch: Tensor) -> Mapping[str, Term]:
        return {"misfit": Term((outputs - batch.sum(1, keepdim=True)).square().mean())}

    def validate(self) -> Mapping[str, Any]:
        return {"error": float(self._net.weight.detach().square().sum())}


class Leaving(Objective):
    """The size of a weight."""

    name, metric, direction, sizes = "leaving", "error", "minimize", ("tiny",)
    spaces = {"wide": {"x": Float(low=0.0, high=1.0, default=0.5)}}
    options = {"folder": Option(default=""), "hang": Option(default="no", choices=("no", "yes"))}

    def build(self, params: Params, context: Context) -> LeavingTask:
        return LeavingTask(params, context)


objective = Leaving()
