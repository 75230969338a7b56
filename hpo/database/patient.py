"""Optuna's storage with patience: what the database does not answer is asked again.

Border: reads and retries; `storage` writes trials.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import wraps
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.database.faults import is_outage
from hpo.database.patience import with_retries

T = TypeVar("T")


class PatientStorage(_CachedStorage):
    """Optuna's storage, which waits out an outage of the database unless asked `at_once`."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._is_patient = True

    def _retried(self, work: Callable[[], T]) -> T:
        return with_retries(work) if self._is_patient else work()

    def at_once(self, work: Callable[[], T], default: T) -> T:
        """Return the result of `work`, tried once; the default while the database is away."""
        self._is_patient = False
        try:
            return work()
        except Exception as error:
            if not is_outage(error):
                raise
            return default
        finally:
            self._is_patient = True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._retried(lambda: super(PatientStorage, self).get_trial(trial_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return self._retried(
            lambda: super(PatientStorage, self).get_all_trials(study_id, deepcopy, states)
        )


def _retrying(method: Callable[..., T]) -> Callable[..., T]:
    @wraps(method)
    def wrapped(self: PatientStorage, *args: Any, **kwargs: Any) -> T:
        return self._retried(lambda: method(self, *args, **kwargs))

    return wrapped


# Optuna calls these methods in the middle of a trial, and its own storage does not retry them.
for _name in (
    *("get_study_id_from_name", "get_study_directions", "get_study_user_attrs"),
    *("get_study_system_attrs", "set_study_user_attr", "get_best_trial"),
    *("get_trial_id_from_study_id_trial_number", "get_trial_system_attrs"),
    *("get_all_studies", "get_study_name_from_id", "set_study_system_attr", "create_new_study"),
):
    setattr(PatientStorage, _name, _retrying(getattr(_CachedStorage, _name)))
