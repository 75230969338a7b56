"""A killed host's trial goes on elsewhere: from a folder, from objects, from the database."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import psycopg2
import pytest

from hpo.engine import trial as engine
from tests.support.processes import kill_all, wait_until
from tests.support.program import Program

pytestmark = pytest.mark.acceptance

# Its end depends on every step: on Adam's moments, and on a noise of its own for each.
_NOISY = '''
"""One weight with noise, slowly."""
import time
import torch
from objectives.quadratic import Quadratic, QuadraticTask

class NoisyTask(QuadraticTask):
    def optimizer(self):
        return torch.optim.Adam(self.groups[0].parameters, lr=0.05)

    def batch(self, step):
        time.sleep({step_s})
        return self._one + 0.5 * torch.randn(1, 1)

class Noisy(Quadratic):
    name = "noisy"
    def build(self, params, context):
        return NoisyTask(params, context)

objective = Noisy()
'''
_FLAGS = ("--study_name", "s", "--n_trials", "1", "--workers", "1", "--pruner", "none")


def objective(folder: Path, *, step_s: float) -> str:
    """The file of the objective, with steps of this length."""
    path = folder / "noisy.py"
    path.write_text(_NOISY.format(step_s=step_s))
    return str(path)


def value(url: str) -> float:
    return optuna.load_study(study_name="s", storage=url).trials[0].value


def saved_step(url: str) -> int:
    """The step from which another host can go on; 0 for none."""
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(max(saved_step), 0) FROM hpo.leases")
            return cursor.fetchone()[0]
    finally:
        connection.close()


def log_of(host: Program) -> str:
    return "".join(path.read_text() for path in host.home.rglob("worker-*.log"))


@pytest.fixture
def undisturbed(empty_url: str, tmp_path: Path) -> float:
    host = Program(empty_url, tmp_path / "alone")
    ran = host(*_FLAGS, "--objective", objective(tmp_path, step_s=0.0))
    assert ran.returncode == 0, ran.stderr
    return value(empty_url)


@pytest.mark.parametrize("place", ["{folder}/shared", "file://{folder}/objects", "database", None])
def test_a_killed_hosts_trial_goes_on_where_its_checkpoint_is_in_reach(
    place: str | None, url: str, undisturbed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Forks of this process write checkpoints as often.
    monkeypatch.setattr(engine, "_CHECKPOINT_EVERY_S", 1.0)
    flags = ("--checkpoint_dir", place.format(folder=tmp_path)) if place else ()
    one, two = (Program(url, tmp_path / name) for name in ("one", "two"))
    slow = objective(tmp_path, step_s=0.05)

    running = one.start(*_FLAGS, *flags, "--objective", slow)
    wait_until(lambda: saved_step(url))
    kill_all(running.pid)
    running.communicate()
    saved = saved_step(url)
    objective(tmp_path, step_s=0.0)
    ran = two(*_FLAGS, *flags, "--objective", slow)

    assert ran.returncode == 0, ran.stderr
    assert abs(value(url) - undisturbed) < 1e-6
    log = log_of(two)
    begun = min(int(step) for step in re.findall(r"epoch (\d+)", log)) - 1
    if place is None:
        assert f"it starts over: its checkpoint of step {saved} is not in" in log
        assert begun == 0
    else:
        assert "starts over" not in log
        # A file may be a second newer than what a beat has noted of it.
        assert begun >= saved // 8 > 0
