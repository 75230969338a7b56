"""The output of a run at a terminal, in a log, and for programs."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpo.display.console import duration
from hpo.display.run import _cost
from hpo.fleet.tally import Tally
from hpo.tickets.budget import Budget
from hpo.tickets.leases import Lease
from hpo.tickets.spent import Spent
from tests.support.forked import EXECUTED
from tests.support.program import ROOT, Command, Program

RUN = ("--objective", "quadratic", "--epochs_per_trial", "2", "--workers", "1")


def at_a_terminal(program: Program, *args: str) -> str:
    """The program's output on a terminal of 100 columns, without its control sequences."""
    ours, theirs = pty.openpty()
    with EXECUTED(
        [sys.executable, "-m", "hpo", *args],
        env={**program.environment, "TERM": "xterm", "COLUMNS": "100"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            # The other end is closed: the program has ended.
            pass
        os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.acceptance
def test_a_terminal_shows_the_running_trials_as_they_go(program: Program, slow: Path):
    shown = at_a_terminal(program, "--objective", str(slow), "--n_trials", "3", "--workers", "1")

    assert "workers are starting" in shown
    # Device, trial, epoch of 12, step of 96, metric.
    assert re.search(r"cpu:0 +\d +\d+/12 +\d+/96 +\d", shown)
    assert re.search(r"\d/3 trials .* left", shown)
    assert "best 0." in shown


@pytest.mark.acceptance
def test_programs_get_json_and_the_quiet_nothing(
    program: Program, command: Command, tmp_path: Path
):
    quiet = program(*RUN, "--n_trials", "1", "--quiet", "--json")
    logged = program(*RUN, "--n_trials", "2", "--log_json")
    verbose = program(*RUN, "--n_trials", "3", "--verbose")
    table = command("status", "--export_csv", str(tmp_path / "trials.csv"), "--json")

    assert quiet.stderr == ""
    result = json.loads(quiet.stdout)
    assert result["budget"]["complete"] == 1
    assert set(result["best"]["params"]) == {"lr", "curvature"}
    events = [json.loads(line) for line in logged.stderr.splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"
    assert {"trial", "progress"} <= {event["event"] for event in events}
    assert all(event["at"].endswith("Z") for event in events)
    (ended,) = (event for event in events if event["event"] == "trial")
    assert ended["number"] == 1
    assert re.search(r"^trial 2 (complete|pruner|\w+_nonfinite).*lr ", verbose.stderr, re.MULTILINE)
    assert json.loads(table.stdout)["configuration"]["epochs_per_trial"] == 2
    with (tmp_path / "trials.csv").open(newline="") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["0", "1", "2"]


@pytest.mark.acceptance
def test_studies_are_listed_and_a_watch_ends_with_its_study(program: Program, command: Command):
    # The second would be markup, and an emoji, to who prints it without care.
    ran = [
        program(*RUN, "--n_trials", "1", "--study_name", name) for name in ("first", "[/red]x :b:")
    ]

    listed = json.loads(command("studies", "--json").stdout)
    table = command("studies").stdout
    watched = command("status", "--study_name", "first", "--watch")

    assert [one.returncode for one in ran] == [0, 0], ran[1].stderr
    assert "study       [/red]x :b:" in ran[1].stdout
    assert [line["name"] for line in listed] == ["[/red]x :b:", "first"]
    assert all(line["budget"]["complete"] == 1 for line in listed)
    assert "[/red]x :b:" in table
    assert watched.returncode == 0
    assert "1 of 1 ended" in watched.stdout


@pytest.mark.acceptance
def test_the_best_is_saved_as_a_file_that_can_be_tried_again(
    finished: Callable[[str], Program], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    program = finished("quadratic")
    command = Command(program.environment, capsys)
    path = tmp_path / "best.json"

    saved = command("best", "--save", str(path))
    program(
        *RUN,
        "--n_trials",
        "2",
        "--epochs_per_trial",
        "4",
        "--study_name",
        "b",
        "--enqueue",
        str(path),
    )

    assert saved.returncode == 0
    given = json.loads(path.read_text())
    best = json.loads(command("best", "--study_name", "b", "--json").stdout)
    # The better one of the default, which was among those before, and the best of them itself.
    assert best["params"] == given["params"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (161, "2 min 41 s"),
        (3600, "1 h 00 min"),
        (11_100, "3 h 05 min"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, said: str):
    assert duration(seconds) == said


def lease(ticket: int, *, epoch: int, held_s: float) -> Lease:
    return Lease(
        **{"ticket": ticket, "trial_number": 0, "worker": "w", "host": "h", "process": "m:1:2"},
        **{"slot": "cpu:0", "silent_s": 0.0, "held_s": held_s, "epoch": epoch, "epochs": 12},
        **{"step": 8 * epoch, "steps": 96, "value": 1.0},
    )


def test_a_trials_time_is_its_pace_and_not_its_start():
    tally = Tally(slots=2)

    # 30 s to start, then 2 s an epoch.
    first = tally.trial_s([lease(1, epoch=1, held_s=32.0)])
    second = tally.trial_s([lease(1, epoch=4, held_s=38.0)])
    left_s = tally.left_s(Budget(open=9, leased=2), [lease(1, epoch=4, held_s=38.0)])

    assert first is None
    assert second == pytest.approx(24.0)
    # Nine whole trials and two halves on two slots.
    assert left_s == pytest.approx(10 * 24.0 / 2)


@pytest.mark.parametrize(
    ("spent", "said"),
    [
        (Spent(hours=0.05), ""),
        (Spent(hours=0.05, max_hours=2), "; 0.05 of 2 hours in all"),
        (Spent(hours=3, gpu_hours=6), "; 6.00 GPU hours, 3.00 hours in all"),
    ],
)
def test_the_end_of_a_run_says_what_a_study_cost_where_that_is_much(spent: Spent, said: str):
    assert _cost(spent) == said
