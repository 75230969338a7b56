"""The contract of an objective and of its tasks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from objectives._evaluation import Asked, Evaluation
from objectives._space import Params, Space, Trial

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Option:
    """A setting of the problem itself, a flag of `run`; part of what a study is created with."""

    default: str
    choices: tuple[str, ...] = ()
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a trial is built for.

    Attributes:
        seed: Initialization and training draws of this trial.
        problem_seed: Installation, validation and test sets; a constant of the size.
        options: The objective's own options, by name.
        must_stop: Whether long work outside of a trial's steps is to be given up.
    """

    device: torch.device
    size: str
    epochs: int
    seed: int
    problem_seed: int
    options: Mapping[str, str] = field(default_factory=dict)
    must_stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that are optimized alike: fp32, real; `clip` bounds their gradient's norm."""

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 0.0
    clip: float = math.inf


class Term(NamedTuple):
    """A named part of the loss: a scalar fp32 tensor and the factor it enters the sum with."""

    value: Tensor
    weight: float = 1.0


class Prediction(NamedTuple):
    """What the networks make of one sample, kept to be looked at: plain data, tensors.

    Attributes:
        kind: How it is shown: `grid` (rows of integers), `table` (a mapping or a list of mappings
            of names to figures), or any other word (as JSON).
        score: How good it is, as the objective rates it.
    """

    kind: str
    input: Any
    target: Any
    prediction: Any
    score: float


class Task(ABC):
    """How one trial trains.

    Attributes:
        modules: By name; put in training and evaluation mode, saved and loaded.
        groups: Parameter groups, each of whose names is shown with its gradient norm.
        steps_per_epoch: A trial is `context.epochs` times as many steps.
    """

    modules: Mapping[str, nn.Module]
    groups: Sequence[Group]
    steps_per_epoch: int

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The batch of a step, on the device: a function of the trial's seed and the step."""

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """The networks' outputs; runs under autocast."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Any) -> Mapping[str, Term]:
        """The terms of the loss. Every floating tensor comes as fp32, complex as complex64."""

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """Figures of the networks as they are, the metric among them; no gradient, no autocast."""

    def schedule(self, progress: float) -> float:
        """The learning rate's multiplier at a share in [0, 1) of the trial's steps."""
        return 1.0

    def optimizer(self) -> torch.optim.Optimizer | None:
        """An optimizer over `groups` of its own; None for AdamW."""
        return None

    def monitor(self) -> Mapping[str, Tensor]:
        """Figures of the step just taken beside its loss: detached scalars, logged and averaged."""
        return {}

    def idle(self, step: int) -> Collection[str]:
        """The groups that have no gradient at a step by construction: no reason to warn."""
        return ()

    def predict(self, samples: range) -> Sequence[Prediction]:
        """What the networks make of some validation samples, in order; fewer where it has fewer.

        Asked for in evaluation and inference mode, without autocast: keep no tensor of it for the
        training. Where it raises, the samples are asked for one by one, and those that fail are
        kept as their errors.
        """
        return ()

    def state_dict(self) -> dict[str, Any]:
        """What lives outside `modules` and must survive an interruption; plain data, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Objective(ABC):
    """What to search, and how to build one trial of it.

    Attributes:
        metric: The key of `Task.validate` that is optimized; no searched quantity appears in it.
        spaces: The search spaces by name, `narrow` and `wide`.
        options: Settings of the problem that `run` takes as flags.
        sizes: The sizes it can be built at, smallest first.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    spaces: ClassVar[Mapping[str, Space]]
    options: ClassVar[Mapping[str, Option]] = {}
    sizes: ClassVar[Sequence[str]] = ("tiny", "base", "full")

    def suggest(self, trial: Trial, space: str) -> Params:
        """The parameters of a trial."""
        return {name: spec.suggest(trial, name) for name, spec in self.spaces[space].items()}

    def defaults(self, space: str) -> Params:
        """The configuration that a study tries first and is compared with."""
        return {name: spec.default for name, spec in self.spaces[space].items()}

    def problem_seed(self, size: str) -> int:
        """The seed of what all trials share; a constant of the size."""
        return 0

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        """The options as a study keeps them, with absolute paths for example.

        Asked before anything is created or trained. Raise ValueError, with the reason and the cure,
        for what cannot work: a file that is not there, a dtype that the precision cannot train.
        """
        return options

    @abstractmethod
    def build(self, params: Params, context: Context) -> Task:
        """One trial."""

    def references(self, context: Context) -> Mapping[str, float]:
        """The metric of other methods on the same validation set, to stand beside a result.

        What takes longer than some seconds asks `context.must_stop` and may raise InterruptedError.
        """
        return {}

    def evaluate(self, task: Task, context: Context, asked: Asked) -> Evaluation | None:
        """How good a trained task's networks are on a test set; None where it has no such thing.

        Asked for in evaluation mode, without gradient or autocast. Raise `CannotEvaluate`, with the
        reason and the cure, for what cannot work: a file of samples of another size.
        """
        return None

    def write_samples(
        self,
        path: Path,
        context: Context,
        *,
        count: int,
        stream: str,
        half: bool,
        tell: Callable[[str], None] = lambda line: None,
    ) -> str | None:
        """Write samples of the objective's simulator to a file that its tasks can read.

        Args:
            stream: Which draws: `train`, which no set shares, or `test`.
            half: Floating-point data in half precision.
            tell: Called with a line for people as the writing goes on.

        Returns:
            A line for people on what was written; None where the objective has no such thing.

        Raises:
            ValueError: It cannot be written so; the reason and the cure.
            InterruptedError: `context.must_stop` said so; nothing is left of the file.
        """
        return None
