"""Checkpoints: one file for each attempt, of which the newest whole one is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.engine import checkpoint_files
from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.errors import StopRequested
from tests.support.toys import CPU, Log, ToyTask


def plan(folder: Path, attempt: int) -> Plan:
    return Plan(
        epochs=3,
        precision="fp32",
        device=CPU,
        metric="error",
        checkpoint=checkpoint_files.file_of(folder, 17, attempt),
    )


def stop_after(steps: int, folder: Path, attempt: int) -> None:
    """Train as an attempt that is stopped after so many steps of its own."""
    with pytest.raises(StopRequested):
        engine.train(ToyTask(), plan(folder, attempt), Log(stop_after=steps))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_attempt_goes_on_from_the_file_of_the_last_one_and_leaves_its_own(tmp_path: Path):
    expected = engine.train(ToyTask(), plan(tmp_path / "whole", 1), Log()).value
    tmp_path = tmp_path / "resumed"
    stop_after(7, tmp_path, 1)
    before = names(tmp_path)
    log = Log()

    result = engine.train(ToyTask(), plan(tmp_path, 2), log)

    assert before == ["trial_00017-1.pt"]
    assert [epoch.step for epoch in log.epochs] == [10, 20, 30]
    assert result.value == expected
    assert names(tmp_path) == ["trial_00017-2.pt"]


def test_a_late_file_of_a_lost_worker_harms_neither_its_successors_nor_what_is_resumed(
    tmp_path: Path,
):
    stop_after(3, tmp_path, 1)
    late = (tmp_path / "trial_00017-1.pt").read_bytes()
    stop_after(20, tmp_path, 2)
    successors = (tmp_path / "trial_00017-2.pt").read_bytes()
    # The lost worker comes back, and writes what it had.
    (tmp_path / "trial_00017-1.pt").write_bytes(late)
    log = Log()

    engine.train(ToyTask(), plan(tmp_path, 3), log)

    assert late != successors
    # The second attempt had reached step 23.
    assert [epoch.step for epoch in log.epochs] == [30]


@pytest.mark.parametrize("damage", [b"", b"half of a file"])
def test_a_damaged_file_is_passed_over_for_the_one_before(tmp_path: Path, damage: bytes):
    stop_after(12, tmp_path, 1)
    (tmp_path / "trial_00017-2.pt").write_bytes(damage)
    log = Log()

    engine.train(ToyTask(), plan(tmp_path, 3), log)

    assert [epoch.step for epoch in log.epochs] == [20, 30]


def test_the_file_of_an_earlier_version_counts_as_the_first_attempt(tmp_path: Path):
    stop_after(12, tmp_path, 1)
    (tmp_path / "trial_00017-1.pt").rename(tmp_path / "trial_00017.pt")
    log = Log()

    engine.train(ToyTask(), plan(tmp_path, 1), log)

    assert checkpoint_files.file_of(tmp_path, 17, 0).name == "trial_00017.pt"
    assert [epoch.step for epoch in log.epochs] == [20, 30]
    assert names(tmp_path) == ["trial_00017-1.pt"]


def test_other_trials_and_later_attempts_are_not_looked_at(tmp_path: Path):
    for name in ("trial_00016-1.pt", "trial_00017-4.pt", "trial_00017-2.pt", "trial_00017.pt"):
        (tmp_path / name).touch()

    found = checkpoint_files.earlier(tmp_path / "trial_00017-3.pt")

    assert [path.name for path in found] == ["trial_00017-2.pt", "trial_00017.pt"]


def test_of_ended_trials_the_best_ones_winner_alone_is_left(tmp_path: Path):
    for name in (
        *("trial_00001-1.pt", "trial_00002-1.pt", "trial_00002-2.pt", "trial_00002.pt"),
        *(".trial_00002-2.pt.17-0a1b2c3d.tmp", ".trial_00002-1.pt.17.tmp"),
        *("trial_00003-1.pt", ".trial_00003-1.pt.17-0a1b2c3d.tmp", "notes.txt"),
    ):
        (tmp_path / name).touch()

    checkpoint_files.sweep(tmp_path, {1, 2}, keep=(2, 2))

    assert names(tmp_path) == [
        *(".trial_00003-1.pt.17-0a1b2c3d.tmp", "notes.txt"),
        *("trial_00002-2.pt", "trial_00003-1.pt"),
    ]
