"""The recipe of a training: a configuration, the settings that it was found with, its origin.

    best trial · trial N · FILE of `best --save` or by hand  ->  Recipe

Border: resolves and refuses; trains nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from hpo.errors import ConfigurationError
from hpo.refit.request import TrainRequest
from hpo.refit.resolve import config_of, config_with, params_of, precision_of
from hpo.search import configurations
from hpo.search.configurations import Saved
from hpo.study import study
from hpo.study.config import StudyConfig
from hpo.study.objective import in_words, objective_of
from hpo.study.outcomes import best_trial, last_trial, trial_numbered
from hpo.study.request import DEFAULT_TRIALS, DEFAULTS, usual
from hpo.study.resolve import absolute, settled
from hpo.study.spaces import bound_to
from hpo.study.study import OpenStudy
from objectives import Objective, Params


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
    return _recipe(found, request, what=f"trial {trial.number}", on_gpu=on_gpu)


def _trial(opened: OpenStudy, number: int | None) -> FrozenTrial:
    if number is None:
        best = best_trial(opened.load())
        if best is None:
            raise ConfigurationError(
                f"study '{opened.name}' has no complete trial yet; name one with --trial N, or "
                "train when one is ('python -m hpo status')"
            )
        return best
    trial = trial_numbered(opened, number)
    if trial is None:
        last = last_trial(opened)
        raise ConfigurationError(
            f"study '{opened.name}' has no trial {number}; its trials are "
            + (f"0 to {last.number}" if last else "still to come")
            + " (--trial)"
        )
    if not trial.params:
        raise ConfigurationError(
            f"trial {number} of study '{opened.name}' has no parameters yet; try again when it "
            "has begun to train (--trial)"
        )
    return trial


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
    return _recipe(found, request, what=f"'{path}'", on_gpu=on_gpu)


def _recipe(found: Saved, request: TrainRequest, *, what: str, on_gpu: bool) -> Recipe:
    notes: list[str] = []
    config = None if found.config is None else config_of(found.config, what)
    known = asdict(config) if config else {"objective": request.objective, "source": ""}
    objective, changed = objective_of(known, request.objective, what=what)
    if config and changed:
        notes.append(f"{in_words(changed)} since the study was created; so may the result")
    spec = str(absolute(request.objective) or known["objective"])
    usually = usual(on_gpu=on_gpu)
    studied = found.precision or (config.precision if config else usually["precision"])
    precision, why = precision_of(request.precision, studied, on_gpu=on_gpu)
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
        made = config_with(config, objective, spec, request, precision=precision)
        if made.size != config.size:
            notes.append(
                f"the configuration was found at size {config.size}, and is trained at {made.size}"
            )
    bound = bound_to(objective, made.options)
    params, others = params_of(found.params, bound, made.space, what)
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


def _usual_size(objective: Objective, size: str) -> str:
    return size if size in objective.sizes else objective.sizes[0]
