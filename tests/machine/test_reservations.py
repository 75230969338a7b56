"""GPUs that runs of one host reserve: one run a GPU, free again however its process ended."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from hpo.errors import RunInterrupted
from hpo.machine.gpus import Gpu
from hpo.machine.reservations import Reservations, reserved
from hpo.machine.slots import Slot, gpu_slots
from tests.support.program import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such names")
# Another run of this host, which holds GPUs until its input ends.
_OTHER = (
    "import sys; from hpo.machine.reservations import Reservations; held = Reservations(); "
    "print(dict(held.take(sys.argv[1:])), flush=True); sys.stdin.read()"
)


@pytest.fixture
def gpus() -> list[str]:
    """Identifiers that no other test has."""
    return [secrets.token_hex(8) for _ in range(2)]


class Other:
    """Another process that has reserved GPUs."""

    def __init__(self, gpus: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, *gpus], stdin=pipe, stdout=pipe, cwd=ROOT
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"{}\n"


@pytest.fixture
def other(gpus: list[str]) -> Iterator[Other]:
    found = Other(gpus[:1])
    yield found
    found.process.kill()
    found.process.communicate()


def slots(gpus: list[str]) -> list[Slot]:
    return gpu_slots([Gpu(name=str(i), uuid=uuid) for i, uuid in enumerate(gpus)], per_gpu=2)


def test_a_gpu_of_another_run_is_told_with_its_process(gpus, other):
    own = Reservations()

    assert own.take(gpus) == {gpus[0]: other.process.pid}
    # Asked again, a run has what it holds.
    assert own.take(gpus) == {gpus[0]: other.process.pid}
    assert Reservations().take(gpus[1:]) == {gpus[1]: os.getpid()}
    own.close()
    assert Reservations().take(gpus[1:]) == {}


def test_a_gpu_is_free_once_its_run_was_killed(gpus, other):
    os.kill(other.process.pid, signal.SIGKILL)
    other.process.wait()

    assert Reservations().take(gpus) == {}


def test_a_run_takes_the_rest_and_says_whose_the_others_are(gpus, other):
    said: list[str] = []

    free = reserved(
        slots(gpus), Reservations(), say=said.append, stop=threading.Event(), timeout_s=None
    )

    assert [slot.name for slot in free] == ["gpu:1.0", "gpu:1.1"]
    assert said == [
        f"GPUs that other runs of this host use are left to them: 0 (process {other.process.pid})"
    ]


def test_a_run_of_fewer_workers_takes_other_gpus_than_an_earlier_one(gpus, other):
    own, said = Reservations(), list[str]()

    free = reserved(
        slots([*gpus, secrets.token_hex(8)]),
        own,
        say=said.append,
        stop=threading.Event(),
        most=2,
    )

    assert [slot.name for slot in free] == ["gpu:1.0", "gpu:1.1"]
    assert len(said) == 1
    # The third one is left to others.
    assert len(own._held) == 1


def test_a_run_waits_for_a_gpu_where_others_use_all(gpus, other):
    said: list[str] = []
    threading.Timer(0.3, other.process.kill).start()

    began_at = time.monotonic()
    free = reserved(
        slots(gpus[:1]), Reservations(), say=said.append, stop=threading.Event(), timeout_s=None
    )

    assert [slot.name for slot in free] == ["gpu:0.0", "gpu:0.1"]
    assert 0.2 < time.monotonic() - began_at < 5
    assert said == [
        "waiting for a GPU; other runs of this host use all of them: "
        f"0 (process {other.process.pid})"
    ]


def test_the_wait_for_a_gpu_ends_with_the_run(gpus, other):
    stop = threading.Event()
    stop.set()

    with pytest.raises(RunInterrupted, match="stopped while it waited for a GPU"):
        reserved(slots(gpus[:1]), Reservations(), say=str, stop=stop, timeout_s=None)
    with pytest.raises(RunInterrupted, match=r"0.1 s are over, and no GPU has become free"):
        reserved(slots(gpus[:1]), Reservations(), say=str, stop=threading.Event(), timeout_s=0.1)


def test_slots_of_a_cpu_are_nobodys():
    cpu = [Slot(name="cpu:0", device="cpu")]

    free = reserved(cpu, Reservations(), say=pytest.fail, stop=threading.Event(), timeout_s=None)

    assert free == cpu
