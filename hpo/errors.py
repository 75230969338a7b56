"""The tree of errors that the service raises on purpose.

    HpoError
    ├── ConfigurationError      the request can never work: exit code 2
    │   ├── StudyMismatch       the study exists and was created with other settings
    │   └── ObjectiveError      an objective cannot be found or breaks its contract
    ├── StorageError            the database cannot be reached or used: exit code 2
    │   └── PostgresError       the embedded server cannot be set up, started or stopped
    ├── RunFailed               the run went wrong after it had begun: exit code 1
    │   └── RunInterrupted      its time was over while the database was away: exit code 130
    ├── LeaseLost               this worker no longer owns its ticket; its writes are refused
    ├── TrialEnded              another program ended this worker's trial
    ├── TrialGone               another program deleted this worker's trial
    ├── StopRequested           a signal asked this worker to stop; the trial can be resumed
    └── Divergence              the guard ended the trial; lives in `hpo.guard.evidence`

A message is one or two lines: the input, the fault, and the cure. The code that builds a message
masks passwords (`hpo.database.connection.mask`).
"""

from __future__ import annotations


class HpoError(Exception):
    """An error that the service raises on purpose."""

    exit_code = 1


class ConfigurationError(HpoError):
    """The request can never work."""

    exit_code = 2


class StudyMismatch(ConfigurationError):
    """The study exists and was created with other settings."""


class ObjectiveError(ConfigurationError):
    """An objective cannot be found or breaks its contract."""


class StorageError(HpoError):
    """The database cannot be reached or used."""

    exit_code = 2


class PostgresError(StorageError):
    """The embedded server cannot be set up, started or stopped."""


class RunFailed(HpoError):
    """The run went wrong after it had begun."""


class RunInterrupted(RunFailed):
    """The run's time was over while the database was away."""

    exit_code = 130


class LeaseLost(HpoError):
    """This worker no longer owns its ticket; its writes are refused."""


class TrialEnded(HpoError):
    """Another program ended this worker's trial."""


class TrialGone(HpoError):
    """Another program deleted this worker's trial."""


class StopRequested(HpoError):
    """A signal asked this worker to stop; the trial can be resumed."""
