"""Commands whose processes are marked, so that those that outlive them are found and ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from faults.database import Database

ROOT = Path(__file__).parents[1]
# A calm run takes 8 s of a core. Two lost workers, the slowest of what is right, take 20 s more.
_HANGS_S = 120.0
# Processes of a command that has ended may take this long to notice.
_LINGERS_S = 3.0
# An objective may have filled its output.
_TAIL_BYTES = 200_000
# All processes below a command have this in their first environment, whatever they do to it later.
_MARK = "HOSTILE_ROW"


@dataclass(frozen=True, kw_only=True)
class Place:
    """The server of all commands, the folder of theirs, and that of their lines."""

    url: str
    folder: Path
    out: Path


@contextmanager
def place(out: Path) -> Iterator[Place]:
    """A server in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-hostile-", dir="/tmp"))
    folder.chmod(0o755)
    out.mkdir(parents=True, exist_ok=True)
    try:
        database = Database(folder / "server")
        try:
            yield Place(url=database.url, folder=folder, out=out)
        finally:
            database.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command(at: Place, name: str, *words: str) -> tuple[int | None, str, list[str]]:
    """Run a command of the program: its exit code, its lines, and the processes that it left.

    Args:
        name: The first part of its files' names.
    """
    mark, log = f"{name}-{time.monotonic_ns()}", at.out / f"{name}.{words[0].strip('-')}.txt"
    cwd = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=at.folder))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPO_")}
    own = {"HPO_HOME": str(cwd / "home"), "HPO_STORAGE": at.url, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "hpo", *words],
            env={**inherited, **own, _MARK: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_HANGS_S)
        if code is None:
            end(marked(mark))
            process.wait()
    for number, worker in enumerate(sorted(cwd.rglob("home/logs/**/*.log"))):
        shutil.copyfile(worker, at.out / f"{name}.worker-{number}.txt")
    deadline = time.monotonic() + _LINGERS_S
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    shown = [f"{process.pid} {' '.join(process.info['cmdline'])[:80]}" for process in left]
    end(left)
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return code, written.read().decode(errors="replace"), shown


def marked(mark: str) -> list[psutil.Process]:
    """The processes below a command, whichever session and parent they have."""
    entry, found = f"{_MARK}={mark}".encode(), []
    for process in psutil.process_iter(["cmdline", "status"]):
        with suppress(OSError):
            # What a process does to `os.environ` does not show here.
            first = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if entry in first and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process]) -> None:
    """Kill processes."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
