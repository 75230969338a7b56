"""A run's view of its study is the same whether it reads all trials or those that ended since."""

from __future__ import annotations

import random
from statistics import fmean

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.database.storage import open_storage
from hpo.fleet.watch import Watch
from hpo.search.hopeless import hopeless
from hpo.study import study as studies
from hpo.study.outcomes import best_trial, outcome
from hpo.study.request import DEFAULTS, usual
from hpo.study.resolve import settled
from hpo.study.study import OpenStudy
from objectives import load


@pytest.fixture
def opened(url: str) -> OpenStudy:
    wanted = {**DEFAULTS, **usual(on_gpu=False)}
    config = settled(load("quadratic"), "quadratic", wanted, n_trials=9)
    storage = open_storage(connect(url))
    create_tables(storage.engine)
    return studies.create(storage, "s", config)


def tried(opened: OpenStudy, rng: random.Random) -> int:
    """Begin and end a trial as a worker does; return its number."""
    study = optuna.load_study(study_name="s", storage=opened.storage)
    trial = study.ask({"batch": IntDistribution(1, 4)})
    measured = {"run_uid": "r", "seconds": rng.choice((0.0, 2.0, 9.0))}
    state = rng.choice((TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED))
    if trial.params["batch"] == 1:
        state, measured["traceback"] = TrialState.FAIL, "t"
    measured["prune_reason"] = rng.choice(("oom", "pruner")) if state is TrialState.PRUNED else "-"
    if rng.random() < 0.3:
        measured["prune_detail"] = "ended from outside"
    for name, value in measured.items():
        trial.set_user_attr(name, value)
    study.tell(trial, rng.random() if state is TrialState.COMPLETE else None, state=state)
    return trial.number


@pytest.mark.parametrize("before", [0, 30])
def test_a_watch_from_the_start_and_one_from_now_on_see_the_same(opened, before):
    rng = random.Random(1)
    for _ in range(before):
        tried(opened, rng)
    watch = Watch(opened, slots=2)

    assert list(watch.look(opened)) == []
    for _ in range(12):
        numbers = [tried(opened, rng) for _ in range(rng.randint(0, 4))]
        new = watch.look(opened)
        trials = opened.load().get_trials()

        assert [one.number for one in new] == numbers
        pruned = [outcome(one) for one in trials if one.state is TrialState.PRUNED]
        assert watch.tally.reasons == {reason: pruned.count(reason) for reason in set(pruned)}
        assert list(watch.tally.hopeless) == hopeless(trials)
        best = best_trial(opened.load())
        assert (watch.best and watch.best.number) == (best and best.number)
        seconds = [one.user_attrs["seconds"] for one in trials[-20:] if one.user_attrs["seconds"]]
        assert watch.tally.trial_s([]) == (pytest.approx(fmean(seconds)) if seconds else None)
    assert [str(one) for one in watch.tally.hopeless] == ["batch=1"]


def test_a_look_reads_the_trials_that_ended_since_and_no_other(opened):
    rng = random.Random(2)
    for _ in range(5):
        tried(opened, rng)
    watch = Watch(opened, slots=1)
    watch.look(opened)
    ids: list[int] = []

    def note(_connection, _cursor, statement, parameters, *_):
        if "trial_params" in statement:
            ids.extend(parameters["ids"])

    number = tried(opened, rng)
    sa.event.listen(opened.storage.engine, "before_cursor_execute", note)
    new = watch.look(opened)
    watch.look(opened)

    assert [one.number for one in new] == [number]
    assert ids == [new[0]._trial_id]


def test_a_watch_of_a_study_that_is_gone_says_so(opened):
    watch = Watch(opened, slots=1)
    watch.look(opened)

    optuna.delete_study(study_name="s", storage=opened.storage)

    with pytest.raises(KeyError):
        watch.look(opened)
