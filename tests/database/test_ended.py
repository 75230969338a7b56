"""What SQL says of a study's ended trials is what its trials say."""

from __future__ import annotations

import math
import random
from collections import Counter

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.database import ended
from hpo.database.connection import connect
from hpo.database.ends import Ends
from hpo.database.storage import open_storage
from hpo.guard import verdict
from hpo.search.hopeless import has_failed, hopeless
from hpo.study import outcomes, table
from hpo.study.config import StudyConfig
from hpo.study.request import DEFAULTS, usual
from hpo.study.resolve import settled
from hpo.study.study import OpenStudy
from objectives import load

_SPACE = {
    "batch": IntDistribution(1, 4),
    "kind": CategoricalDistribution(["a", 1, True, None]),
    "rate": FloatDistribution(0.0, 1.0),
}
_REASONS = ("pruner", "oom", *verdict.NONFINITE, "-")


def config() -> StudyConfig:
    wanted = {**DEFAULTS, **usual(on_gpu=False)}
    return settled(load("quadratic"), "quadratic", wanted, n_trials=1)


def some_trial(rng: random.Random, number: int) -> FrozenTrial:
    """A trial with any state, values, attributes and failures."""
    params = {
        "batch": rng.randint(1, 4),
        "kind": rng.choice(_SPACE["kind"].choices),
        "rate": rng.random(),
    }
    # One batch fails whenever it is tried.
    state = rng.choice(list(TrialState))
    state = TrialState.FAIL if params["batch"] == 1 and state.is_finished() else state
    for name in rng.sample(list(params), rng.choice((0, 0, 1, 3))):
        del params[name]
    user = {"prune_reason": rng.choice(_REASONS), "gpu_seconds": rng.choice((0.0, 1.5, 1e-3))}
    user |= rng.choice(({}, {"run_uid": "r"}, {"run_uid": "r", "rerun_of": 1}))
    user |= rng.choice(({}, {"prune_detail": "ended from outside"}, {"traceback": "t"}))
    if rng.random() < 0.2:
        user.pop("prune_reason")
    system = rng.choice(({}, {"hpo:attempt": 0}, {"hpo:lost": True}, {"hpo:attempt": 2}))
    system |= rng.choice(({}, {"constraints:nonfinite": rng.choice((0.0, 1.0))}))
    if params.get("batch") == 1 and state == TrialState.FAIL:
        user["traceback"] = "t"
    system |= rng.choice(({}, {"fixed_params": {}}, {"fixed_params": {}, "hpo:enqueued": True}))
    values = (0.5, 0.25, math.inf, -math.inf, rng.random())
    return create_trial(
        state=state,
        value=rng.choice(values) if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: _SPACE[name] for name in params},
        user_attrs=user,
        system_attrs=system,
        intermediate_values={step: rng.random() for step in range(rng.randint(0, 3))},
    )


@pytest.fixture(params=range(3))
def opened(request, url: str) -> OpenStudy:
    """A study of 80 trials of any kind, and another study."""
    rng = random.Random(request.param)
    direction = rng.choice(("minimize", "maximize"))
    study = optuna.create_study(study_name="s", storage=url, direction=direction)
    other = optuna.create_study(storage=url)
    study.set_user_attr("study_uid", "u")
    for number in range(80):
        study.add_trial(some_trial(rng, number))
        other.add_trial(some_trial(rng, number))
    storage = open_storage(connect(url))
    return OpenStudy(name="s", uid="u", study_id=study._study_id, config=config(), storage=storage)


def in_memory(opened: OpenStudy) -> optuna.Study:
    """The same study without a database, for what is decided in Python."""
    loaded = opened.load()
    study = optuna.create_study(direction=loaded.direction)
    study.set_user_attr("study_uid", "u")
    for trial in loaded.get_trials():
        study.add_trial(trial)
    return study


def test_counts_are_those_of_the_trials(opened):
    trials = [one for one in opened.load().get_trials() if one.state.is_finished()]

    groups = ended.read(opened.storage.engine, opened.study_id, ended.Snapshot.groups)

    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for one in groups:
        counts[outcomes.outcome_of(one)] += one.count
        seconds[outcomes.outcome_of(one)] += one.gpu_seconds
    expected: Counter[str] = Counter()
    for one in trials:
        expected[outcomes.outcome(one)] += one.user_attrs["gpu_seconds"]
    assert list(counts.items()) == list(Counter(map(outcomes.outcome, trials)).items())
    assert seconds == pytest.approx(expected)
    assert outcomes.as_budget(groups).ended == len(trials)
    reruns = [one for one in trials if "rerun_of" in one.user_attrs]
    assert sum(one.count for one in groups if one.is_rerun) == len(reruns)


def test_an_attribute_of_another_program_is_no_number(opened):
    opened.load().add_trial(create_trial(value=1.0, user_attrs={"gpu_seconds": "long"}))

    assert ended.read(opened.storage.engine, opened.study_id, ended.Snapshot.groups)


