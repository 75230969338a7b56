"""The program as its users run it: a real process, a real database, real signals."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import optuna
import psycopg2
import pytest
from optuna.trial import TrialState

from hpo.embedded import server
from tests.support.processes import children, kill_all, wait_until
from tests.support.program import ROOT, Program

QUADRATIC = ("--objective", "quadratic", "--epochs_per_trial", "4")
STUDY = "quadratic-wide-tiny"
ATTRIBUTES = [
    *("prune_reason", "prune_detail", "precision", "worker", "seconds", "gpu_seconds"),
    *("skipped_steps", "run_uid", "seed", "git_sha"),
]

# An objective of a file: slow enough to be interrupted, and told by a file what to do.
SLOW = '''
"""One weight, slowly."""
import os, signal, time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

class SlowTask(QuadraticTask):
    def batch(self, step):
        time.sleep(0.02)
        return super().batch(step)

class Slow(Quadratic):
    name = "slow"
    def build(self, params, context):
        return SlowTask(params, context)

objective = Slow()
'''


def trials(url: str, study: str = STUDY) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=url).get_trials()


def states(url: str, study: str = STUDY) -> dict[str, int]:
    names = [trial.state.name for trial in trials(url, study)]
    return {name: names.count(name) for name in set(names)}


def begun(url: str, study: str) -> int:
    """How many trials a study has, asked cheaply enough to be asked often."""
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name = %s",
            [study],
        )
        return cursor.fetchone()[0]
    except psycopg2.errors.UndefinedTable:
        return 0
    finally:
        connection.close()


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    return path


def test_a_run_ends_with_exactly_its_trials_and_a_larger_one_goes_on(program: Program, url: str):
    password = url.split(":")[2].split("@")[0]

    first = program(*QUADRATIC, "--n_trials", "8", "--workers", "2", "--sampler", "auto")
    fewer = program(*QUADRATIC, "--n_trials", "5")
    more = program("run", "--study_name", STUDY, "--n-trials", "11", "--workers", "2")
    found = json.loads(program("best", "--json").stdout)

    assert (first.returncode, fewer.returncode, more.returncode) == (0, 0, 0), first.stderr
    assert "8 of 8 trials done" in first.stderr
    # A weight and its curvature are two numbers.
    assert "tpe, pruner" in first.stderr
    assert "resumed, 8 trials done" in fewer.stderr
    assert "has 8 trials already" in fewer.stderr
    assert "all of its trials are done" in fewer.stderr
    assert "11 of 11 trials done" in more.stderr
    ended = trials(url)
    assert len(ended) == 11
    assert {t.state for t in ended} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(t.value is None or math.isfinite(t.value) for t in ended)
    assert "best trial" in first.stdout
    assert "default configuration" in first.stdout
    assert "python -m hpo dashboard" in first.stdout
    best = optuna.load_study(study_name=STUDY, storage=url).best_trial
    assert (found["trial"], found["value"], found["params"]) == (
        *(best.number, best.value),
        best.params,
    )
    # Of all checkpoints the best one's is left.
    files = [path.name for path in (program.home / "checkpoints").rglob("*") if path.is_file()]
    assert files == [f"trial_{best.number:05d}.pt"]
    assert files[0] in more.stdout
    logs = list((program.home / "logs").rglob("*.log"))
    assert logs
    assert "***" in first.stdout
    for text in (first.stdout, first.stderr, *(log.read_text() for log in logs)):
        assert password not in text


def test_every_trial_is_explained_by_its_attributes(program: Program, url: str):
    program(*QUADRATIC, "--n_trials", "12", "--workers", "1")

    ended = trials(url)
    assert all(list(t.user_attrs) == ATTRIBUTES for t in ended)
    assert all(t.user_attrs["run_uid"] and t.user_attrs["worker"].endswith("cpu:0") for t in ended)
    diverged = [t for t in ended if t.user_attrs["prune_reason"].endswith("_nonfinite")]
    # A learning rate above 2 / curvature diverges: half of the space on its log scale.
    assert diverged
    for trial in ended:
        nonfinite = trial.system_attrs["constraints:nonfinite"]
        assert nonfinite == (1.0 if trial in diverged else 0.0)
        assert trial.value is None or abs(trial.value) < math.inf
    assert all("distance" in t.user_attrs["prune_detail"] for t in diverged)
    assert all(t.state == TrialState.PRUNED for t in diverged)


def test_one_worker_and_a_seed_give_the_same_study_interrupted_or_not(
    program: Program, url: str, slow: Path
):
    def arguments(name: str) -> tuple[str, ...]:
        return (
            *("--objective", str(slow), "--study_name", name, "--n_trials", "13"),
            *("--workers", "1", "--epochs_per_trial", "3", "--seed", "5"),
        )

    def content(name: str) -> list[object]:
        return [
            (t.params, t.state, t.value, t.intermediate_values, t.user_attrs["prune_reason"])
            for t in trials(url, name)
        ]

    whole = program(*arguments("whole"))
    assert whole.returncode == 0, whole.stderr
    process = program.start(*arguments("cut"))
    wait_until(lambda: begun(url, "cut") > 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    killed = program.start(*arguments("cut"))
    wait_until(lambda: begun(url, "cut") > 11)
    kill_all(killed.pid)
    killed.communicate(timeout=60)
    last = program(*arguments("cut"))

    assert process.returncode == 130
    assert last.returncode == 0, last.stderr
    assert content("cut") == content("whole")


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(program: Program, url: str, slow: Path):
    command = ("--objective", str(slow), "--study_name", "s", "--n_trials", "6", "--workers", "2")
    process = program.start(*command)
    wait_until(lambda: begun(url, "s") >= 2)

    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)
    after = program(*command)

    assert process.returncode == 130
    assert "the same command goes on from here" in output[1]
    assert "Traceback" not in output[1]
    assert after.returncode == 0
    assert sum(states(url, "s").values()) == 6
    assert "RUNNING" not in states(url, "s")


def test_kill_9_of_everything_loses_nothing(program: Program, url: str, slow: Path):
    command = ("--objective", str(slow), "--study_name", "s", "--n_trials", "6", "--workers", "2")
    process = program.start(*command)
    wait_until(lambda: begun(url, "s") >= 3)

    kill_all(process.pid)
    process.communicate(timeout=60)
    after = program(*command)

    assert after.returncode == 0, after.stderr
    assert sum(states(url, "s").values()) == 6
    assert "RUNNING" not in states(url, "s")


def test_workers_end_when_the_process_that_started_them_is_killed(
    program: Program, url: str, slow: Path
):
    process = program.start("--objective", str(slow), "--study_name", "s", "--n_trials", "50")
    wait_until(lambda: begun(url, "s") >= 1)
    workers = children(process.pid)

    process.kill()
    process.communicate(timeout=60)

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


def test_a_configuration_that_kills_every_worker_is_given_up_after_five(
    program: Program, url: str, tmp_path: Path
):
    path = tmp_path / "deadly.py"
    path.write_text(SLOW.replace("time.sleep(0.02)", "os.kill(os.getpid(), signal.SIGKILL)"))

    ran = program(
        "--objective", str(path), "--study_name", "s", "--n_trials", "1", "--workers", "1"
    )

    assert ran.returncode == 1
    (trial,) = trials(url, "s")
    assert trial.state == TrialState.FAIL
    assert "lost its worker 5 times" in trial.user_attrs["prune_detail"]


def test_an_outage_of_the_database_is_waited_out(tmp_path: Path, slow: Path):
    home = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    home.chmod(0o755)
    program = Program(None, home)
    try:
        found = program("url").stdout.strip()
        command = ("--objective", str(slow), "--study_name", "s", "--n_trials", "4")
        process = program.start(*command, "--workers", "1")
        wait_until(lambda: begun(found, "s") >= 1)

        server.stop(home, immediate=True)
        time.sleep(3)
        server.start(home)
        output = process.communicate(timeout=120)
        ended = trials(found, "s")
    finally:
        program("stop", "--force")
        shutil.rmtree(home, ignore_errors=True)

    assert process.returncode == 0, output[1]
    assert "Traceback" not in output[1]
    assert len(ended) == 4
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in ended)


def test_ctrl_c_is_obeyed_while_the_database_is_away(tmp_path: Path, slow: Path):
    home = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    home.chmod(0o755)
    program = Program(None, home)
    try:
        found = program("url").stdout.strip()
        process = program.start("--objective", str(slow), "--study_name", "s", "--workers", "1")
        wait_until(lambda: begun(found, "s") >= 1)
        refused = program("stop")
        server.stop(home, immediate=True)
        time.sleep(1)

        process.send_signal(signal.SIGINT)
        asked_at = time.monotonic()
        output = process.communicate(timeout=60)
    finally:
        program("stop", "--force")
        shutil.rmtree(home, ignore_errors=True)

    assert refused.returncode == 2
    assert process.returncode == 130, output[1]
    # A worker has 30 s of grace; nobody waits out the 45 s of patience.
    assert time.monotonic() - asked_at < 20


def test_nohup_is_obeyed(program: Program, url: str, slow: Path):
    command = ("--objective", str(slow), "--study_name", "s", "--n_trials", "2")
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "hpo", *command],
        env=program.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: begun(url, "s") >= 1)

    process.send_signal(signal.SIGHUP)
    output = process.communicate(timeout=120)

    assert process.returncode == 0, output[1]


def test_a_run_in_which_every_trial_fails_has_failed(program: Program, tmp_path: Path):
    path = tmp_path / "raising.py"
    path.write_text(SLOW.replace("time.sleep(0.02)", 'raise ValueError("always")'))

    ran = program("--objective", str(path), "--n_trials", "2", "--workers", "1")

    assert ran.returncode == 1
    assert "all 2 trials failed, the last with: ValueError: always" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_setting_that_differs_from_the_studys_is_refused_and_both_are_named(program: Program):
    program(*QUADRATIC, "--n_trials", "1")

    refused = program(
        *("--objective", "quadratic", "--epochs_per_trial", "9", "--precision", "bf16"),
        *("--seed", "3", "--on_precision_range", "rerun"),
    )

    assert refused.returncode == 2
    for said in (
        *("--epochs_per_trial 4 (now 9)", "--precision fp32 (now bf16)", "--seed 0 (now 3)"),
        *("--on_precision_range prune (now rerun)", "--study_name", "--force"),
    ):
        assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_help_is_instant_and_imports_nothing_heavy(program: Program):
    shown = program("--help")
    bare = program()
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hpo", "--help"],
        capture_output=True,
        text=True,
        env=program.environment,
        check=True,
    ).stderr

    assert shown.returncode == bare.returncode == 0
    assert "python -m hpo --n_trials 50" in shown.stdout
    assert bare.stdout == shown.stdout
    assert not re.search(r"\b(torch|optuna|sqlalchemy|rich)\b", imported)


def test_the_url_can_be_given_to_other_programs(program: Program, url: str):
    assert program("url").stdout.strip() == url
    assert program("url", "--for", "psql").stdout.strip() == url.replace("+psycopg2", "")


def test_the_dashboard_shows_the_study_in_a_browser_on_this_host_alone(
    program: Program, tmp_path: Path
):
    browser = shutil.which("chromium")
    program(*QUADRATIC, "--n_trials", "3")
    process = program.start("dashboard", "--port", "0")
    try:
        address = re.match(r"http://127.0.0.1:\d+/", process.stderr.readline())[0]
        with urllib.request.urlopen(f"{address}api/studies") as answer:
            (study,) = json.load(answer)["study_summaries"]
        taken = program("dashboard", "--port", address.rstrip("/").rpartition(":")[2])
        assert study["study_name"] == STUDY
        assert taken.returncode == 2
        assert "is taken" in taken.stderr
        if browser is None:
            pytest.skip("no chromium here")
        page = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"),
                *("--virtual-time-budget=20000", "--dump-dom", f"{address}dashboard/studies/1"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
    finally:
        process.kill()
        process.communicate(timeout=60)

    assert STUDY in page
    assert "Best Trial" in page
    assert "prune_reason" in page or "distance" in page


def test_the_embedded_server_starts_by_itself_and_stops_only_when_nobody_works(
    tmp_path: Path, slow: Path
):
    program = Program(None, tmp_path / "home")
    try:
        process = program.start("--objective", str(slow), "--study_name", "s", "--workers", "1")
        found = program("url").stdout.strip()
        wait_until(lambda: begun(found, "s") >= 1)

        refused = program("stop")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        stopped = program("stop")
        again = program("stop")
        resumed = program("url").stdout.strip()
    finally:
        program("stop", "--force")

    assert refused.returncode == 2
    assert "cpu:0" in refused.stderr
    assert stopped.returncode == again.returncode == 0
    assert "not running" in again.stderr
    assert resumed == found
    assert not os.environ.get("HPO_STORAGE")
