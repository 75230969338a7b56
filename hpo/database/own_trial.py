"""The trial that a process writes, in memory as the database will have it.

Nothing of it is read again while it runs. Border: each change goes into the trial and into the
buffer of what is to be written; `storage` decides when that is written.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages._rdb import models as tables
from optuna.trial import FrozenTrial, TrialState

from hpo.database.buffer import Buffer
from hpo.database.frozen import local
from hpo.database.trial_writer import Begun


class OwnTrial:
    """A trial under a fence.

    Args:
        trial: The trial as it was created or read.
        buffer: Where its changes wait.
        known: The distributions of parameters that other trials have, by name; added to.
    """

    def __init__(
        self, trial: FrozenTrial, buffer: Buffer, known: dict[str, BaseDistribution]
    ) -> None:
        self._trial, self._buffer, self._known = trial, buffer, known

    @property
    def trial_id(self) -> int:
        """Its id in Optuna's tables."""
        return self._trial._trial_id

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self._trial.number

    @property
    def system_attrs(self) -> dict[str, Any]:
        """A copy of its system attributes."""
        return dict(self._trial.system_attrs)

    def copied(self) -> FrozenTrial:
        """A copy, which Optuna's own objects change as they go on."""
        copied = copy.copy(self._trial)
        for name in ("_user_attrs", "_system_attrs", "intermediate_values", "_distributions"):
            setattr(copied, name, dict(getattr(copied, name)))
        copied.params = dict(copied.params)
        return copied

    def set_param(self, name: str, value: float, distribution: BaseDistribution) -> None:
        """Set a parameter, whose value is as Optuna stores it.

        Raises:
            ValueError: Other trials have it with a distribution of another kind.
        """
        known = self._known.setdefault(_checked(name), distribution)
        check_distribution_compatibility(known, distribution)
        self._buffer.params[name] = (value, distribution_to_json(distribution))
        self._trial.params[name] = distribution.to_external_repr(value)
        self._trial.distributions[name] = distribution

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set a user attribute; one that it has already is not written again."""
        text, before = json.dumps(value), self._trial.user_attrs
        if key not in before or json.dumps(before[key]) != text:
            self._buffer.user[_checked(key)] = text
            before[key] = json.loads(text)

    def set_system_attr(self, key: str, value: Any) -> None:
        """Set a system attribute."""
        text = self._buffer.system[_checked(key)] = json.dumps(value)
        self._trial.system_attrs[key] = json.loads(text)

    def report(self, step: int, value: float) -> None:
        """Set the value of a step."""
        self._trial.intermediate_values[step] = self._buffer.reports[step] = value

    def end(self, state: TrialState, values: Sequence[float] | None) -> None:
        """Note that it has ended; it stays so until another one begins."""
        self._trial.state, self._trial.values = state, values


def created(begun: Begun, user: Mapping[str, Any], system: Mapping[str, Any]) -> FrozenTrial:
    """A trial that was just created with these attributes."""
    user_attrs, system_attrs = json.loads(json.dumps([user, system]))
    return FrozenTrial(
        number=begun.number,
        trial_id=begun.trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=local(begun.began),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs=user_attrs,
        system_attrs=system_attrs,
        intermediate_values={},
    )


def _checked(name: str) -> str:
    """The name of a parameter or an attribute, if the database can store it.

    Raises:
        ValueError: It is too long, or has characters that are none of UTF-8 or of PostgreSQL.
    """
    if "\0" in name or len(name) > tables.MAX_INDEXED_STRING_LENGTH:
        raise ValueError(
            f"the name {name[:40]!r} has {len(name)} characters; write at most "
            f"{tables.MAX_INDEXED_STRING_LENGTH}, and none that is NUL"
        )
    name.encode()
    return name
