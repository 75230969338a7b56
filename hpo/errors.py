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
