"""A run's request: every flag of `run`, declared once, in the metadata of a dataclass field.

The command line, `hpo.run`, the defaults of a new study and the reference are generated from these
declarations. Border: values keyed by flag; `join` applies them to a new or an existing study.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpo.engine.recording import DEFAULT_SAMPLES, Recording
from hpo.errors import ConfigurationError
from hpo.study.place import Place
from objectives import DEFAULT, Params

# Trials of a new study.
DEFAULT_TRIALS = 50
# Each trial is a row from the start, and a mistyped number must not fill the disk.
MOST_TRIALS = 1_000_000
LOOPBACK = "127.0.0.1"
LAST_PORT = 65_535

# A `plugin` is one of the choices or `module:attr`; `pairs` are NAME=VALUE, repeatable.
Kind = Literal[
    "text",
    "count",
    "integer",
    "number",
    "seconds",
    "hours",
    "choice",
    "plugin",
    "switch",
    "pairs",
    "file",
    "workers",
    "names",
]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag of `run`.

    Attributes:
        name: Its name on the command line and in `hpo.run`.
        field: Its field of `RunRequest`.
        help: A clause for `--help`, the default at its end.
        at_least: Smallest value of a number.
        is_of_study: True if the study stores its value and later runs inherit it.
        usual: Its default in a new study.
    """

    name: str
    field: str
    kind: Kind
    help: str
    metavar: str | None = None
    choices: Sequence[str] = ()
    at_least: float | None = None
    is_of_study: bool = False
    usual: Any = None
    default: Any = None


