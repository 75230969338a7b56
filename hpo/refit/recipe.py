"""The recipe of a training: a configuration, the settings that it was found with, its origin.

    best trial · trial N · FILE of `best --save` or by hand  ->  Recipe

Border: resolves and refuses; trains nothing and writes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from hpo.errors import ConfigurationError
from hpo.search import configurations
from hpo.search.configurations import Saved
from hpo.study import study
from hpo.study.config import StudyConfig, facts
from hpo.study.objective import objective_of, source_hash
from hpo.study.outcomes import best_trial
from hpo.study.request import DEFAULTS, usual
from hpo.study.resolve import DEFAULT_TRIALS, absolute, check, settle, settled
from hpo.study.study import OpenStudy
from hpo.task.build import plain
from hpo.task.forward import PRECISIONS
from objectives import Objective, Params


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A requested training; None leaves a choice to the study or the configuration's file.

    Attributes:
        objective: Location of the objective here; for a file without settings, its name.
        size: Size of the problem.
        space: Search space of a configuration that comes without settings.
        options: Values of the objective's own options that replace the study's.
        epochs: Epochs of each seed.
        seeds: Number of seeds.
        precision: `auto` for the precision that the configuration was studied in.
        ema_decay: Decay of the averaged weights; 0 for none.
    """

    objective: str | None = None
    size: str | None = None
    space: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    epochs: int = 100
    seeds: int = 3
    precision: str = "auto"
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds"):
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
                raise ConfigurationError(
                    f"{name} {value!r} is no whole number of at least 1 (--{name})"
                )
        if not (isinstance(self.ema_decay, int | float) and 0 <= self.ema_decay < 1):
            raise ConfigurationError(
                f"a decay of {self.ema_decay!r} is not within [0, 1); 0 trains without averaged "
                "weights (--ema)"
            )
        if self.precision not in ("auto", *PRECISIONS):
            raise ConfigurationError(
                f"precision {self.precision!r} is none of auto, {', '.join(PRECISIONS)}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration to train, with all settings of its training.

    Attributes:
        objective: Location of its code here.
        config: Configuration of the study, with this training's objective location, options, size.
        params: Parameters, as the objective suggests them.
        epochs: Epochs of each seed in this training.
        precision: Precision of this training.
        why: Reason for that precision, for the user.
        seeds: Number of seeds requested.
        ema_decay: Decay of the averaged weights; 0 for none.
        study_name: Name of the study; None for a configuration of no study.
        trial: Number of the trial, likewise.
        studied: Epochs and precision of the trial, and the value that it reached, where known.
        notes: Notes for the user.
    """

    objective: str
    config: StudyConfig
    params: Params
    epochs: int
    precision: str
    why: str
    seeds: int
    ema_decay: float
    study_name: str | None = None
    trial: int | None = None
    studied: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def about(self, seed: int) -> dict[str, Any]:
        """Return the description of one seed's training, as `hpo.task.build` takes it."""
        return {
            "study": self.stored_config(),
            "params": dict(self.params),
            "seed": seed,
            "trial": self.trial,
            "study_name": self.study_name,
        }

    def stored_config(self) -> dict[str, Any]:
        """Return the configuration as files keep it, with the epochs of this training."""
        return {**self.config.stored(), "epochs": self.epochs}

    def asked(self) -> dict[str, Any]:
        """Return all that identifies the training, by the flags' names."""
        own = self.config
        return {
            "objective": own.objective,
            "size": own.size,
            "epochs": self.epochs,
            "precision": self.precision,
            "ema": self.ema_decay,
            **{f"params.{name}": value for name, value in self.params.items()},
            **dict(own.options),
        }


def of_study(
    opened: OpenStudy, number: int | None, request: TrainRequest, *, on_gpu: bool
) -> Recipe:
    """Return the recipe of a trial; None as its number means the best one.

    Raises:
        ConfigurationError: There is no such trial, or none is complete yet.
    """
    trial = _trial(opened, number)
    config = study.as_begun(opened, trial).config
    found = Saved(
        params=trial.params,
        config=config.stored(),
        study=opened.name,
        trial=trial.number,
        precision=trial.user_attrs.get("precision"),
        value=trial.value,
    )
    return _recipe(found, request, what=f"trial {trial.number}", is_file=False, on_gpu=on_gpu)


def _trial(opened: OpenStudy, number: int | None) -> FrozenTrial:
    if number is None:
        best = best_trial(opened.load())
        if best is None:
            raise ConfigurationError(
                f"study '{opened.name}' has no complete trial yet; name one with --trial N, or "
                "train when one is ('python -m hpo status')"
            )
        return best
    trials = opened.load().get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise ConfigurationError(
            f"study '{opened.name}' has no trial {number}; its trials are "
            + (f"0 to {len(trials) - 1}" if trials else "still to come")
            + " (--trial)"
        )
    if not trials[number].params:
        raise ConfigurationError(
            f"trial {number} of study '{opened.name}' has no parameters yet; try again when it "
            "has begun to train (--trial)"
        )
    return trials[number]


def of_file(path: Path, request: TrainRequest, *, on_gpu: bool) -> Recipe:
    """Return the recipe of a configuration's file, without a database.

    Raises:
        ConfigurationError: The file cannot be read, or lacks settings that no flag gives.
    """
    found = configurations.read_one(path)
    if found.config is None and request.objective is None:
        raise ConfigurationError(
            f"'{path}' does not say what it configures; write --objective NAME with it (and "
            "--size, --space, where these are not the usual ones), or write the file with "
            "'python -m hpo best --save FILE'"
        )
    return _recipe(found, request, what=f"'{path}'", is_file=True, on_gpu=on_gpu)


def _recipe(
    found: Saved, request: TrainRequest, *, what: str, is_file: bool, on_gpu: bool
) -> Recipe:
    notes: list[str] = []
    config = None if found.config is None else _stored(found.config, what)
    known = asdict(config) if config else {"objective": request.objective, "source": ""}
    objective, has_changed = objective_of(known, request.objective, is_file=is_file, what=what)
    if config and has_changed:
        notes.append(
            "the objective's file has changed since the study was created; so may the result"
        )
    spec = str(absolute(request.objective) or known["objective"])
    usually = usual(on_gpu=on_gpu)
    studied = found.precision or (config.precision if config else usually["precision"])
    precision, why = _precision(request.precision, studied, on_gpu=on_gpu)
    if request.precision == "auto" and config is None and found.precision is None:
        why = f"auto: {'a' if on_gpu else 'no'} GPU"
    if config is None:
        size = _usual_size(objective, usually["size"])
        wanted = {**DEFAULTS, "size": size, "precision": precision}
        given = {"size": request.size, "space": request.space}
        wanted |= {name: value for name, value in given.items() if value not in (None, "auto")}
        wanted |= {"options": dict(request.options)}
        made = settled(objective, spec, wanted, n_trials=DEFAULT_TRIALS)
    else:
        made = _trained_with(config, objective, spec, request, precision=precision)
        if made.size != config.size:
            notes.append(
                f"the configuration was found at size {config.size}, and is trained at {made.size}"
            )
    params, others = _params(found.params, objective, made.space, what)
    if others:
        notes.append(f"not in {what}, so by default: {others}")
    reached: dict[str, Any] = {"precision": studied, "value": found.value}
    return Recipe(
        objective=spec,
        config=made,
        params=params,
        epochs=request.epochs,
        precision=precision,
        why=why,
        seeds=request.seeds,
        ema_decay=request.ema_decay,
        study_name=found.study,
        trial=found.trial,
        studied={**reached, "epochs": config.epochs_per_trial} if config else {},
        notes=tuple(notes),
    )


def _stored(stored: Mapping[str, Any], what: str) -> StudyConfig:
    """Read a study's configuration from its stored form."""
    try:
        config = StudyConfig.from_stored(stored)
        # A file written by hand may hold values of any type.
        if not all(isinstance(v, str) for v in (config.objective, config.size, config.space)):
            raise TypeError("objective, size and space are texts")
        return replace(config, options=dict(config.options))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"the settings in {what} are not those of a study ({error}); write the file again "
            "with 'python -m hpo best --save FILE'"
        ) from error


