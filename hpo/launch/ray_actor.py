"""A worker's place in a Ray cluster: an actor that runs one worker as a child process.

The bridge sends this class by its code, not by its name, so that a host without `hpo` can say so.
It gets its host's interpreter, packages and environment, and the worker inherits them. What a run
adds to the environment, the storage's password among it, comes as an argument of `start`: Ray
records neither arguments of methods nor results.

Border: the host of one worker; `ray_bridge` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Words of a command line that the host fills in.
PYTHON, PARENT = "{python}", "{parent}"


class WorkerActor:
    """One worker of a run, from its start to its end; its methods run in threads."""

    # One that waits for news, one that is asked to end the worker, and one to spare.
    THREADS = 3
    # A worker's end and its lines are noticed within this time.
    _POLL_S = 0.1
    # Larger answers would go through Ray's object store.
    _MOST_BYTES = 64_000

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        version: str | None,
        only_on: str | None,
    ) -> dict[str, Any]:
        """Start the worker.

        Args:
            argv: Its command line, with the words that this host fills in.
            environment: Variables added to this host's.
            version: The version of `hpo` where the run is.
            only_on: Address of the only host that reaches the storage; None if all do.

        Returns:
            Host and process of the worker, or the sentence and the exit code of a refusal.
        """
        import os
        import platform
        import sys
        import tempfile
        from pathlib import Path

        host = platform.node()
        if refused := refusal(version, only_on):
            return {"code": 2, "refused": f"host '{host}' {refused}"}
        from hpo import environ
        from hpo.errors import HpoError
        from hpo.launch.local import LocalLauncher

        filled = {PYTHON: sys.executable, PARENT: str(os.getpid())}
        folder = Path(tempfile.mkdtemp(prefix="hpo-"))
        log = folder / "log"
        try:
            self._process = LocalLauncher(environ.variables()).start(
                [filled.get(word, word) for word in argv], environment=environment, log=log
            )
            self._log = log.open("rb")
        except HpoError as error:
            return {"code": error.exit_code, "refused": f"host '{host}': {error}"}
        finally:
            # Both hold it open. A worker that outlives this process may go on writing to it.
            log.unlink(missing_ok=True)
            folder.rmdir()
        return {"host": host, "gpus": environ.visible_gpus() or ""}

    def news(self, seen: int, wait_s: float) -> tuple[bytes, int | None]:
        """Wait for output of the worker, or its end.

        Args:
            seen: The bytes of output that the caller has.

        Returns:
            The bytes that follow, and the exit code once there are no more.
        """
        import time

        deadline = time.monotonic() + wait_s
        while True:
            # All that an ended process has written is there.
            code = self._process.poll()
            self._log.seek(seen)
            text = self._log.read(self._MOST_BYTES)
            if text:
                return text, None
            if code is not None or time.monotonic() > deadline:
                return text, code
            time.sleep(self._POLL_S)

    def stop(self) -> None:
        """Ask the worker to save its state and end."""
        self._process.stop()

    def kill(self) -> None:
        """Kill the worker, and all that it has started."""
        self._process.kill()


def refusal(version: str | None, only_on: str | None) -> str | None:
    """What keeps this host from running a worker, after its name; None if nothing does."""
    import sys
    from importlib import metadata

    import ray

    if only_on not in (None, ray.util.get_node_ip_address()):
        return (
            f"cannot reach the storage, which is on '{only_on}' alone; name a database that all "
            "hosts reach (--storage or HPO_STORAGE)"
        )
    try:
        from hpo import environ  # noqa: F401

        found = metadata.version("hpo")
    except ImportError as error:
        # A package without metadata is a clone, whose version nobody knows.
        if isinstance(error, metadata.PackageNotFoundError):
            return None
        return (
            f"cannot import hpo ({error}); install the same version for '{sys.executable}' there, "
            "or bring it along (--runtime_env)"
        )
    if version not in (None, found):
        return f"has hpo {found} and the run has {version}; install one version on all hosts"
    return None
