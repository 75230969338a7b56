"""The worker's copies of its checkpoints: in the background, the newest whole one, at a release."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from hpo.database.checkpoints import Origin
from hpo.engine import checkpoint_files
from hpo.errors import StopRequested
from hpo.study.objects import Objects
from hpo.tickets.ticket import Ticket
from hpo.worker import depot as depots
from hpo.worker.depot import Depot
from tests.support.processes import wait_until

UID = "0f0e0d0c-0000-4000-8000-000000000001"


class Held(Objects):
    """A store that takes a copy only once it is let go."""

    def __init__(self, url: str, study_uid: str) -> None:
        super().__init__(url, study_uid)
        self.is_asked, self.may_go = threading.Event(), threading.Event()

    def put(self, file: BinaryIO, origin: Origin, *, size: int, sha256: str) -> None:
        self.is_asked.set()
        assert self.may_go.wait(60)
        super().put(file, origin, size=size, sha256=sha256)


class Host:
    """A host with a folder of its own, and a worker's depot on the common store."""

    def __init__(self, store: Objects, folder: Path, *, grace_s: float = 60.0) -> None:
        self.store, self.folder, self.copied = store, folder, list[int]()
        self.ticket: Ticket | None = None
        self.depot = Depot(store, folder, grace_s=grace_s)

    def begin(self, attempt: int, *, steps: int = 1000) -> None:
        ticket = Ticket(
            **{"study_uid": UID, "run_uid": UID, "ticket": 1, "attempt": attempt},
            **{"losses": 0, "silences": 0, "cause": None, "trial_number": 17},
        )
        self.ticket = ticket
        self.path = checkpoint_files.file_of(self.folder, 17, attempt)
        self.depot.begin(ticket, 17, steps=steps, on_copied=self.copied.append)

    def save(self, step: int) -> None:
        """Write a checkpoint as the engine does."""
        self.folder.mkdir(exist_ok=True)
        torch.save({"step": step}, self.path)
        self.depot.note(step)

    def release(self) -> int | None:
        assert self.ticket is not None
        return self.depot.release(self.ticket)

    def bring(self) -> str | None:
        return self.depot.bring(threading.Event())

    def steps(self) -> list[int]:
        """The steps of the local files that this attempt would go on from, the latest first."""
        return [torch.load(file)["step"] for file in checkpoint_files.earlier(self.path)]

    def stored(self) -> list[tuple[int, int]]:
        return [(c.attempt, c.step) for c in self.store.copies(17, below=99, above=-1)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/objects"


@pytest.fixture
def one(url: str, tmp_path: Path) -> Host:
    return Host(Objects(url, UID), tmp_path / "one")


@pytest.fixture
def two(url: str, tmp_path: Path) -> Host:
    return Host(Objects(url, UID), tmp_path / "two")


def test_a_step_waits_for_no_copy(url: str, tmp_path: Path):
    host = Host(Held(url, UID), tmp_path / "one")
    host.begin(1)
    host.save(100)
    assert host.store.is_asked.wait(60)

    began = time.monotonic()
    for step in range(200, 300):
        host.depot.note(step)
    noted_s = time.monotonic() - began
    host.store.may_go.set()
    wait_until(lambda: host.copied == [100])

    # The store held its copy all the time.
    assert noted_s < 1.0
    assert host.stored() == [(1, 100)]


def test_the_first_checkpoint_goes_out_at_once_and_the_next_when_its_time_has_come(
    one: Host, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(one.store, "every_s", 0.5)
    one.begin(1)
    one.save(100)
    wait_until(lambda: one.copied == [100])
    began = time.monotonic()

    one.save(200)
    one.save(300)
    wait_until(lambda: len(one.copied) == 2)

    assert time.monotonic() - began > 0.4
    assert (one.copied, one.stored()) == ([100, 300], [(1, 300)])


def test_a_trial_that_is_given_back_leaves_its_last_checkpoint(one: Host, two: Host):
    one.begin(1)
    one.save(100)
    wait_until(lambda: one.copied == [100])
    # A copy is not due for a while.
    one.save(150)

    released = one.release()
    two.begin(2)
    lacking = two.bring()

    assert (released, lacking, two.steps()) == (150, None, [150])


@pytest.mark.parametrize("ended", [True, False])
def test_a_trial_that_has_no_checkpoint_yet_is_not_given_back_with_that_of_another(
    one: Host, ended: bool
):
    one.begin(1)
    one.save(100)
    wait_until(lambda: one.copied == [100])
    if ended:
        one.depot.end(17, 1, is_best=False, before=None)
    # The next trial is stopped before it begins to train; an attempt that lost its lease ends none.
    assert one.ticket is not None
    following = Ticket(**{**vars(one.ticket), "ticket": 2, "run_uid": UID.replace("1", "2")})

    assert one.depot.release(following) is None


def test_a_release_waits_for_a_store_no_longer_than_its_share_of_the_grace(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    host = Host(Held(url, UID), tmp_path / "one", grace_s=0.5)
    host.begin(1)
    host.save(100)
    host.save(200)
    began = time.monotonic()

    released = host.release()
    waited_s = time.monotonic() - began
    host.store.may_go.set()

    assert released is None
    assert 0.3 < waited_s < 10
    assert "was not copied" in caplog.text


def test_a_file_of_a_later_attempt_is_not_replaced_by_an_earlier_copy(one: Host, two: Host):
    one.begin(1)
    one.save(900)
    one.release()
    two.begin(2)
    two.save(50)
    two.begin(3)

    assert two.bring() is None
    assert two.steps() == [50]


def test_a_local_file_that_was_cut_off_gives_way_to_its_copy(one: Host):
    one.begin(1)
    one.save(100)
    one.release()
    whole = one.path.read_bytes()
    one.path.write_bytes(whole[: len(whole) // 2])
    one.begin(2)

    assert one.bring() is None
    assert one.steps() == [100]


@pytest.mark.parametrize("damage", ["cut off", "another's"])
def test_a_damaged_copy_is_passed_over_for_the_one_before(
    one: Host, two: Host, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
):
    one.begin(1)
    one.save(100)
    one.release()
    (name,) = (tmp_path / "objects" / UID).iterdir()
    later = name.with_name(name.name.replace("-1-100-", "-2-300-"))
    later.write_bytes(name.read_bytes()[:-10] if damage == "cut off" else b"no checkpoint")
    two.begin(3)

    lacking = two.bring()

    assert (lacking, two.steps()) == (None, [100])
    assert "1 copies" in caplog.text and "not whole" in caplog.text
    assert [path.name for path in two.folder.iterdir()] == ["trial_00017-1.pt"]


def test_objects_of_other_names_are_neither_read_nor_removed(one: Host, tmp_path: Path):
    one.begin(1)
    one.save(100)
    one.release()
    foreign = tmp_path / "objects" / UID / "notes.txt"
    foreign.write_text("mine")

    one.depot.sweep({17}, keep=None)
    wait_until(lambda: not one.stored())

    assert foreign.read_text() == "mine"


def test_an_outage_of_the_store_is_a_warning_and_the_copy_follows_it(
    one: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(depots, "_RETRY_S", 0.1)
    # A folder that cannot be made.
    (tmp_path / "objects").touch()
    one.begin(1)
    with caplog.at_level(logging.WARNING):
        one.save(100)
        wait_until(lambda: "training goes on" in caplog.text)
        time.sleep(0.5)
        (tmp_path / "objects").unlink()
        wait_until(lambda: one.copied == [100])

    assert caplog.text.count("training goes on") == 1
    assert caplog.text.count("takes checkpoints again") == 1


def test_a_store_that_stays_away_has_a_trial_start_over_and_say_so(
    two: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(depots, "_RETRY_S", 0.05)
    monkeypatch.setattr(two.store, "patience_s", 0.3)
    (tmp_path / "objects").touch()
    two.begin(2)

    lacking = two.bring()

    assert lacking is not None and "no copy can be had" in lacking


def test_a_stop_while_a_copy_is_awaited_does_not_start_the_trial_over(
    two: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "objects").touch()
    two.begin(2)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()

    with pytest.raises(StopRequested):
        two.depot.bring(stop)


def test_of_ended_trials_the_best_alone_keeps_a_copy(one: Host):
    one.begin(1, steps=200)
    one.save(100)
    wait_until(lambda: one.copied == [100])
    one.save(200)
    last = one.path.read_bytes()

    one.depot.end(17, 1, is_best=True, before=None)
    wait_until(lambda: one.stored() == [(1, 200)])
    (copy,) = one.store.copies(17, below=99, above=-1)
    kept = b"".join(copy.read())
    one.begin(1)
    one.save(10)
    one.release()
    one.begin(2)
    one.depot.end(17, 2, is_best=False, before=None)
    one.depot.close(threading.Event())

    assert kept == last
    assert one.stored() == []


def test_a_trial_that_needs_no_copy_makes_none(one: Host):
    # Only the best one's last checkpoint is of use to another host.
    one.begin(1, steps=100)
    one.save(100)

    one.depot.end(17, 1, is_best=False, before=None)
    one.depot.close(threading.Event())

    assert (one.copied, one.stored()) == ([], [])


def test_an_attempt_that_lost_its_trial_leaves_the_copies_to_the_next(one: Host):
    one.begin(1)
    one.save(100)
    wait_until(lambda: one.copied == [100])

    # Its lease was lost, and the worker ends another trial without training it.
    one.depot.end(18, 1, is_best=False, before=None)
    one.depot.close(threading.Event())

    assert one.stored() == [(1, 100)]