def _trained_with(
    config: StudyConfig, objective: Objective, spec: str, request: TrainRequest, *, precision: str
) -> StudyConfig:
    """Return a study's configuration with the request's changes."""
    if request.space not in (None, config.space):
        raise ConfigurationError(
            f"the configuration is of space '{config.space}', and --space {request.space} cannot "
            "change that; leave it out"
        )
    size = request.size if request.size not in (None, "auto") else config.size
    whole = {
        **asdict(config),
        "objective": spec,
        "source": source_hash(objective),
        "size": size,
        "options": {**config.options, **request.options},
    }
    check(objective, whole)
    defaults = {name: option.default for name, option in objective.options.items()}
    # A study that is older than an option has no value of it.
    whole["options"] = settle(
        objective, {**defaults, **whole["options"]}, {**whole, "precision": precision}
    )
    return replace(config, **{**whole, **facts(objective, whole)})


def _usual_size(objective: Objective, size: str) -> str:
    return size if size in objective.sizes else objective.sizes[0]


def _params(found: Params, objective: Objective, space: str, what: str) -> tuple[Params, str]:
    """Return the parameters that the objective suggests, and in words those set by default."""
    (given,) = configurations.checked([found], objective.spaces[space], flag=what)
    defaults = {n: v for n, v in objective.defaults(space).items() if n not in given}
    fixed = optuna.trial.FixedTrial({**defaults, **given})
    with warnings.catch_warnings():
        # Optuna warns of a value outside of the space, whose bounds may differ from the study's.
        warnings.simplefilter("ignore")
        try:
            params = plain(objective.suggest(fixed, space))
        except (ValueError, KeyError) as error:
            raise ConfigurationError(
                f"the objective '{objective.name}' cannot take the parameters of {what}: {error} "
                "(--objective)"
            ) from error
    return params, ", ".join(f"{n} {v}" for n, v in defaults.items() if n in params)


def _precision(asked: str, studied: str, *, on_gpu: bool) -> tuple[str, str]:
    """Return the precision to train in, and the reason."""
    if asked != "auto":
        return asked, "asked for"
    if studied == "fp16" and not on_gpu:
        return "fp32", "auto: fp16, as studied, is 8 to 30 times slower on a CPU"
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if studied == "bf16" and not has_bf16:
        return "fp16", "auto: this GPU has no bf16, as studied"
    return studied, "auto: as studied"
