"""The causes that count as Ctrl-C: the signals of schedulers, and a terminal that was closed."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.support.program import HANGS_S, ROOT, Program
from tests.support.studies import Held, states

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(sys.platform != "linux", reason="needs ps and a Linux terminal"),
]

_RUN = ("--study_name", "s", "--workers", "1", "--n_trials", "3", "--seed", "1")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_of_a_scheduler_stops_a_run_as_ctrl_c_does(
    program: Program, url: str, held: Held, number: int
):
    held.hold(2)
    process = program.start("--objective", str(held.path), *_RUN)
    wait_until(held.is_holding)

    process.send_signal(number)
    _, err = process.communicate(timeout=HANGS_S)

    assert process.returncode == 130
    assert "stopping (interrupted)" in err
    assert "the same command goes on" in err
    held.let_go()
    again = program("--objective", str(held.path), *_RUN)
    assert again.returncode == 0, again.stderr
    assert states(url, "s") == {"COMPLETE": 3}
    # The second trial was built twice, and went on from its checkpoint.
    assert held.built == 4


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_of_a_scheduler_has_a_worker_keep_its_trial(
    program: Program, url: str, held: Held, number: int
):
    held.hold(2, 3)
    run = program.start("--objective", str(held.path), *_RUN)
    wait_until(held.is_holding)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=HANGS_S)
    held.hold(2, 3)
    process = program.start("worker", "--study_name", "s", "--objective", str(held.path))
    wait_until(held.is_holding)

    process.send_signal(number)
    process.communicate(timeout=HANGS_S)

    assert process.returncode == 0
    held.let_go()
    assert program("--objective", str(held.path), *_RUN).returncode == 0
    assert states(url, "s") == {"COMPLETE": 3}


@pytest.mark.parametrize("hangup", ["obeyed", "ignored"])
def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(
    program: Program, url: str, held: Held, tmp_path: Path, hangup: str
):
    """With SIGHUP ignored, the error of writing to the terminal is all that tells of it."""
    held.hold(2)
    master, slave = pty.openpty()
    codes = tmp_path / "code"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _AS_SHELL, str(codes), hangup),
            *("--objective", str(held.path), *_RUN),
        ],
        env={**program.environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    wait_until(lambda: _drained(master) and held.is_holding())

    os.close(master)
    process.wait(timeout=HANGS_S)

    assert codes.read_text() == "130"
    held.let_go()
    assert program("--objective", str(held.path), *_RUN).returncode == 0
    assert states(url, "s") == {"COMPLETE": 3}
    assert held.built == 4


# The leader of the terminal's session: it starts the program in the foreground, as a shell does,
# and writes down its exit code.
_AS_SHELL = """
import fcntl, signal, subprocess, sys, termios
from pathlib import Path
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[2] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
process = subprocess.Popen([sys.executable, "-m", "hpo", *sys.argv[3:]])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
Path(sys.argv[1]).write_text(str(process.wait()))
"""


def _drained(master: int) -> bool:
    """Read what the program has written, as its terminal would."""
    while select.select([master], [], [], 0)[0]:
        os.read(master, 65536)
    return True
