"""Create or load a study: what it was created with, its sampler and pruner, its metric's name.

Border: a study's settings are resolved once, here, and stored with it; everybody else inherits
them. What a trial computes is the engine's, how many trials there are is `budget`'s.
"""

from __future__ import annotations

import hashlib
import inspect
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy as sa
from optuna.pruners import BasePruner

from hpo.database import locked
from hpo.errors import ConfigurationError, ObjectiveError, StudyMismatch
from hpo.samplers import SAMPLERS
from hpo.storage import TrialStorage, open_storage, prepare
from objectives import Objective, load

_CONFIG = "config"
_UID = "study_uid"
REFERENCES = "references"
# Where a setting's name and its flag's differ.
_FLAGS = {"epochs": "epochs_per_trial"}

PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: optuna.pruners.MedianPruner(
        n_startup_trials=5, n_warmup_steps=max(1, epochs // 6)
    ),
    "percentile": lambda epochs: optuna.pruners.PercentilePruner(
        25.0, n_startup_trials=5, n_warmup_steps=max(1, epochs // 6)
    ),
    "sha": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=max(1, epochs // 6), reduction_factor=2
    ),
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(
        min_resource=max(1, epochs // 6), max_resource=epochs, reduction_factor=2
    ),
    "none": lambda _: optuna.pruners.NopPruner(),
}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study was created with; inherited by every run and every worker.

    Attributes:
        objective: As `objectives.load` takes it; a file's path is absolute.
        source: Hash of the objective's file, to notice a change.
        epochs: Epochs of a trial.
        seed: Of the search, the initialization and the training draws; not of the problem.
        on_precision_range: What becomes of a configuration that only its precision lost: `prune`,
            or `rerun` once more in a wider one.
        options: The objective's own options.
    """

    objective: str
    source: str
    metric: str
    direction: Literal["minimize", "maximize"]
    size: str
    epochs: int
    space: str
    precision: str
    problem_seed: int
    seed: int
    sampler: str
    pruner: str
    # The default is that of studies which were created before there was a choice.
    on_precision_range: str = "prune"
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, name, known in (
            ("sampler", self.sampler, SAMPLERS),
            ("pruner", self.pruner, PRUNERS),
        ):
            if name not in known:
                raise ConfigurationError(
                    f"no {what} named '{name}'; use one of {', '.join(known)} (--{what})"
                )


@dataclass(frozen=True, kw_only=True)
class OpenStudy:
    """A study in a database, ready to work on."""

    name: str
    uid: str
    config: StudyConfig
    storage: TrialStorage

    def load(self, *, sampler_seed: int = 0) -> optuna.Study:
        """The Optuna study with its sampler and pruner, nothing cached from earlier asks."""
        return optuna.load_study(
            study_name=self.name,
            storage=self.storage,
            sampler=SAMPLERS[self.config.sampler](sampler_seed),
            pruner=PRUNERS[self.config.pruner](self.config.epochs),
        )


def derive_seed(*parts: object) -> int:
    """A 32-bit seed from a tuple, the same in every process."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def load_objective(spec: str) -> Objective:
    """The objective of this name, module or file.

    Raises:
        ObjectiveError: There is none, or it cannot be imported.
    """
    try:
        return load(spec)
    except LookupError as error:
        raise ObjectiveError(f"{error.args[0]} (--objective)") from error
    except Exception as error:
        raise ObjectiveError(
            f"objective '{spec}' cannot be imported: {type(error).__name__}: {error}"
        ) from error


def source_hash(objective: Objective) -> str:
    """A short hash of the file that an objective is written in."""
    path = inspect.getsourcefile(type(objective))
    return hashlib.blake2b(Path(path or "").read_bytes(), digest_size=8).hexdigest()


def find(storage: TrialStorage, name: str) -> OpenStudy | None:
    """The study of this name; None where there is none, or none but its name was created.

    Raises:
        ConfigurationError: It was not created by this service.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    attributes = storage.get_study_user_attrs(study_id)
    if _UID in attributes:
        return OpenStudy(
            name=name,
            uid=attributes[_UID],
            config=StudyConfig(**attributes[_CONFIG]),
            storage=storage,
        )
    if storage.get_all_trials(study_id, deepcopy=False):
        raise ConfigurationError(
            f"study '{name}' was not created by this service and has no settings to go on with; "
            "choose another --study_name"
        )
    return None


def open_study(engine: sa.Engine, name: str | None) -> OpenStudy:
    """The study of this name, or the only one.

    Raises:
        ConfigurationError: There is none, or there are several and none was named.
    """
    prepare(engine)
    storage = open_storage(engine.url.render_as_string(hide_password=False))
    names = sorted(study.study_name for study in storage.get_all_studies())
    if name is None and len(names) != 1:
        known = f"one of {', '.join(names)}" if names else "'python -m hpo run' first"
        raise ConfigurationError(f"no study was named; use {known} (--study_name)")
    found = find(storage, name or names[0])
    if found is None:
        raise ConfigurationError(
            f"no study named '{name}'; use one of {', '.join(names) or '(none)'} (--study_name)"
        )
    return found


def create_or_load(
    storage: TrialStorage, engine: sa.Engine, *, name: str, fresh: Callable[[], StudyConfig]
) -> tuple[OpenStudy, bool]:
    """The study of this name, created with `fresh` settings if there is none; whether it was."""
    with locked(engine, f"hpo study {name}"):
        found = find(storage, name)
        if found is not None:
            return found, False
        return _create(storage, name, fresh()), True


def refuse_difference(found: OpenStudy, asked: Mapping[str, Any]) -> None:
    """Refuse settings given explicitly that are not what the study was created with.

    Raises:
        StudyMismatch: One of them differs; both values are named.
    """
    settings = {**asdict(found.config), **found.config.options}
    wanted = {**{k: v for k, v in asked.items() if k != "options"}, **asked.get("options", {})}
    for key, value in wanted.items():
        if settings.get(key) != value:
            raise StudyMismatch(
                f"study '{found.name}' was created with {key} {settings.get(key)!r}, not "
                f"{value!r}; leave --{_FLAGS.get(key, key)} out to go on with it, or name another "
                "study with --study_name"
            )


def _create(storage: TrialStorage, name: str, config: StudyConfig) -> OpenStudy:
    """Create the study; one whose creation was cut off half way is completed by the next call."""
    uid = str(uuid.uuid4())
    study = optuna.create_study(
        study_name=name, storage=storage, direction=config.direction, load_if_exists=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([config.metric])
    study.set_user_attr(_CONFIG, asdict(config))
    # Last: what has a uid is whole.
    study.set_user_attr(_UID, uid)
    return OpenStudy(name=name, uid=uid, config=config, storage=storage)
