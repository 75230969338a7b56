"""A run and its workers, interrupted and killed: nothing is lost, and the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import children, kill_all, wait_until
from tests.support.program import HANGS_S, ROOT, Program
from tests.support.studies import SLOW, Held, states, trials

pytestmark = pytest.mark.acceptance


def test_one_worker_and_a_seed_give_the_same_study_interrupted_or_not(
    program: Program, url: str, held: Held
):
    def arguments(name: str) -> tuple[str, ...]:
        return (
            *("--objective", str(held.path), "--study_name", name, "--n_trials", "13"),
            *("--workers", "1", "--epochs_per_trial", "3", "--seed", "5"),
        )

    def content(name: str) -> list[object]:
        return [
            (t.params, t.state, t.value, t.intermediate_values, t.user_attrs["prune_reason"])
            for t in trials(url, name)
        ]

    whole = program(*arguments("whole"))
    assert whole.returncode == 0, whole.stderr
    # In its third trial, and in its twelfth, which the sampler has drawn from the others.
    held.hold(held.built + 3)
    process = program.start(*arguments("cut"))
    wait_until(held.is_holding)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANGS_S)
    held.hold(held.built + 10)
    killed = program.start(*arguments("cut"))
    wait_until(held.is_holding)
    kill_all(killed.pid)
    killed.communicate(timeout=HANGS_S)
    begun = len(trials(url, "cut"))
    held.let_go()
    last = program(*arguments("cut"))

    assert process.returncode == 130
    assert begun == 12
    assert last.returncode == 0, last.stderr
    assert content("cut") == content("whole")


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(program: Program, url: str, held: Held):
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "6")
    held.hold(2, 3, 4)
    process = program.start(*command, "--workers", "2")
    wait_until(held.is_holding)

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=HANGS_S)
    held.let_go()
    after = program(*command, "--workers", "2")

    assert process.returncode == 130
    assert "the same command goes on from here" in output[1]
    assert "Traceback" not in output[1]
    assert after.returncode == 0
    assert sum(states(url, "s").values()) == 6
    assert "RUNNING" not in states(url, "s")


def test_kill_9_of_everything_loses_nothing(program: Program, url: str, held: Held):
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "6")
    held.hold(3, 4, 5)
    process = program.start(*command, "--workers", "2")
    wait_until(held.is_holding)

    kill_all(process.pid)
    process.communicate(timeout=HANGS_S)
    held.let_go()
    after = program(*command, "--workers", "2")

    assert after.returncode == 0, after.stderr
    assert sum(states(url, "s").values()) == 6
    assert "RUNNING" not in states(url, "s")


def test_workers_end_when_the_process_that_started_them_is_killed(program: Program, held: Held):
    held.hold(*range(1, 50))
    process = program.start("--objective", str(held.path), "--study_name", "s", "--n_trials", "50")
    wait_until(held.is_holding)
    workers = children(process.pid)

    process.kill()
    process.communicate(timeout=HANGS_S)

    assert workers
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


def test_a_worker_that_dies_is_replaced_and_its_trial_goes_on(
    program: Program, url: str, tmp_path: Path
):
    once = tmp_path / "once"
    path = tmp_path / "fragile.py"
    path.write_text(
        SLOW.replace(
            "time.sleep(0.02)",
            f"if step == 5 and not Path({str(once)!r}).exists():\n"
            f"            Path({str(once)!r}).touch()\n"
            "            os.kill(os.getpid(), signal.SIGKILL)",
        )
    )

    ran = program("--objective", str(path), "--study_name", "s", "--n_trials", "3")

    assert ran.returncode == 0, ran.stderr
    assert "another takes over its trial" in ran.stderr
    assert states(url, "s") == {"COMPLETE": 3} or sum(states(url, "s").values()) == 3
    assert "RUNNING" not in states(url, "s")


def test_nohup_is_obeyed(program: Program, held: Held):
    command = ("--objective", str(held.path), "--study_name", "s", "--n_trials", "2")
    held.hold(1)
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "hpo", *command, "--workers", "1"],
        env=program.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(held.is_holding)

    process.send_signal(signal.SIGHUP)
    held.let_go()
    output = process.communicate(timeout=HANGS_S)

    assert process.returncode == 0, output[1]