def _flag(default: Any, kind: Kind, help: str, **more: Any) -> Any:
    """A field of `RunRequest` with its flag as metadata; `usual` implies `is_of_study`."""
    more.setdefault("is_of_study", "usual" in more)
    shown = more.get("usual", default)
    shown = f"{shown:g}" if isinstance(shown, float) else str(shown)
    metadata = {"kind": kind, "help": help.replace("{usual}", shown), **more}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run's request; None takes the value of the study, or the default in a new one.

    Attributes:
        options: The objective's own options.
        slurm: Options of sbatch, by names with underscores.
    """

    n_trials: int | None = _flag(
        None,
        "count",
        "the study's total of trials, over all workers and runs (default: the study's, else "
        f"{DEFAULT_TRIALS})",
        metavar="N",
    )
    max_hours: float | None = _flag(
        None,
        "hours",
        "the most hours in which the study's trials train, over all workers and runs; then running "
        "trials end, and no other begins; inf for no limit (default: the study's, else none)",
        metavar="H",
    )
    max_gpu_hours: float | None = _flag(
        None,
        "hours",
        "the same of each GPU's hours (default: the study's, else none)",
        metavar="H",
    )
    objective: str | None = _flag(
        None,
        "text",
        f"what to optimize (default: the study's, else {DEFAULT})",
        metavar="NAME|module:attr|path.py",
    )
    epochs_per_trial: int | None = _flag(
        None,
        "count",
        "after each of which a trial is validated and perhaps pruned (default: {usual})",
        metavar="N",
        usual=12,
    )
    space: str | None = _flag(
        None, "text", "the search space (default: {usual})", metavar="narrow|wide", usual="wide"
    )
    size: str | None = _flag(
        None,
        "text",
        "of the problem (default: auto, full on a GPU and tiny on a CPU)",
        metavar="auto|tiny|base|full",
        is_of_study=True,
    )
    precision: str | None = _flag(
        None,
        "choice",
        "of the forward pass (default: auto, fp16 on a GPU and fp32 on a CPU)",
        choices=("auto", "fp16", "bf16", "fp32"),
        is_of_study=True,
    )
    study_name: str | None = _flag(
        None,
        "text",
        "created or resumed (default: objective-space-size, and options that name it)",
        metavar="NAME",
    )
    fixed: Mapping[str, Any] = _flag(
        dict,
        "pairs",
        "fix a parameter in place of searching it; can be repeated",
        name="set",
        metavar="NAME=VALUE",
    )
    ranges: Mapping[str, Any] = _flag(
        dict,
        "pairs",
        "search a parameter in less than its range; can be repeated",
        name="range",
        metavar="NAME=LOW,HIGH[,log]",
    )
    enqueue: Sequence[Params] = _flag(
        (),
        "file",
        "configurations to try next, whole or in part: an object, a list of them, or a file of "
        "'best --save'",
        metavar="FILE.json",
    )
    sampler: str | None = _flag(
        None,
        "plugin",
        "what proposes configurations; each learns from divergence; auto: gp for five or more "
        "numbers in up to 200 trials, else tpe (default: {usual})",
        choices=("auto", "tpe", "gp", "cmaes", "random"),
        usual="tpe",
    )
    pruner: str | None = _flag(
        None,
        "plugin",
        "what ends trials early (default: {usual}, the best quarter at each epoch goes on)",
        choices=("median", "percentile", "sha", "hyperband", "none"),
        usual="percentile",
    )
    on_precision_range: str | None = _flag(
        None,
        "choice",
        "a configuration that only its precision lost: prune it, or rerun it once in the next "
        "wider one (default: {usual}, a winner must train in the precision asked for)",
        choices=("prune", "rerun"),
        usual="prune",
    )
    seed: int | None = _flag(
        None, "integer", "of search, initialization and training draws (default: {usual})", usual=0
    )
    allow_repeats: bool = _flag(
        False,
        "switch",
        "more trials than the search space has configurations: the rest repeat one with another "
        "seed (such a number is refused without this flag)",
    )
    force: bool = _flag(
        False,
        "switch",
        "go on with a study that was created with something else; recorded on the trials that "
        "follow, in their attribute 'forced'",
    )
    workers: int | None = _flag(
        None,
        "workers",
        "worker processes (default: auto, one a GPU, else one a usable core)",
        metavar="N|auto",
    )
    workers_per_gpu: int = _flag(
        1, "count", "workers that share a GPU (default: {usual})", metavar="K"
    )
    launcher: str = _flag(
        "local",
        "choice",
        "what keeps the workers running: this host, a Ray cluster, or Slurm (default: {usual})",
        choices=("local", "ray", "slurm"),
    )
    gpus_per_worker: float | None = _flag(
        None,
        "number",
        "GPUs of a worker on a cluster, as .5 for two that share one, 0 to train on CPUs (default: "
        "1 if the cluster has GPUs)",
        metavar="G",
        at_least=0,
    )
    runtime_env: Path | None = _flag(  # noqa: RUF009
        None,
        "file",
        "a runtime environment for --launcher ray, passed on as it is: what brings code to hosts",
        metavar="FILE.json",
    )
    gpus: Sequence[str] = _flag(
        (), "names", "the GPUs to use (default: all that are visible)", metavar="0,2"
    )
    timeout_s: float | None = _flag(
        None, "seconds", "wall time, then as Ctrl-C", name="timeout", metavar="S", at_least=1
    )
    trial_timeout_s: float | None = _flag(
        None,
        "seconds",
        "wall time of a trial, which is then pruned as 'timeout' (default: none)",
        name="trial_timeout",
        metavar="S",
        at_least=1,
    )
    stall_s: float | None = _flag(
        None,
        "seconds",
        "a step, a build or a validation that takes longer hangs, and its worker is replaced "
        "(default: 300, or 20 times its median if that is longer)",
        name="stall",
        metavar="S",
        at_least=1,
    )
    fresh_process: bool = _flag(
        False,
        "switch",
        "give every trial a process of its own, as for an objective that keeps state in globals "
        "or patches a library; each then imports torch anew",
    )
    patience_s: float = _flag(
        86_400.0,
        "seconds",
        "for which a run and its workers wait for a database that is away (default: {usual}, a "
        "day)",
        name="patience",
        metavar="S",
    )
    grace_s: float = _flag(
        30.0,
        "seconds",
        "seconds that workers have to stop before they are killed (default: {usual})",
        name="grace",
        metavar="S",
    )
    allow_mixed: bool = _flag(
        False,
        "switch",
        "have workers whose code differs work on one study: sources of hpo and objective, torch, "
        "Optuna (refused without this flag)",
    )
    checkpoint_dir: str | Path | None = _flag(  # noqa: RUF009
        None,
        "text",
        "checkpoints of running trials and of the best: a folder, a URL as s3://BUCKET/FOLDER, or "
        "'database' (default: below HPO_HOME; on hosts that a launcher chooses: database)",
        metavar="FOLDER|URL|database",
    )
    predictions: int | str = _flag(
        DEFAULT_SAMPLES,
        "text",
        "validation samples, up to 100, whose predictions are kept as a trial trains "
        "(default: {usual})",
        metavar="N|off",
    )
    predictions_every: int | str = _flag(
        "epoch", "text", "how often they are kept (default: {usual})", metavar="epoch|STEPS"
    )
    metrics_port: int | None = _flag(
        None,
        "count",
        "serve the study's metrics for Prometheus on this port (default: none)",
        metavar="P",
    )
    metrics_host: str = _flag(
        LOOPBACK,
        "text",
        "the address of that port; 0.0.0.0 or :: for all (default: {usual})",
        metavar="HOST",
    )
    options: Mapping[str, str] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for flag in FLAGS:
            _check(flag, getattr(self, flag.field))
        if self.n_trials is not None and self.n_trials > MOST_TRIALS:
            raise ConfigurationError(
                f"n_trials {self.n_trials} is more than a study holds ({MOST_TRIALS:,})"
            )
        if self.metrics_port is not None and self.metrics_port > LAST_PORT:
            raise ConfigurationError(
                f"metrics_port {self.metrics_port} is no port; write one up to {LAST_PORT}"
            )
        if self.metrics_port is None and self.metrics_host != LOOPBACK:
            raise ConfigurationError("metrics_host belongs to metrics_port; write that, too")
        Recording.of(self.predictions, self.predictions_every)
        Place.of(self.checkpoint_dir)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunRequest:
        """Create a request from values keyed by flag, `options` and `slurm`.

        Texts are accepted as on the command line: `auto` workers, GPUs separated by commas.
        """
        asked = {flag.field: given.get(flag.name) for flag in FLAGS}
        values = {name: value for name, value in asked.items() if value is not None}
        if values.get("workers") == "auto":
            del values["workers"]
        if isinstance(values.get("gpus"), str):
            names = (name.strip() for name in values["gpus"].split(","))
            values["gpus"] = [name for name in names if name]
        if "runtime_env" in values:
            values["runtime_env"] = Path(values["runtime_env"])
        return cls(**values, options=given.get("options", {}), slurm=given.get("slurm", {}))

    @property
    def recording(self) -> Recording:
        """Settings of the predictions that this run's trials record."""
        return Recording.of(self.predictions, self.predictions_every)

    def asked(self) -> dict[str, Any]:
        """The explicitly given part of a study's configuration, by its fields."""
        values = {flag.field: getattr(self, flag.field) for flag in FLAGS if flag.is_of_study}
        asked = {name: value for name, value in values.items() if value not in (None, "auto")}
        own = {"options": self.options, "fixed": self.fixed, "ranges": self.ranges}
        return asked | {name: dict(value) for name, value in own.items() if value}