# Read one at a time, the best one is reached after some that do not count.
@pytest.mark.parametrize(("first", "part"), [(16, 1000), (1, 2)])
def test_the_best_trial_and_the_remark_are_those_of_the_trials(opened, monkeypatch, first, part):
    monkeypatch.setattr(ended, "_FIRST", first)
    monkeypatch.setattr(ended, "_PART", part)
    expected = outcomes.best_and_remark(in_memory(opened))

    found = outcomes.best_and_remark(opened.load())

    assert (found[0] and found[0].number, found[1]) == (
        expected[0] and expected[0].number,
        expected[1],
    )


def test_hopeless_values_and_single_trials_are_those_of_the_trials(opened):
    trials = opened.load().get_trials()
    over = [one for one in trials if one.state.is_finished()]

    found = ended.read(
        opened.storage.engine,
        opened.study_id,
        lambda found: (
            outcomes.hopeless_values(found),
            outcomes.divergences(found),
            outcomes.default_trial(found),
            found.last(),
            found.last(has_failed=True),
            found.numbered(7),
            found.numbered(80),
            found.failures(),
            list(found.params()),
        ),
    )

    assert found[0] == hopeless(over) != []
    assert found[1] == {
        one.number: one.user_attrs["prune_reason"]
        for one in trials
        if one.user_attrs.get("prune_reason") in verdict.NONFINITE
    }
    default = next(filter(outcomes.is_default, trials), None)
    assert (found[2] and found[2].number) == (default and default.number)
    assert found[3:7] == (
        trials[-1],
        [one for one in trials if one.state == TrialState.FAIL][-1],
        trials[7],
        None,
    )
    assert found[7] == sum(map(has_failed, trials))
    assert sorted(found[8], key=repr) == sorted((t.params for t in trials if t.params), key=repr)


def test_the_table_has_a_row_for_each_trial_and_the_columns_of_all(opened):
    trials = opened.load().get_trials()

    rows = table.trial_rows(opened)

    assert [row["number"] for row in rows] == [one.number for one in trials]
    params = dict.fromkeys(f"params_{name}" for one in trials for name in one.params)
    attributes = dict.fromkeys(f"user_attrs_{name}" for one in trials for name in one.user_attrs)
    assert list(rows[0]) == [
        *("number", "state", "value", "epochs", *params, *attributes),
        *("datetime_start", "datetime_complete"),
    ]
    for row, one in zip(rows, trials):
        assert row["value"] == one.value and row["epochs"] == one.last_step
        assert {k: v for k, v in row.items() if k in params and v is not None} == {
            f"params_{name}": value for name, value in one.params.items() if value is not None
        }
    assert table.trials_csv(opened) == table.csv_of(rows)


def test_a_study_without_a_trial_has_no_table(url):
    study = optuna.create_study(study_name="s", storage=url)
    opened = OpenStudy(
        name="s",
        uid="u",
        study_id=study._study_id,
        config=config(),
        storage=open_storage(connect(url)),
    )

    assert table.trial_rows(opened) == []
    assert table.trials_csv(opened) == ""
    assert outcomes.best_and_remark(opened.load()) == (None, None)


def test_trials_that_end_are_seen_once_each_in_the_order_of_their_ends(url):
    study = optuna.create_study(study_name="s", storage=url)
    db, ends = connect(url), Ends()

    def look() -> list[int]:
        seen = ended.read(db, study._study_id, ends.read)
        # A reading whose answer was lost is repeated, and finds the same.
        assert seen == ended.read(db, study._study_id, ends.read)
        ends.note(seen)
        return [one.number for one in seen.new]

    study.add_trial(create_trial(value=1.0))
    assert look() == []
    first, second, third = study.ask(), study.ask(), study.ask()
    assert look() == []
    study.tell(third, 1.0)
    study.tell(first, state=TrialState.FAIL)
    assert look() == [third.number, first.number]
    assert look() == []
    fourth = study.ask()
    study.tell(second, 2.0)
    study.tell(fourth, 2.0)
    assert look() == [second.number, fourth.number]
    with pytest.raises(KeyError):
        ended.read(db, study._study_id + 1, ends.read)


def test_a_renamed_study_brings_the_trials_that_ended_meanwhile(url):
    study = optuna.create_study(study_name="s", storage=url)
    for value in (1.0, 2.0):
        study.add_trial(create_trial(value=value))
    db, ends = connect(url), Ends()
    ends.note(ended.read(db, study._study_id, ends.read))

    study.add_trial(create_trial(value=3.0))
    optuna.copy_study(
        from_study_name="s", from_storage=url, to_storage=url, to_study_name="renamed"
    )
    renamed = optuna.load_study(study_name="renamed", storage=url)
    seen = ended.read(db, renamed._study_id, ends.read)
    ends.note(seen)
    again = ended.read(db, renamed._study_id, ends.read)

    assert [one.value for one in seen.new] == [3.0]
    assert again.new == []
