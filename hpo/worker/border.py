"""The border between the service and an objective's hooks: the trial that a hook asks, and errors.

What is raised while a hook runs belongs to the trial, whatever its class. What is raised on our
side, also in a call of the hook's back into the service, is ours.
"""

from __future__ import annotations

from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import HpoError
from hpo.task.raised import chain
from hpo.worker.pulse import Pulse

# What the service's own side raises; a hook may raise the same classes.
_OWN = (SQLAlchemyError, optuna.exceptions.OptunaError, HpoError)


class Asked:
    """An Optuna trial in the hands of a hook; each use of it counts as the service's own code."""

    def __init__(self, trial: optuna.Trial, pulse: Pulse) -> None:
        self._trial, self._pulse = trial, pulse

    def __getattr__(self, name: str) -> Any:
        pulse = self._pulse
        with pulse.outside():
            found = getattr(self._trial, name)
        if not callable(found):
            return found

        def called(*args: Any, **kwargs: Any) -> Any:
            with pulse.outside():
                return found(*args, **kwargs)

        return called


def own_error(error: BaseException, pulse: Pulse) -> BaseException | None:
    """The service's own error that ended a trial; None if the error is the trial's.

    Args:
        error: What left a block of `Pulse.closing`.
    """
    if not pulse.raised_in:
        is_own = isinstance(error, _OWN) or not isinstance(error, Exception)
        return error if is_own else None
    # A hook may raise an error of its own from ours.
    return next(
        (one for one in chain(error) if one is pulse.outside_error and isinstance(one, _OWN)), None
    )
