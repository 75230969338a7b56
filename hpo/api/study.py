"""An existing study for notebooks and programs: open it, read it, find its best trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from hpo.files import finite
from hpo.study.config import StudyConfig
from hpo.study.outcomes import best_and_remark, trial_numbered
from hpo.study.status import Status, status
from hpo.study.study import OpenStudy, as_begun, open_study
from hpo.study.table import trial_rows


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best complete trial of a study.

    Attributes:
        study: Name of the study.
        trial: Number of the trial.
        metric: Name of the metric.
        value: Value of the metric.
        precision: Precision that the trial was trained in.
        params: Parameters of the trial.
        figures: Figures of its last validation, the metric among them.
        config: Configuration of the study when the trial began.
        left_out: Remark on a better value that another program told; None without one.
    """

    study: str
    trial: int
    metric: str
    value: float
    precision: str
    params: Mapping[str, Any]
    figures: Mapping[str, float]
    config: StudyConfig
    left_out: str | None = None

    def flat(self) -> dict[str, Any]:
        """Return plain data for JSON, which `train` and `--enqueue` read."""
        plain = {"params": dict(self.params), "figures": dict(self.figures)}
        own = {name: value for name, value in vars(self).items() if name != "config"}
        return {**own, **plain, "settings": self.config.stored()}


class Study:
    """An existing study, for reading."""

    def __init__(self, opened: OpenStudy, db: sa.Engine) -> None:
        self._opened, self._db = opened, db

    def __repr__(self) -> str:
        return f"<hpo study '{self.name}'>"

    @property
    def name(self) -> str:
        """Name of the study in the storage."""
        return self._opened.name

    @property
    def config(self) -> StudyConfig:
        """Configuration that the study was created with."""
        return self._opened.config

    def status(self) -> Status:
        """Read the study's current status: trials, workers, best value."""
        return status(self._opened, self._db)

    def best(self) -> Best:
        """Return the best trial.

        Raises:
            ConfigurationError: No trial is complete yet.
        """
        return best_of(self._opened, self._db)[0]

    def trials(self) -> list[dict[str, Any]]:
        """Return one row per trial, as `--export_csv` writes them."""
        return trial_rows(self._opened)

    def predictions(self, trial: int) -> list[dict[str, Any]]:
        """Return the predictions of a trial's network on some validation samples.

        Args:
            trial: Number of the trial.

        Returns:
            One row per step and sample, with epoch, step, sample, kind, score, error, latency_s,
            input, target and prediction.

        Raises:
            ConfigurationError: There is no such trial, or no prediction of it is kept.
        """
        if trial_numbered(self._opened, trial) is None:
            raise ConfigurationError(f"study '{self.name}' has no trial {trial}")
        rows = Records(self._db, self._opened.uid).predictions(trial)
        if not rows:
            raise ConfigurationError(
                f"no predictions of trial {trial} are kept: its objective gives none, its run "
                "asked for none (--predictions), it has not begun to train, or 'gc' removed them"
            )
        columns = ("epoch", "step", "sample", "kind", "score", "error", "latency_s")
        parts = ("input", "target", "prediction")
        return [{name: finite(row[name]) for name in (*columns, *parts)} for row in rows]

    def optuna(self) -> optuna.Study:
        """Return the Optuna study, for everything that Optuna offers."""
        return self._opened.load()


def open(
    storage: str | None = None, study: str | None = None, *, home: str | Path | None = None
) -> Study:
    """Open an existing study.

    Args:
        storage: URL of a PostgreSQL database; None for HPO_STORAGE, else the embedded server.
        study: Name of the study; None for the only one in the storage.
        home: Folder of the embedded server; None for HPO_HOME.

    Raises:
        ConfigurationError: There is no such study, or there are several and none was named.
        StorageError: The database cannot be used.
    """
    folder = Path(home).absolute() if home is not None else None
    db = connect(environ.storage_url(storage, home_folder=folder))
    return Study(open_study(db, study), db)


def best(
    storage: str | None = None, study: str | None = None, *, home: str | Path | None = None
) -> Best:
    """Return the best trial of a study.

    Args:
        storage: URL of a PostgreSQL database; None for HPO_STORAGE, else the embedded server.
        study: Name of the study; None for the only one in the storage.
        home: Folder of the embedded server; None for HPO_HOME.

    Raises:
        ConfigurationError: There is no such study, or no trial of it is complete yet.
        StorageError: The database cannot be used.
    """
    return open(storage, study, home=home).best()


def best_of(opened: OpenStudy, db: sa.Engine) -> tuple[Best, FrozenTrial]:
    """Return the best trial of an open study, and Optuna's record of it.

    Raises:
        ConfigurationError: No trial is complete yet.
    """
    trial, remark = best_and_remark(opened.load())
    if trial is None or trial.value is None:
        why = f" ({remark})" if remark else ""
        raise ConfigurationError(f"study '{opened.name}' has no complete trial yet{why}")
    found = Best(
        study=opened.name,
        trial=trial.number,
        metric=opened.config.metric,
        value=trial.value,
        precision=trial.user_attrs.get("precision", opened.config.precision),
        params=trial.params,
        figures=_validated(Records(db, opened.uid), trial, opened.config.metric),
        config=as_begun(opened, trial).config,
        left_out=remark,
    )
    return found, trial


def _validated(records: Records, trial: FrozenTrial, metric: str) -> dict[str, float]:
    """Return the figures of a trial's last validation, without those of its training."""
    run_uid = trial.user_attrs.get("run_uid")
    found = records.figures(run_uid) if run_uid else {}
    training = {name for name in found if "." in name or name in TRAINING_FIGURES} - {metric}
    return {name: value for name, value in found.items() if name not in training}
