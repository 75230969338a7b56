"""The log of a worker is rotated, and no line of its processes is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.program import ROOT

# Two processes write to one log, as a trainer and the process above it do.
_WRITES = """
import os, sys
from hpo.worker import rotation
rotation._MOST_BYTES = 50_000
if {is_ours}:
    rotation.begin()
name = "child" if os.fork() == 0 else "parent"
for number in range(400):
    os.write(1 if number % 2 else 2, f"{{name}} {{number}} {{'x' * 100}}\\n".encode())
    if number % 20 == 0:
        rotation.look()
if name == "parent":
    os.wait()
"""


def written(log: Path, *, is_ours: bool) -> list[str]:
    """The lines that both processes have written, in both files."""
    with log.open("ab") as output:
        subprocess.run(
            [sys.executable, "-c", _WRITES.format(is_ours=is_ours)],
            check=True,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    files = (log.with_name(f"{log.name}.1"), log)
    return [line for file in files if file.exists() for line in file.read_text().splitlines()]


def test_a_large_log_becomes_the_old_one_with_every_line_of_two_processes(tmp_path):
    log = tmp_path / "worker-here-cpu-0.log"

    lines = written(log, is_ours=True)

    assert sorted(line.rpartition(" ")[0] for line in lines) == sorted(
        f"{name} {number}" for name in ("parent", "child") for number in range(400)
    )
    # A process may write 20 lines more before it looks.
    assert 50_000 < log.with_name(f"{log.name}.1").stat().st_size < 60_000


def test_a_large_log_that_was_removed_is_begun_anew(tmp_path):
    log = tmp_path / "worker-here-cpu-0.log"
    script = """
import os
from pathlib import Path
from hpo.worker import rotation
rotation._MOST_BYTES = 50
rotation.begin()
os.write(2, b"x" * 100)
Path({log!r}).unlink()
rotation.look()
os.write(2, b"after")
"""
    with log.open("ab") as output:
        subprocess.run(
            [sys.executable, "-c", script.format(log=str(log))],
            check=True,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    assert log.read_text() == "after"


def test_a_file_that_a_command_writes_to_is_its_own(tmp_path):
    log = tmp_path / "mine.log"

    assert len(written(log, is_ours=False)) == 800
    assert [path.name for path in tmp_path.iterdir()] == ["mine.log"]
