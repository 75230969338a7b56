"""Create, find and change a study; its configuration is stored with it.

Border: `resolve` decides the configuration once, this module stores it, and every run and worker
inherits it. `identity` knows copies and renamed studies. `hpo.engine` computes trials,
`hpo.tickets.budget` counts them.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo.database import ended, outside
from hpo.database.ended import Snapshot
from hpo.database.migrations import create_tables
from hpo.database.storage import TrialStorage, open_storage
from hpo.errors import ConfigurationError, RunFailed
from hpo.search.pruners import make_pruner
from hpo.search.samplers import make_sampler
from hpo.study import identity
from hpo.study.config import StudyConfig, check_name
from hpo.study.identity import UID, Identity

_CONFIG = "config"
_RUN = "last_run"
_HISTORY = "config_history"
# This system attribute of a trial holds the revision of the configuration that it began with.
REVISION = "hpo:revision"
REFERENCES = "references"


@dataclass(frozen=True, kw_only=True)
class OpenStudy:
    """A study in a database, with its configuration and storage.

    Attributes:
        copy_of: Name of the study that it shares its uid with; None once it has one of its own.
    """

    name: str
    uid: str
    study_id: int
    config: StudyConfig
    storage: TrialStorage
    copy_of: str | None = None

    def load(self, *, sampler_seed: int | None = None) -> optuna.Study:
        """Load the Optuna study afresh; a seed adds its sampler and pruner, for ask and report.

        Raises:
            KeyError: The study was deleted or renamed; `refreshed` finds it if it is there.
        """
        search: dict[str, Any] = {}
        if sampler_seed is not None:
            search["sampler"] = make_sampler(self.config.sampler, seed=sampler_seed)
            search["pruner"] = make_pruner(self.config.pruner, epochs=self.config.epochs_per_trial)
        found = optuna.load_study(study_name=self.name, storage=self.storage, **search)
        if found._study_id != self.study_id:
            raise KeyError(f"another study has the name '{self.name}' now")
        return found

    def waiting(self) -> sa.ScalarSelect[int]:
        """The expression that counts the trials that other programs enqueued and nobody began."""
        return outside.waiting(self.study_id)


def derive_seed(*parts: object) -> int:
    """A 32-bit seed from a tuple, the same in every process."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def uid_of(attributes: Mapping[str, Any]) -> str | None:
    """The key of a study's rows in our own tables; None if another program created the study."""
    try:
        # The canonical form. It names folders, too, so any other text, such as '../..', is none.
        return str(uuid.UUID(str(attributes.get(UID))))
    except ValueError:
        return None


def config_of(attributes: Mapping[str, Any]) -> StudyConfig | None:
    """A study's configuration; None if another program created the study."""
    # Another program's study may have an attribute of the same name.
    if uid_of(attributes) is None or _CONFIG not in attributes:
        return None
    return StudyConfig.from_stored(attributes[_CONFIG])