def _check(flag: Flag, value: Any) -> None:
    """Raise `ConfigurationError` for a value that the flag's kind excludes."""
    if value is None:
        return
    if flag.kind in ("count", "workers") and not (isinstance(value, int) and value >= 1):
        raise ConfigurationError(f"{flag.name} {value!r} is no whole number of at least 1")
    if flag.kind == "integer" and not isinstance(value, int):
        raise ConfigurationError(f"{flag.name} {value!r} is no whole number")
    if flag.kind == "number" and not (isinstance(value, int | float) and value >= 0):
        raise ConfigurationError(f"{flag.name} {value!r} is no number of at least 0")
    if flag.kind == "seconds" and not (isinstance(value, int | float) and value >= 0):
        raise ConfigurationError(f"{flag.name} {value!r} is no number of seconds")
    if flag.kind == "hours" and not (isinstance(value, int | float) and value > 0):
        raise ConfigurationError(f"{flag.name} {value!r} is no number of hours above 0")
    if flag.kind == "choice" and value not in flag.choices:
        raise ConfigurationError(f"{flag.name} {value!r} is none of {', '.join(flag.choices)}")


def _flags() -> tuple[Flag, ...]:
    declared = (one for one in dataclasses.fields(RunRequest) if one.metadata)
    return tuple(
        Flag(
            **{"name": one.name, "field": one.name, **one.metadata},
            default=None if one.default is dataclasses.MISSING else one.default,
        )
        for one in declared
    )


# `--help` has the same order.
FLAGS: Sequence[Flag] = _flags()

# These are the defaults of a new study; its size and precision depend on the machine.
DEFAULTS: Mapping[str, Any] = {flag.field: flag.usual for flag in FLAGS if flag.usual is not None}


def usual(*, on_gpu: bool) -> dict[str, str]:
    """The default size and precision of a new study, on a GPU or on a CPU."""
    return (
        {"size": "full", "precision": "fp16"} if on_gpu else {"size": "tiny", "precision": "fp32"}
    )
