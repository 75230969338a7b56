"""Small tasks that train in milliseconds and fail on command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hpo.engine.reports import Epoch, Reporter
from objectives import Group, Task, Term

CPU = torch.device("cpu")


class ToyTask(Task):
    """A two-layer regression with dropout; `sabotage(step, terms)` may spoil the loss."""

    steps_per_epoch = 10

    def __init__(
        self,
        *,
        seed: int = 0,
        lr: float = 1e-2,
        clip: float = 1.0,
        dropout: float = 0.1,
        sabotage: Callable[[int, dict[str, Term], Any], dict[str, Term]] | None = None,
        label: Callable[[Tensor], Tensor] = lambda y: y,
    ) -> None:
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 2)
        self.modules = {"body": self.body, "head": self.head}
        self.groups = [
            Group(name="body", parameters=list(self.body.parameters()), lr=lr, clip=clip),
            Group(name="head", parameters=list(self.head.parameters()), lr=lr, clip=clip),
        ]
        self.sabotage, self.label = sabotage, label
        self.step = -1
        self.forward_dtypes: list[torch.dtype] = []
        self.loss_dtypes: list[torch.dtype] = []

    def schedule(self, progress: float) -> float:
        return 1.0 - 0.9 * progress

    def batch(self, step: int) -> dict[str, Any]:
        self.step = step
        generator = torch.Generator().manual_seed(1000 + step)
        x = torch.randn(16, 4, generator=generator)
        y = torch.stack([x.sum(1), x[:, 0] - x[:, 1]], dim=1)
        return {"x": x, "y": self.label(y)}

    def forward(self, batch: Any) -> Tensor:
        out: Tensor = self.head(self.body(batch["x"]))
        self.forward_dtypes.append(out.dtype)
        return out

    def loss(self, outputs: Tensor, batch: Any) -> Mapping[str, Term]:
        self.loss_dtypes += [outputs.dtype, batch["y"].dtype]
        y = batch["y"].real if batch["y"].is_complex() else batch["y"]
        terms = {
            "fit": Term((outputs - y).square().mean()),
            "size": Term(outputs.abs().mean(), 0.01),
        }
        if self.sabotage is not None:
            terms = self.sabotage(self.step, terms, outputs)
        return terms

    def validate(self) -> Mapping[str, float]:
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(64, 4, generator=generator)
        y = torch.stack([x.sum(1), x[:, 0] - x[:, 1]], dim=1)
        # Drawing here must not disturb training.
        torch.randn(3)
        return {"error": float((self.head(self.body(x)) - y).square().mean())}


class Log(Reporter):
    """A reporter that remembers, and stops or prunes when told."""

    def __init__(self, *, stop_after: int | None = None, prune_at: int | None = None) -> None:
        self.epochs: list[Epoch] = []
        self.stop_after, self.prune_at = stop_after, prune_at
        self.steps = 0

    def must_stop(self) -> bool:
        self.steps += 1
        return self.stop_after is not None and self.steps > self.stop_after

    def on_epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return epoch.epoch == self.prune_at


def weights(task: Task) -> Tensor:
    """All weights of a task in one vector."""
    parameters = [p for module in task.modules.values() for p in module.parameters()]
    return torch.cat([p.detach().flatten() for p in parameters])


class Operators(TorchDispatchMode):
    """Every operator, forward and backward, with the dtypes that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, set[torch.dtype]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        dtypes = {a.dtype for a in torch.utils._pytree.tree_leaves(args) if torch.is_tensor(a)}
        self.seen.append((str(func), dtypes))
        return func(*args, **(kwargs or {}))