def find(storage: TrialStorage, name: str) -> OpenStudy | None:
    """The study of this name; None if there is none, or if its creation was interrupted.

    Raises:
        ConfigurationError: It was not created by this service.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    attributes = storage.get_study_user_attrs(study_id)
    uid, config = uid_of(attributes), config_of(attributes)
    if uid is not None and config is not None:
        first = identity.original(storage.engine, uid)
        is_copy = first is not None and first.study_id != study_id
        return OpenStudy(
            name=name,
            uid=uid,
            study_id=study_id,
            config=config,
            storage=storage,
            copy_of=first.name if first is not None and is_copy else None,
        )
    if ended.read(storage.engine, study_id, Snapshot.has_trials):
        raise ConfigurationError(
            f"study '{name}' was not created by this service and has no settings to go on with; "
            "choose another --study_name"
        )
    return None


def open_study(engine: sa.Engine, name: str | None) -> OpenStudy:
    """Open the study of this name, or the only one.

    Raises:
        ConfigurationError: There is none, or there are several and no name is given.
    """
    check_name(name)
    create_tables(engine)
    storage = open_storage(engine)
    names = sorted(study.study_name for study in storage.get_all_studies())
    if name is None and not names:
        raise ConfigurationError("the database holds no study; write 'python -m hpo run' first")
    if name is None and len(names) > 1:
        raise ConfigurationError(
            f"no study was named; use one of {', '.join(names)} (--study_name)"
        )
    name = names[0] if name is None else name
    found = find(storage, name)
    if found is None:
        raise ConfigurationError(
            f"no study named '{name}' that this service created; use one of "
            f"{', '.join(names) or '(none)'} (--study_name)"
        )
    return found


def change(opened: OpenStudy, config: StudyConfig) -> OpenStudy:
    """Change the configuration for trials that begin from now on; earlier ones keep theirs."""
    study_id = opened.study_id
    history = opened.storage.get_study_user_attrs(study_id).get(_HISTORY, [])
    earlier = [*history[: opened.config.revision], opened.config.stored()]
    config = replace(config, revision=opened.config.revision + 1)
    opened.storage.set_study_user_attr(study_id, _HISTORY, earlier)
    opened.storage.set_study_user_attr(study_id, _CONFIG, config.stored())
    return replace(opened, config=config)


def refreshed(opened: OpenStudy) -> OpenStudy:
    """The study with its current name and configuration, which others may have changed.

    Call it too when a read of the study raised `KeyError`: it was renamed, if it is not deleted.

    Raises:
        RunFailed: The study was deleted.
    """
    engine = opened.storage.engine
    bound = identity.bound(engine, opened.uid, _CONFIG)
    if bound is not None and bound[:2] == (opened.study_id, opened.name) and not opened.copy_of:
        config = StudyConfig.from_stored(bound[2])
        return opened if config == opened.config else replace(opened, config=config)
    while True:
        found = identity.original(engine, opened.uid)
        if found is not None and not found.is_bound:
            found = identity.resolve(engine, opened.uid)
        if found is None:
            raise RunFailed(f"study '{opened.name}' was deleted meanwhile")
        with suppress(KeyError):
            return _identified(opened, found)


def claimed(opened: OpenStudy) -> OpenStudy:
    """The study with a uid and a budget of its own, for a command that works on it.

    A copy made by another program gets both here. What was renamed is bound to its new name.

    Raises:
        RunFailed: The study was deleted.
    """
    found = identity.resolve(opened.storage.engine, opened.uid, opened.study_id)
    with suppress(KeyError):
        if found is not None:
            return _identified(opened, found)
    raise RunFailed(f"study '{opened.name}' was deleted meanwhile")


def _identified(opened: OpenStudy, found: Identity) -> OpenStudy:
    """Read a study's configuration by its id; raise `KeyError` if it is gone."""
    config = config_of(opened.storage.get_study_user_attrs(found.study_id))
    if config is None:
        raise RunFailed(f"study '{found.name}' has lost its settings")
    now = replace(opened, uid=found.uid, study_id=found.study_id, name=found.name, config=config)
    if found.study_id != opened.study_id:
        # A rename in the dashboard leaves the name of the metric behind.
        _name_metric(now.load(), config)
    return replace(now, copy_of=None)


def at_revision(opened: OpenStudy, revision: int) -> OpenStudy:
    """The study with the configuration of an earlier revision."""
    if revision == opened.config.revision:
        return opened
    history = opened.storage.get_study_user_attrs(opened.study_id).get(_HISTORY, [])
    return replace(opened, config=StudyConfig.from_stored(history[revision]))


def as_begun(opened: OpenStudy, trial: FrozenTrial) -> OpenStudy:
    """The study with the configuration that a trial began with."""
    return at_revision(opened, trial.system_attrs.get(REVISION, 0))


def note_run(opened: OpenStudy, effective: Mapping[str, Any]) -> None:
    """Store the effective configuration of the latest run with its study."""
    opened.storage.set_study_user_attr(opened.study_id, _RUN, dict(effective))


def last_run(opened: OpenStudy) -> Mapping[str, Any]:
    """The effective configuration of the latest run; empty if none was stored."""
    found: Mapping[str, Any] = opened.storage.get_study_user_attrs(opened.study_id).get(_RUN, {})
    return found


def create(storage: TrialStorage, name: str, config: StudyConfig) -> OpenStudy:
    """Create the study; complete a creation that was interrupted."""
    study = optuna.create_study(
        study_name=name, storage=storage, direction=config.direction, load_if_exists=True
    )
    _name_metric(study, config)
    study.set_user_attr(_CONFIG, config.stored())
    study_id = study._study_id
    # The uid is written last, as it marks a completely created study.
    uid = identity.give(storage.engine, study_id, str(uuid.uuid4()))
    return OpenStudy(name=name, uid=uid, study_id=study_id, config=config, storage=storage)


def _name_metric(study: optuna.Study, config: StudyConfig) -> None:
    """Have the dashboard show the metric by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([config.metric])
