"""No configuration twice while a small space holds another, whoever asks and when."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from hpo.database.connection import connect
from hpo.search.finite import key_of, untried
from hpo.tickets.budget import Tickets
from objectives import Int
from tests.support.program import Command, Program
from tests.support.studies import trials

UID = "00000000-0000-4000-8000-000000000000"
SMALL = '''
"""A weight, searched over few values."""
from objectives import Choice, Int
from objectives.quadratic import Quadratic, QuadraticTask

class Small(Quadratic):
    name = "small"
    spaces = {"wide": {"lr": Choice(choices=(0.01, 0.1, 1), default=0.01),
                       "curvature": Int(low=1, high=5, default=1)}}

    def build(self, params, context):
        return QuadraticTask(params, context)

objective = Small()
'''


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return ("--objective", str(path), "--study_name", "s", "--epochs_per_trial", "1")


@pytest.mark.acceptance
@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_two_workers_try_each_configuration_once(
    program: Program, url: str, small: tuple[str, ...], tmp_path: Path, sampler: str
):
    enqueued = tmp_path / "first.json"
    enqueued.write_text(json.dumps([{"lr": 1, "curvature": 3}]))

    ran = program(
        *(*small, "--n_trials", "15", "--workers", "2", "--sampler", sampler),
        *("--pruner", "none", "--enqueue", str(enqueued)),
    )

    assert ran.returncode == 0, ran.stderr
    found = [tuple(t.params.values()) for t in trials(url, "s")]
    assert len(found) == len(set(found)) == 15
    assert found[0] == (0.01, 1)
    assert "default configuration (the first trial)" in ran.stdout


def test_more_trials_than_configurations_are_refused_unless_repeats_are_allowed(
    command: Command, program: Program, url: str, small: tuple[str, ...]
):
    few = (*small, "--set", "curvature=2", "--workers", "1", "--pruner", "none")

    refused = command(*few, "--n_trials", "4")
    usual = command(*small)
    none = command("studies", "--json")
    ran = program(*few, "--n_trials", "3")
    grown = command(*few, "--n_trials", "4")
    same = program(*few)
    allowed = program(*few, "--n_trials", "4", "--allow_repeats")

    assert refused.returncode == usual.returncode == grown.returncode == 2
    assert "3 configurations for 4 trials" in refused.stderr
    assert "15 configurations for 50 trials" in usual.stderr
    assert json.loads(none.stdout) == []
    assert "write --n_trials 3, or --allow_repeats" in grown.stderr
    assert ran.returncode == same.returncode == allowed.returncode == 0, allowed.stderr
    assert "3 configurations for 4 trials" in allowed.stderr
    assert len({tuple(t.params.values()) for t in trials(url, "s")[:3]}) == 3


def test_of_workers_that_ask_at_the_same_moment_no_two_get_the_same(url: str):
    space, tickets = {"n": Int(low=1, high=8, default=1)}, Tickets(connect(url), UID)
    tickets.grow(9)
    together = Barrier(8)

    def ask(ticket: int):
        own = Tickets(connect(url), UID)
        together.wait()

        def choose(others):
            known = {key_of(params, space) for params in others}
            return untried({"n": 1}, space, known, seed=ticket)

        return own.queue.reserve(ticket, choose)

    with ThreadPoolExecutor(8) as pool:
        found = [one["n"] for one in pool.map(ask, range(1, 9))]
    again = ask_alone(tickets)

    assert sorted(found) == list(range(1, 9))
    assert again == {"n": found[0]}


def ask_alone(tickets: Tickets):
    """Ask for the first ticket again, as a worker that resumes it."""
    return tickets.queue.reserve(1, lambda _: pytest.fail("it has one already"))
