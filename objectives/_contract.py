"""The contract: base classes of an objective and of its tasks, and the types in between."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from objectives._evaluation import Asked, Evaluation
from objectives._options import Option
from objectives._space import Params, Space, Trial

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Context:
    """Device, size, length and seeds of the trial that a task is built for.

    Attributes:
        size: One of the objective's `sizes`.
        epochs: Length of the trial, in epochs of `Task.steps_per_epoch` steps.
        seed: Seed of this trial's initialization and training draws.
        problem_seed: Seed of installation, validation and test sets; a constant of the size.
        options: Values of the objective's own options, by name.
        must_stop: Returns True when long work outside of a trial's steps must end.
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
    """Parameters with the same optimizer settings.

    Attributes:
        name: Name under which the norm of the group's gradient is reported.
        parameters: Real parameters, fp32 where they train, each in one group only.
        lr: Learning rate, which the schedule multiplies.
        weight_decay: Weight decay of AdamW.
        clip: Largest norm of the group's gradient; a larger one is scaled down.
        schedule: Factor of this group's learning rate by progress; None for `Task.schedule`.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 0.0
    clip: float = math.inf
    schedule: Callable[[float], float] | None = None


class Term(NamedTuple):
    """One term of the loss: a scalar fp32 tensor, and its factor in the sum."""

    value: Tensor
    weight: float = 1.0


class Prediction(NamedTuple):
    """The networks' prediction for one sample, stored for display: plain data, tensors.

    Attributes:
        kind: Form of display: `grid` (rows of integers), `table` (a mapping or a list of mappings
            of names to figures), or any other word (as JSON).
        score: Quality of the prediction, as the objective rates it.
    """

    kind: str
    input: Any
    target: Any
    prediction: Any
    score: float


class Task(ABC):
    """One trial's training: networks, data, loss and validation.

    Attributes:
        modules: Networks by name; the service sets their mode, saves and loads them.
        groups: Parameter groups, each reported by its name with the norm of its gradient.
        steps_per_epoch: Steps in an epoch; a trial has `context.epochs` epochs.
        accumulate: Steps whose gradients are averaged into one step of the optimizer. Each has its
            own batch; one that is not finite is left out of the average.
    """

    modules: Mapping[str, nn.Module]
    groups: Sequence[Group]
    steps_per_epoch: int
    accumulate: int = 1

    @abstractmethod
    def batch(self, step: int) -> Any:
        """Return the batch of a step, on the device; it depends on the trial's seed and the step.

        The same step must always give the same batch: a resumed trial goes on as if uninterrupted.
        """

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Return the networks' outputs for a batch; runs under autocast."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Any) -> Mapping[str, Term]:
        """Return the terms of the loss by name.

        All floating tensors in the arguments are cast to fp32, complex ones to complex64. Runs
        without autocast.
        """

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """Return validation figures of the current networks by name, the metric among them.

        Runs in evaluation mode, without gradient or autocast.
        """

    def schedule(self, progress: float) -> float:
        """Return the factor of the learning rates after a share in [0, 1) of the trial's steps."""
        return 1.0

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Return the task's own optimizer over `groups`; None for AdamW.

        It has one parameter group for each of `groups`, in their order, and any class with the
        methods of a `torch.optim.Optimizer`. One with `train()` and `eval()` has them called around
        training and validation. A scheduler of torch on it is honoured: the schedule's factor comes
        on top, and hooks find the rate without it. Keep the scheduler's state in `state_dict`.
        """
        return None

    def monitor(self) -> Mapping[str, Tensor]:
        """Return further figures of the last step: detached scalars, averaged and logged."""
        return {}

    def idle(self, step: int) -> Collection[str]:
        """Return the names of groups without gradient at a step by design, to avoid a warning."""
        return ()

    def predict(self, samples: range) -> Sequence[Prediction]:
        """Return predictions for some validation samples, in order; fewer if there are fewer.

        Runs in evaluation and inference mode, without autocast: keep no tensor of it for training.
        If it raises, it is called again for each sample alone, and a sample that fails is stored as
        its error.
        """
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Return state outside `modules` that must survive an interruption; plain data, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""


class Objective(ABC):
    """An optimization problem: its metric, its search spaces, and the tasks of its trials.

    Attributes:
        name: Name of the objective, with which the default name of a study begins.
        metric: Key of `Task.validate` that is optimized; no searched quantity may enter it.
        spaces: Search spaces by name, `narrow` and `wide`; those of the default options.
        options: Settings of the problem that `run` takes as flags.
        sizes: Sizes that it can be built at, smallest first.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    spaces: ClassVar[Mapping[str, Space]]
    options: ClassVar[Mapping[str, Option]] = {}
    sizes: ClassVar[Sequence[str]] = ("tiny", "base", "full")

    def spaces_for(self, options: Mapping[str, str]) -> Mapping[str, Space]:
        """Return the search spaces of a study with these options, which `settle` has returned.

        The service calls it on the objective as it was loaded. In all other hooks `self.spaces` are
        the returned ones.
        """
        return self.spaces

    def suggest(self, trial: Trial, space: str) -> Params:
        """Suggest the parameters of a trial."""
        return {name: spec.suggest(trial, name) for name, spec in self.spaces[space].items()}

    def defaults(self, space: str) -> Params:
        """Return the configuration that a study tries first, its baseline."""
        return {name: spec.default for name, spec in self.spaces[space].items()}

    def problem_seed(self, size: str) -> int:
        """Return the seed of all data that trials share; a constant of the size."""
        return 0

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        """Return the options as a study stores them, for example with absolute paths.

        Called before anything is created or trained. Raise ValueError, with the reason and the
        cure, for options that cannot work: a missing file, a dtype that the precision cannot train.
        """
        return options

    def reasons(self, options: Mapping[str, str], size: str) -> Mapping[str, str]:
        """Return why `settle` chose the value of an `auto`, by option, for a run's first lines."""
        return {}

    @abstractmethod
    def build(self, params: Params, context: Context) -> Task:
        """Build the task of one trial."""

    def references(self, context: Context) -> Mapping[str, float]:
        """Return the metric of other methods on the same validation set, for comparison.

        Work longer than some seconds polls `context.must_stop`, and may raise InterruptedError.
        """
        return {}

    def evaluate(self, task: Task, context: Context, asked: Asked) -> Evaluation | None:
        """Evaluate a trained task's networks on a test set; None if that is not implemented.

        Runs in evaluation mode, without gradient or autocast. Raise `CannotEvaluate`, with the
        reason and the cure, for a request that cannot work: a file of samples of another size.
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
            stream: Random stream: `train`, whose draws no validation or test set has, or `test`.
            half: True for floating-point data in half precision.
            tell: Called with a line for the user on the progress.

        Returns:
            A line for the user on the samples written; None if that is not implemented.

        Raises:
            ValueError: The samples cannot be written; the message has the reason and the cure.
            InterruptedError: `context.must_stop` returned True; nothing of the file remains.
        """
        return None
