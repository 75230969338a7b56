"""The supervisor's processes: heard to their last line, ended within a grace or at once."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from hpo.errors import ConfigurationError
from hpo.launch.local import LocalLauncher
from hpo.launch.supervisor import JobSupervisor, News, Supervisor
from hpo.machine.slots import Slot
from tests.support.processes import wait_until

pytestmark = pytest.mark.acceptance

SLOT = Slot(name="cpu:0", device="cpu")
STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True)"
)


def supervised(code: str, folder: Path, *, job: str | None = "job") -> Supervisor:
    """A supervisor of one process that executes some code."""
    supervisor = JobSupervisor(LocalLauncher(os.environ))
    argv, log = [sys.executable, "-c", code], folder / "one.log"
    if job is None:
        supervisor.start("one", SLOT, argv, log=log)
    else:
        supervisor.start_job("one", SLOT, argv, log=log, job=job)
    return supervisor


def heard(supervisor: Supervisor) -> tuple[list[dict], int]:
    """All messages until the process has ended, and its exit code."""
    messages: list[dict] = []
    codes: list[int] = []

    def take() -> bool:
        news = supervisor.take()
        messages.extend(message for _, message in news.messages)
        codes.extend(code for _, code in news.ended)
        return bool(codes)

    wait_until(take)
    return messages, codes[0]


def test_every_message_is_heard_before_the_end(tmp_path: Path):
    code = "import json\nfor i in range(20000): print(json.dumps({'i': i}))\nprint('no JSON')"

    messages, exit_code = heard(supervised(code, tmp_path))

    assert [message["i"] for message in messages] == list(range(20000))
    assert exit_code == 0


def test_bytes_that_are_no_text_cost_a_line_and_no_message(tmp_path: Path):
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n{\"a\": 1}\\n')"

    assert heard(supervised(code, tmp_path)) == ([{"a": 1}], 0)


def test_a_process_that_closes_its_output_has_not_ended(tmp_path: Path):
    code = "import os, sys; os.close(1); sys.stdin.readline(); sys.stdin.readline(); os._exit(7)"
    supervisor = supervised(code, tmp_path)
    for _ in range(10):
        assert not supervisor.take().ended
        time.sleep(0.01)

    supervisor.end(threading.Event(), grace_s=300, note=lambda _: None)

    assert supervisor.running == {}


def test_a_job_is_stopped_by_the_end_of_its_input(tmp_path: Path):
    code = 'import sys; print(\'{"job": "%s"}\' % sys.stdin.readline().strip(), flush=True); '
    code += "sys.stdin.read(); print('{\"stopped\": true}')"
    news: list[News] = []
    supervisor = supervised(code, tmp_path)

    supervisor.end(threading.Event(), grace_s=300, note=news.append)

    messages = [message for one in news for _, message in one.messages]
    assert messages == [{"job": "job"}, {"stopped": True}]
    assert [code for one in news for _, code in one.ended] == [0]


@pytest.mark.parametrize("is_hurried", [False, True])
def test_a_process_that_does_not_stop_is_killed_after_the_grace_or_at_a_second_ask(
    tmp_path: Path, is_hurried: bool
):
    supervisor = supervised(f"{STUBBORN}; import time; time.sleep(1000)", tmp_path, job=None)
    wait_until(lambda: (tmp_path / "one.log").read_text())
    (process,) = supervisor.running.values()
    hurry = threading.Event()
    if is_hurried:
        hurry.set()

    supervisor.end(hurry, grace_s=300 if is_hurried else 0.2, note=lambda _: None)

    assert process.launched.poll() == -9
    assert process.last_line() == "{}"


def test_a_log_that_cannot_be_written_is_an_answer(tmp_path: Path):
    (tmp_path / "one.log").mkdir()

    with pytest.raises(ConfigurationError, match="cannot be written"):
        supervised("pass", tmp_path)
