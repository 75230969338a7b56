"""The storage of a test's database, and an empty study in it."""

from __future__ import annotations

import optuna
import pytest

from hpo.database.connection import connect
from hpo.database.storage import TrialStorage, open_storage


@pytest.fixture
def storage(url: str) -> TrialStorage:
    return open_storage(connect(url))


@pytest.fixture
def study(storage: TrialStorage) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=storage)
