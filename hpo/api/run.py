"""The service for notebooks and programs: what the command line does, as functions of data.

    import hpo

    result = hpo.run(objective="mine.py", n_trials=20, workers=2)
    result.best.params
    hpo.open(study="mine-wide-tiny").trials()     # rows; pandas.DataFrame(rows) is a table
    hpo.best(study="mine-wide-tiny").value

Nothing is printed. The storage is the one that is named, else HPO_STORAGE's, else the embedded
server, as on the command line.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo import environ
from hpo.database.connection import connect
from hpo.database.records import Records
from hpo.engine.reports import TRAINING_FIGURES
from hpo.errors import ConfigurationError
from hpo.fleet import fleet
from hpo.fleet.events import Event, RunResult
from hpo.fleet.fleet import FleetConfig
from hpo.launch.local import LocalLauncher
from hpo.search import configurations
from hpo.study.config import StudyConfig
from hpo.study.join import prepare_study
from hpo.study.outcomes import best_trial
from hpo.study.request import RunRequest, find_slots
from hpo.study.status import Status, status
from hpo.study.study import OpenStudy, as_begun, open_study
from hpo.study.table import trial_rows
from objectives import Params


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best complete trial of a study.

    Attributes:
        figures: What its last validation found, the metric among them.
        settings: What its study was created with.
    """

    study: str
    trial: int
    metric: str
    value: float
    precision: str
    params: Mapping[str, Any]
    figures: Mapping[str, float]
    settings: StudyConfig

    def flat(self) -> dict[str, Any]:
        """As plain data for JSON; what `train` and `--enqueue` take."""
        plain = {"params": dict(self.params), "figures": dict(self.figures)}
        return {**vars(self), **plain, "settings": asdict(self.settings)}


class Study:
    """A study that exists, for reading."""

    def __init__(self, opened: OpenStudy, db: sa.Engine) -> None:
        self._opened, self._db = opened, db

    def __repr__(self) -> str:
        return f"<hpo study '{self.name}'>"

    @property
    def name(self) -> str:
        """Its name in the storage."""
        return self._opened.name

    @property
    def config(self) -> StudyConfig:
        """What it was created with."""
        return self._opened.config

    def status(self) -> Status:
        """How it stands now."""
        return status(self._opened, self._db)

    def best(self) -> Best:
        """Its best trial.

        Raises:
            ConfigurationError: No trial is complete yet.
        """
        return best_of(self._opened, self._db)[0]

    def trials(self) -> list[dict[str, Any]]:
        """A row a trial, as `--export_csv` writes them."""
        return trial_rows(self._opened)

    def predictions(self, trial: int) -> list[dict[str, Any]]:
        """What the networks of a trial made of some validation samples, by step and sample.

        Columns: epoch, step, sample, kind, score, error, latency_s, input, target, prediction.

        Raises:
            ConfigurationError: There is no such trial, or nothing of it is kept.
        """
        trials = self._opened.load().get_trials(deepcopy=False)
        if not 0 <= trial < len(trials):
            raise ConfigurationError(f"study '{self.name}' has no trial {trial}")
        rows = Records(self._db, self._opened.uid).predictions(trial)
        if not rows:
            raise ConfigurationError(
                f"no predictions of trial {trial} are kept: its objective gives none, its run "
                "asked for none (--predictions), it has not begun to train, or 'gc' removed them"
            )
        columns = ("epoch", "step", "sample", "kind", "score", "error", "latency_s")
        parts = ("input", "target", "prediction")
        return [{name: _as_json(row[name]) for name in (*columns, *parts)} for row in rows]

    def optuna(self) -> optuna.Study:
        """The Optuna study, for all that Optuna offers."""
        return self._opened.load()


