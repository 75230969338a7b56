"""Seats: which deaths are taken lightly, and which retire a slot."""

from __future__ import annotations

import signal
import time

from hpo.errors import ConfigurationError
from hpo.fleet.seats import Seat
from hpo.launch.launcher import LOST
from hpo.machine.slots import Slot


def seat() -> Seat:
    return Seat(slot=Slot(name="cpu:0", device="cpu"))


def test_deaths_from_outside_never_retire_a_seat_and_back_off():
    one = seat()
    pauses = []

    for _ in range(30):
        one.note_end(-signal.SIGKILL, lived_s=1)
        pauses.append(one.starts_at - time.monotonic())

    assert not one.is_retired
    assert pauses[0] <= 0 < pauses[5] < pauses[-1] <= 15


def test_a_worker_that_lived_is_started_again_at_once():
    one = seat()
    for _ in range(5):
        one.note_end(-signal.SIGTERM, lived_s=1)

    one.note_end(-signal.SIGTERM, lived_s=100)

    assert one.starts_at <= time.monotonic()


def test_three_quick_deaths_by_itself_retire_a_seat():
    one = seat()
    ends = []

    for _ in range(3):
        one.note_end(1, lived_s=5)
        ends.append(one.is_retired)

    assert ends == [False, False, True]


def test_a_misconfigured_worker_retires_its_seat_at_once():
    one = seat()

    one.note_end(ConfigurationError.exit_code, lived_s=5)

    assert one.is_retired


def test_trials_that_end_their_workers_do_not_retire_a_seat_that_trains_others():
    one = seat()

    for _ in range(40):
        one.note_end(LOST, lived_s=5)
        one.note_end(LOST, lived_s=5)
        one.note_trained()

    assert not one.is_retired


def test_a_device_on_which_no_trial_survives_retires_its_seat():
    one = seat()

    for _ in range(10):
        one.note_end(LOST, lived_s=60)

    assert one.is_retired
