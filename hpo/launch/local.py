"""The local launcher: child processes on this host."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from hpo.errors import RunFailed
from hpo.launch import children
from hpo.launch.log import opened
from hpo.start import PROGRAM

# The children of a killed process have this long to end.
_ORPHANS_S = 20.0
# A killed process is gone within milliseconds, unless it waits for a disk.
_KILLED_S = 3.0
_POLL_S = 0.01


class LocalProcess:
    """A child process in its own session, so that Ctrl-C reaches only its parent."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        job: str | None,
        on_line: Callable[[str], None] | None,
        *,
        mark: str,
    ) -> None:
        self._process, self._mark = process, mark
        self.pid: int | None = process.pid
        self.began_at: float | None = time.monotonic()
        self._ended_at: float | None = None
        self._listener: threading.Thread | None = None
        if on_line is not None:
            self._listener = threading.Thread(target=self._listen, args=(on_line,), daemon=True)
            self._listener.start()
        if process.stdin is not None and job is not None:
            with suppress(BrokenPipeError):
                process.stdin.write(job + "\n")
                process.stdin.flush()

    def _listen(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            on_line(line)

    def poll(self) -> int | None:
        if self._listener is not None and self._listener.is_alive():
            return None
        code = self._process.poll()
        if code is None or code >= 0 or not self._left():
            return code
        # It was killed, and its children may still save their state. A successor waits for that,
        # since a device would not hold both.
        self._ended_at = self._ended_at or time.monotonic()
        if time.monotonic() - self._ended_at < _ORPHANS_S:
            return None
        self.kill()
        return code

    def stop(self) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
            return
        with suppress(ProcessLookupError):
            self._process.terminate()

    def answer(self, line: str, *, is_last: bool = True) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        if is_last:
            self._process.stdin = None
        with suppress(OSError):
            stdin.write(line + "\n")
            stdin.flush()
            if is_last:
                stdin.close()

    def wait(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        """Kill the process, and then all others that it started."""
        below = children.below(self._process.pid)
        with suppress(ProcessLookupError):
            self._process.kill()
        for process in below:
            with suppress(psutil.Error):
                process.kill()
        # Some may have started others meanwhile, or have left the tree before.
        deadline = time.monotonic() + _KILLED_S
        while (left := self._left()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _left(self) -> list[int]:
        """The other processes of its session, and those that left the session."""
        return children.marked(self._mark, session=self._process.pid)


class LocalLauncher:
    """A launcher of child processes.

    Args:
        environment: Base environment of the children.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    @property
    def program(self) -> Sequence[str]:
        """The first words of this program's command line on this host."""
        return PROGRAM

    @property
    def tether(self) -> Sequence[str]:
        """Flags by which a worker ends with this process."""
        return ("--with_parent", str(os.getpid()))

    def close(self) -> None:
        """Do nothing: whoever started processes ends them."""

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
    ) -> LocalProcess:
        """Start a command.

        Raises:
            ConfigurationError: Its log cannot be written.
            RunFailed: The system starts no more processes.
        """
        return self._start(argv, environment, log, None, None)

    def start_job(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        job: str,
        on_line: Callable[[str], None],
    ) -> LocalProcess:
        """Start a command with a job; raises what `start` does."""
        return self._start(argv, environment, log, job, on_line)

    def _start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        job: str | None,
        on_line: Callable[[str], None] | None,
    ) -> LocalProcess:
        mark = children.new_mark()
        with opened(log) as output:
            try:
                process = subprocess.Popen(
                    list(argv),
                    env={**self._environment, **environment, children.MARK: mark},
                    stdin=subprocess.DEVNULL if job is None else subprocess.PIPE,
                    stdout=output if on_line is None else subprocess.PIPE,
                    stderr=subprocess.STDOUT if on_line is None else output,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise RunFailed(
                    f"a worker cannot be started ({error.strerror}); end other programs, allow "
                    "more processes ('ulimit -u'; a container's: --pids-limit) and memory, or "
                    "write a smaller --workers; the same command goes on"
                ) from error
        return LocalProcess(process, job, on_line, mark=mark)
