"""The program: as a process, forked or executed, and as a function of this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpo import cli
from hpo.cli.shared import STOPS
from tests.support.forked import EXECUTED

ROOT = Path(__file__).parents[2]
# It only ends a test that hangs: the slowest of these takes 10 s of CPU.
HANGS_S = 300.0


def environment(url: str | None, home: Path) -> dict[str, str]:
    """The environment of a user with one database and one home."""
    found = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HPO_")},
        "HPO_HOME": str(home),
        "PYTHONWARNINGS": "ignore",
    }
    return found if url is None else {**found, "HPO_STORAGE": url}


class Program:
    """`python -m hpo` as a process against one database and one home.

    Args:
        is_executed: Whether it is a new interpreter, as a user's is, and not a fork of this one.
    """

    def __init__(self, url: str | None, home: Path, *, is_executed: bool = False) -> None:
        self.home = home
        self.environment = environment(url, home)
        self._popen = EXECUTED if is_executed else subprocess.Popen

    def __call__(
        self, *args: str, timeout: float = HANGS_S, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `text` on its standard input."""
        process = self.start(*args, stdin=subprocess.DEVNULL if text is None else subprocess.PIPE)
        try:
            out, err = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def start(self, *args: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Begin a command."""
        return self._popen(
            [sys.executable, "-m", "hpo", *args],
            env=self.environment,
            cwd=ROOT,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


class Command:
    """`main(argv)` in this process, answered as a process would."""

    def __init__(self, surroundings: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        self._surroundings, self._capsys = dict(surroundings), capsys

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command; what it printed, and its exit code."""
        signals = STOPS
        before = {number: signal.getsignal(number) for number in signals}
        folder = Path.cwd()
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("HPO_")]:
                patch.delenv(name)
            for name in ("HPO_HOME", "HPO_STORAGE"):
                if name in self._surroundings:
                    patch.setenv(name, self._surroundings[name])
            patch.chdir(ROOT)
            try:
                code = cli.main(args)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        assert Path.cwd() == folder
        out, err = self._capsys.readouterr()
        return subprocess.CompletedProcess(args, code, out, err)
