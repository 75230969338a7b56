"""The task in which faults are planted, and the registry of situations.

The task is a two-layer regression that trains in milliseconds on any device. Terms, modules, groups
and parameters have randomly drawn names, so that no verdict can come from a name.

Shapes: B rows of a batch; 4 inputs; 8 hidden; 2 outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.engine.reports import Epoch, Reporter
from hpo.task.forward import PRECISIONS
from objectives import Group, Task, Term
from situations.expected import Outcome, Words

Outputs = Mapping[str, Tensor]


class Dense(nn.Module):
    """A linear layer with parameter names from `words`."""

    def __init__(self, inputs: int, outputs: int, words: Words) -> None:
        super().__init__()
        self._weight, self._bias = words("weight"), words("bias")
        weight = torch.empty(outputs, inputs).uniform_(-1, 1) / sqrt(inputs)
        self.register_parameter(self._weight, nn.Parameter(weight))
        self.register_parameter(self._bias, nn.Parameter(torch.zeros(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, getattr(self, self._weight), getattr(self, self._bias))


class Planted(Task):
    """The healthy task; a situation overrides the methods that it spoils.

    Attributes:
        bad: Steps in which the fault is planted.
        steps: Steps of a trial, a multiple of `steps_per_epoch`.
        growth_interval: The number of clean steps after which the loss scaler doubles its scale.
        observed: Steps whose loss or gradient was seen to be non-finite.
    """

    steps_per_epoch = 10
    steps = 40
    bad: Collection[int] = range(5, 10**9)
    growth_interval = 2000

    def __init__(self, device: torch.device, words: Words) -> None:
        self.device, self.words = device, words
        torch.manual_seed(0)
        self.parts = {role: part.to(device) for role, part in self.networks().items()}
        self.modules = {words(role): part for role, part in self.parts.items()}
        self.groups = [
            Group(name=words(f"{role} group"), parameters=list(part.parameters()), lr=1e-2, clip=1)
            for role, part in self.parts.items()
        ]
        self.observed: set[int] = set()
        self.step = -1
        self.prepare()
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    self._see_gradient
                )

    def networks(self) -> dict[str, nn.Module]:
        """The modules by role, one group each."""
        return {"trunk": Dense(4, 8, self.words), "head": Dense(8, 2, self.words)}

    def prepare(self) -> None:
        """Spoil the networks before training."""

    def spoil(self, batch: dict[str, Any]) -> None:
        """Spoil the batch of a bad step in place."""

    def plant(self, outputs: Outputs, batch: Mapping[str, Any]) -> Term:
        """The term that is bad in a bad step."""
        return self.sound(outputs)

    def more_terms(self, outputs: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Term]:
        """Terms in addition to the usual three, by role."""
        return {}

    def signs(self, epochs: Sequence[Epoch]) -> bool:
        """Return whether a situation that has no bad step did occur."""
        return True

    def factor(self, step: int) -> float:
        """Factor of the loss; fp16 never overflows at 0.1, and in the first step at 1."""
        return 0.1

    def batch(self, step: int) -> dict[str, Any]:
        self.step = step
        batch: dict[str, Any] = {"step": step, **self._draw(16, 1000 + step)}
        if step in self.bad:
            self.spoil(batch)
        return batch

    def forward(self, batch: Mapping[str, Any]) -> Outputs:
        hidden = functional.gelu(self.parts["trunk"](batch["x"]))
        return {"y": self.parts["head"](hidden)}

    def loss(self, outputs: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Term]:
        misfit = (outputs["y"] - self.label(batch)).square().mean()
        terms = {
            "fit": Term(misfit, self.factor(batch["step"])),
            "size": self.sound(outputs),
            **self.more_terms(outputs, batch),
            "plant": self.plant(outputs, batch)
            if batch["step"] in self.bad
            else self.sound(outputs),
        }
        if not torch.stack([t.weight * t.value for t in terms.values()]).sum().isfinite():
            self.observed.add(self.step)
        return {self.words(role): term for role, term in terms.items()}

    def sound(self, outputs: Outputs) -> Term:
        """A term that does no harm."""
        return Term(outputs["y"].abs().mean(), 0.01)

    def label(self, batch: Mapping[str, Any]) -> Tensor:
        """The target of the outputs."""
        label: Tensor = batch["y"]
        return label

    def validate(self) -> Mapping[str, float]:
        batch = self._draw(64, 7)
        outputs = self.forward(batch)
        return {"error": float((outputs["y"] - batch["y"]).square().mean())}

    def sgd(self, lr: float, momentum: float = 0.0) -> torch.optim.Optimizer:
        """An optimizer in place of the engine's own."""
        groups = [{"params": list(group.parameters)} for group in self.groups]
        self.groups = [replace(group, lr=lr) for group in self.groups]
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)

    def parameters(self) -> list[nn.Parameter]:
        """All parameters."""
        return [p for part in self.parts.values() for p in part.parameters()]

    def parameter(self, role: str) -> nn.Parameter:
        """The parameter of a role such as `head.bias`."""
        part, _, name = role.partition(".")
        return self.parts[part].get_parameter(self.words(name))

    def _draw(self, rows: int, seed: int) -> dict[str, Tensor]:
        x_B4 = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
        y_B2 = torch.stack((x_B4.sum(1), x_B4[:, 0] - x_B4[:, 1]), 1)
        return {"x": x_B4.to(self.device), "y": y_B2.to(self.device)}

    def _see_gradient(self, parameter: Tensor) -> None:
        # The norm overflows where the square of an element does.
        if parameter.grad is not None and not parameter.grad.norm().isfinite():
            self.observed.add(self.step)


class Log(Reporter):
    """A reporter that keeps all epochs and stops no trial."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []

    def must_stop(self) -> bool:
        return False

    def on_epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return False


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A planted task and its expected outcome in each precision."""

    name: str
    build: Callable[[torch.device, Words], Planted]
    expected: Mapping[str, Outcome]

    @property
    def sentence(self) -> str:
        """The planted situation in one line, from the docstring of its class."""
        return (self.build.__doc__ or "").splitlines()[0].rstrip(".")


SITUATIONS: dict[str, Situation] = {}


def situation(
    expected: Outcome, **by_precision: Outcome
) -> Callable[[type[Planted]], type[Planted]]:
    """Register a task class with its outcome, the same in all precisions but those named.

    The first line of the class's docstring describes the situation.
    """

    def register(build: type[Planted]) -> type[Planted]:
        outcomes: dict[str, Outcome] = {p: by_precision.get(p, expected) for p in PRECISIONS}
        SITUATIONS[build.__name__] = Situation(name=build.__name__, build=build, expected=outcomes)
        return build

    return register
