"""Optuna's own storage on our connections, reading trials by plain SQL.

Border: what `TrialStorage` stands on; the parts of Optuna's that are not public are pinned by
`tests/database/test_storage.py::test_optuna_still_has_what_the_storage_extends`.
"""

from __future__ import annotations

from collections.abc import Container

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as tables
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import orm

from hpo.database.frozen import newer, read_trials

# Optuna reads a trial's attributes in the physical order of their rows, which an update changes,
# and the dashboard shows the first six. Sorted by id, they keep the order of writing.
for _name in ("user", "system"):
    _attributes = sa.inspect(tables.TrialModel).relationships[f"{_name}_attributes"]
    _attributes.order_by = [_attributes.target.c[f"trial_{_name}_attribute_id"]]


class Backend(RDBStorage):
    """Optuna's storage on the engine of this process, in place of an engine of its own.

    It has the attributes that `RDBStorage.__init__` sets, but for the manager of the tables'
    versions: `create_tables` has compared them.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.engine_kwargs = {}
        self.url = engine.url.render_as_string(hide_password=False)
        self.scoped_session = orm.scoped_session(orm.sessionmaker(bind=engine))
        self.skip_compatibility_check = True
        self.heartbeat_interval = self.grace_period = None
        self.heartbeat_stale_trial_callback = self.failed_trial_callback = None

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        which, values = newer(included_trial_ids, trial_id_greater_than)
        found = read_trials(self.engine, study_id, which, **values)
        return [one for one in found if states is None or one.state in states]
