"""Workers as child processes of this one, on this host."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpo.errors import ConfigurationError, RunFailed


class LocalProcess:
    """A child process, in a session of its own so that a Ctrl-C reaches the fleet alone."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    def wait(self) -> None:
        self._process.wait()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class LocalLauncher:
    """Starts child processes in the given surroundings."""

    def __init__(self, surroundings: Mapping[str, str]) -> None:
        self._surroundings = dict(surroundings)

    def start(
        self, argv: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> LocalProcess:
        """Start a command.

        Raises:
            ConfigurationError: Its log cannot be written.
            RunFailed: The system starts no more processes.
        """
        try:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            output = log.open("ab")
        except OSError as error:
            raise ConfigurationError(
                f"the workers' logs cannot be written to '{log.parent}': {error.strerror}; mend "
                "that, or write another folder in HPO_HOME"
            ) from error
        with output:
            try:
                process = subprocess.Popen(
                    list(argv),
                    env={**self._surroundings, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise RunFailed(
                    f"a worker cannot be started ({error.strerror}); end other programs, allow "
                    "more processes ('ulimit -u'; a container's: --pids-limit) and memory, or "
                    "write a smaller --workers; the same command goes on"
                ) from error
        return LocalProcess(process)
