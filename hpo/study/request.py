"""What a run is asked for, as its user says it; and the slots that it gets on this machine.

Border: names are the flags'. What becomes of it, given the study that there is, is `prepare`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.engine.recording import DEFAULT_SAMPLES, Recording
from hpo.errors import ConfigurationError
from objectives import Params

# What a new study takes for what nobody asked for; size and precision depend on the machine.
DEFAULTS: Mapping[str, Any] = {
    "epochs_per_trial": 12,
    "space": "wide",
    "seed": 0,
    "sampler": "tpe",
    "pruner": "percentile",
    "on_precision_range": "prune",
}
# A ticket is a row; a slip of the finger must not fill a disk with them.
MOST_TRIALS = 1_000_000
CHOICES: Mapping[str, Sequence[str]] = {
    "precision": ("auto", "fp16", "bf16", "fp32"),
    "on_precision_range": ("prune", "rerun"),
}


def usual(*, on_gpu: bool) -> dict[str, str]:
    """The size and the precision that a new study takes on a GPU, or on a CPU."""
    return (
        {"size": "full", "precision": "fp16"} if on_gpu else {"size": "tiny", "precision": "fp32"}
    )


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is asked for; None leaves a choice to the study, else to the defaults.

    Attributes:
        n_trials: The study's total, over all workers and runs.
        objective: A name, `module:attr`, or the path of a file.
        options: The objective's own options.
        fixed: Values of parameters that are not to be searched.
        ranges: Narrower ranges: 'low,high', 'low,high,log', 'low,high,linear'.
        enqueue: Configurations to try next, each of them whole or in part.
        force: Change what the study was created with, for the trials that follow.
        workers: How many; None for one a GPU, else one a usable core.
        gpus: Those to use, as CUDA_VISIBLE_DEVICES names them; none for all.
        timeout_s: Wall time of this run.
        grace_s: How long workers have to stop before they are killed.
        checkpoint_dir: Where checkpoints go; None for below the home.
        predictions: Validation samples whose predictions are kept, up to 100, or `off`.
        predictions_every: How often: `epoch`, or a number of steps.
    """

    n_trials: int | None = None
    objective: str | None = None
    study_name: str | None = None
    epochs_per_trial: int | None = None
    space: str | None = None
    size: str | None = None
    precision: str | None = None
    sampler: str | None = None
    pruner: str | None = None
    on_precision_range: str | None = None
    seed: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Any] = field(default_factory=dict)
    enqueue: Sequence[Params] = ()
    force: bool = False
    workers: int | None = None
    workers_per_gpu: int = 1
    gpus: Sequence[str] = ()
    timeout_s: float | None = None
    grace_s: float = 30.0
    checkpoint_dir: Path | None = None
    predictions: int | str = DEFAULT_SAMPLES
    predictions_every: int | str = "epoch"

    def __post_init__(self) -> None:
        for name in ("n_trials", "epochs_per_trial", "workers", "workers_per_gpu"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ConfigurationError(f"{name} {value!r} is no whole number of at least 1")
        if self.n_trials is not None and self.n_trials > MOST_TRIALS:
            raise ConfigurationError(
                f"n_trials {self.n_trials} is more than a study holds ({MOST_TRIALS:,})"
            )
        if self.seed is not None and not isinstance(self.seed, int):
            raise ConfigurationError(f"seed {self.seed!r} is no whole number")
        Recording.of(self.predictions, self.predictions_every)
        for name, value in (("timeout", self.timeout_s), ("grace", self.grace_s)):
            if value is not None and not (isinstance(value, int | float) and value >= 0):
                raise ConfigurationError(f"{name} {value!r} is no number of seconds")
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigurationError(f"{name} {value!r} is none of {', '.join(known)}")

    @property
    def recording(self) -> Recording:
        """Which predictions the trials of this run keep."""
        return Recording.of(self.predictions, self.predictions_every)

    def asked(self) -> dict[str, Any]:
        """The settings of the study that were given explicitly, by their names in its config."""
        values = {
            name: getattr(self, name)
            for name in (
                *("epochs_per_trial", "space", "size", "precision", "seed"),
                *("sampler", "pruner", "on_precision_range"),
            )
        }
        asked = {name: value for name, value in values.items() if value not in (None, "auto")}
        own = {"options": self.options, "fixed": self.fixed, "ranges": self.ranges}
        return asked | {name: dict(value) for name, value in own.items() if value}
