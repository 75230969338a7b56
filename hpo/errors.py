"""Every error that the service raises on purpose, as a tree.

    HpoError
    ├── ConfigurationError      what was asked for could never work: exit code 2
    │   ├── StudyMismatch       the study exists and was created with something else
    │   └── ObjectiveError      an objective cannot be found or breaks its contract
    ├── StorageError            the database cannot be reached or used: exit code 2
    │   └── PostgresError       the embedded server cannot be set up, started or stopped
    ├── RunFailed               the run went wrong after it had begun: exit code 1
    ├── LeaseLost               this worker no longer owns its ticket; its writes are refused
    ├── StopRequested           a signal asked this worker to stop; the trial can be resumed
    └── Divergence              the guard's verdict on a trial that is not worth going on with

A message is one or two lines: what was given, what is wrong, what to write. Passwords are masked
by whoever builds the message (`storage.mask`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.guard.evidence import Evidence


class HpoError(Exception):
    """Anything that the service raises on purpose."""

    exit_code = 1


class ConfigurationError(HpoError):
    """What was asked for could never work."""

    exit_code = 2


class StudyMismatch(ConfigurationError):
    """The study exists and was created with something else."""


class ObjectiveError(ConfigurationError):
    """An objective cannot be found or breaks its contract."""


class StorageError(HpoError):
    """The database cannot be reached or used."""

    exit_code = 2


class PostgresError(StorageError):
    """The embedded server cannot be set up, started or stopped."""


class RunFailed(HpoError):
    """The run went wrong after it had begun."""


class LeaseLost(HpoError):
    """This worker no longer owns its ticket; its writes are refused."""


class StopRequested(HpoError):
    """A signal asked this worker to stop; the trial can be resumed."""


class Divergence(HpoError):
    """The guard's verdict on a trial that is not worth going on with.

    Attributes:
        reason: One of the `prune_reason` values, for example `grad_nonfinite`.
        detail: One sentence that names the term, the parameter, the step and the scale.
        evidence: What is known of it.
        saved: The step that shows it, as `saved.pack` gives it; None where none does.
        skipped: Steps that had been withheld from the weights by then.
        seconds: What the trial had taken by then, over interruptions.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        evidence: Evidence,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.evidence = evidence
        self.saved = saved
        self.skipped = 0
        self.seconds = 0.0