def _as_json(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(
    objective: str | Path | None = None,
    *,
    n_trials: int | None = None,
    study: str | None = None,
    storage: str | None = None,
    home: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    range: Mapping[str, Any] | None = None,
    enqueue: Params | Sequence[Params] | str | Path = (),
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> RunResult:
    """Create or resume a study and run workers until it is done, as `python -m hpo run` does.

    An interruption (KeyboardInterrupt) ends the workers, keeps their trials, and is raised again;
    the same call goes on from there.

    Args:
        objective: A name, `module:attr`, or a file. Workers are processes of their own: what was
            defined in a notebook has to be in a file.
        n_trials: The study's total, over all runs.
        home: The folder of the embedded server, checkpoints and logs; None for HPO_HOME.
        set: Values of parameters that are not to be searched.
        range: Narrower ranges: (low, high) or (low, high, 'log').
        enqueue: A configuration to try next, several of them, or the JSON file that holds them.
        on_event: Called with each of the fleet's events, for example `Progress`.
        settings: Further flags by their names, for example `workers=2` or `timeout=600`; and
            `options`, the objective's own.

    Raises:
        HpoError: Whatever the command line would exit with 1 or 2 for.
    """
    if objective is not None and not isinstance(objective, str | Path):
        raise ConfigurationError(
            f"objective {objective!r} lives in this process, and workers are processes of their "
            "own; write it to a file and give the file's path"
        )
    request = RunRequest(
        objective=None if objective is None else str(objective),
        n_trials=n_trials,
        study_name=study,
        fixed=set or {},
        ranges=range or {},
        enqueue=configurations.given(enqueue),
        **_settings(settings),
    )
    folder = Path(home).absolute() if home is not None else environ.home()
    slots = find_slots(request, visible=environ.visible_gpus())
    db = connect(environ.storage_url(storage, home_folder=folder), application="fleet")
    prepared = prepare_study(db, request, on_gpu=slots[0].device == "cuda")
    config = FleetConfig.below(folder, request, prepared, slots)
    launcher = LocalLauncher(environ.variables())

    def ignore(_: Event) -> None:
        pass

    return fleet.run(prepared, config, launcher, emit=on_event or ignore, stop=threading.Event())


# A flag's name, and where a request has it.
_FLAGS = {
    **{name: name for name in ("epochs_per_trial", "space", "size", "precision", "sampler")},
    **{name: name for name in ("pruner", "on_precision_range", "seed", "force", "options")},
    **{name: name for name in ("workers", "workers_per_gpu", "gpus", "checkpoint_dir")},
    **{name: name for name in ("predictions", "predictions_every")},
    "timeout": "timeout_s",
    "grace": "grace_s",
}


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as a request takes them."""
    unknown = [name for name in given if name not in _FLAGS]
    if unknown:
        raise ConfigurationError(f"hpo.run has no '{unknown[0]}'; it has {', '.join(_FLAGS)}")
    found = {_FLAGS[name]: value for name, value in given.items()}
    if found.get("workers") == "auto":
        del found["workers"]
    if isinstance(found.get("gpus"), str):
        found["gpus"] = found["gpus"].split(",")
    if "checkpoint_dir" in found:
        found["checkpoint_dir"] = Path(found["checkpoint_dir"])
    return found


def open(
    storage: str | None = None, study: str | None = None, *, home: str | Path | None = None
) -> Study:
    """The study of this name, or the only one.

    Raises:
        ConfigurationError: There is none, or there are several and none was named.
        StorageError: The database cannot be used.
    """
    folder = Path(home).absolute() if home is not None else None
    db = connect(environ.storage_url(storage, home_folder=folder))
    return Study(open_study(db, study), db)


def best(
    storage: str | None = None, study: str | None = None, *, home: str | Path | None = None
) -> Best:
    """The best trial of a study.

    Raises:
        ConfigurationError: There is no such study, or no trial of it is complete yet.
        StorageError: The database cannot be used.
    """
    return open(storage, study, home=home).best()


def best_of(opened: OpenStudy, db: sa.Engine) -> tuple[Best, FrozenTrial]:
    """The best trial of an open study, and Optuna's record of it."""
    trial = best_trial(opened.load())
    if trial is None or trial.value is None:
        raise ConfigurationError(f"study '{opened.name}' has no complete trial yet")
    found = Best(
        study=opened.name,
        trial=trial.number,
        metric=opened.config.metric,
        value=trial.value,
        precision=trial.user_attrs.get("precision", opened.config.precision),
        params=trial.params,
        figures=_validated(Records(db, opened.uid), trial, opened.config.metric),
        settings=as_begun(opened, trial).config,
    )
    return found, trial


def _validated(records: Records, trial: FrozenTrial, metric: str) -> dict[str, float]:
    """What a trial's last validation found, without what its training was like."""
    run_uid = trial.user_attrs.get("run_uid")
    found = records.figures(run_uid) if run_uid else {}
    training = {name for name in found if "." in name or name in TRAINING_FIGURES} - {metric}
    return {name: value for name, value in found.items() if name not in training}
