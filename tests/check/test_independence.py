"""The check of what one trial leaves to the next, and of an interruption past a change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpo.check.rehearsal import rehearse
from tests.check.test_contract import SoundTask, an_objective, not_ok, rehearsed
from tests.support.toys import CPU

TRAINED: list[float] = []
CAUSE = "something outlives a trial"


class Thawing(SoundTask):
    """A network whose last layer learns from the fifth step on."""

    def __init__(self, params, context):
        super().__init__(params, context)
        self.net[2].requires_grad_(False)

    def batch(self, step):
        if step == 4:
            self.net[2].requires_grad_(True)
        return super().batch(step)


class Forgetful(SoundTask):
    """A task that trains on other data from the sixth batch on, which it counts itself."""

    def batch(self, step):
        self.seen += 1
        return self.draw(16, step if self.seen < 6 else 1000 + step)


class Haunted(SoundTask):
    """A task that depends on the rates of those that were trained before it in its process."""

    def __init__(self, params, context):
        super().__init__(params, context)
        self.lr, self.haunted = params["lr"], float(any(lr != 1e-2 for lr in TRAINED))

    def batch(self, step):
        TRAINED.append(self.lr)
        return super().batch(step)

    def forward(self, batch):
        return super().forward(batch) + self.haunted


class Careless(SoundTask):
    """A task that sets a default for itself, depending on a parameter."""

    def __init__(self, params, context):
        torch.set_default_dtype(torch.float64 if params["kind"] == "b" else torch.float32)
        super().__init__(params, context)
        self.net.float()

    def draw(self, count, seed):
        return {key: tensor.float() for key, tensor in super().draw(count, seed).items()}

    def validate(self):
        return {"error": self.error(7) + torch.ones(()).element_size()}


def detail(found, name: str) -> str:
    return next(finding.detail for finding in found.findings if finding.name == name)


def test_an_interruption_past_a_thaw_is_rehearsed_and_named(monkeypatch):
    found = rehearsed(an_objective(task=Thawing), monkeypatch)

    assert not_ok(found) == []
    assert "step 5, which changed requires_grad of 'net.2.weight'" in detail(found, "resumption")


def test_what_a_task_forgets_after_the_first_steps_is_warned_of(monkeypatch):
    found = rehearsed(an_objective(task=Forgetful), monkeypatch)

    assert ("resumption", "warning") in not_ok(found)


def test_what_outlives_a_trial_in_a_global_is_warned_of(monkeypatch):
    found = rehearsed(an_objective(task=Haunted), monkeypatch)

    assert not_ok(found) == [("independence", "warning")]
    assert CAUSE in detail(found, "independence")


def test_a_default_that_a_trial_sets_for_itself_reaches_no_other(monkeypatch):
    before = torch.get_default_dtype()

    found = rehearsed(an_objective(task=Careless), monkeypatch)

    assert not_ok(found) == []
    assert torch.get_default_dtype() == before


_FIRST = '''
"""The first trial of a process is another one."""
from tests.check.test_contract import Sound, SoundTask

BUILT = []

class FirstTask(SoundTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        BUILT.append(1)
        self.is_first = len(BUILT) == 1

    def forward(self, batch):
        return super().forward(batch) * (2 if self.is_first else 1)

class First(Sound):
    task = FirstTask

objective = First()
'''


@pytest.mark.acceptance
def test_a_trial_is_compared_with_itself_in_a_fresh_process(tmp_path: Path, monkeypatch):
    path = tmp_path / "first.py"
    path.write_text(_FIRST)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("PYTHONHASHSEED", "0")

    found = rehearse(str(path), epochs=2, precisions=("fp32",), device=CPU, in_fresh_process=True)

    assert not_ok(found) == [("independence", "warning")]
    assert "in a fresh process" in detail(found, "independence")
