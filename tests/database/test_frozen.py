"""Trials read by plain SQL are those that Optuna reads itself."""

from __future__ import annotations

import math

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.database import frozen
from hpo.database.connection import connect
from hpo.database.faults import is_outage
from hpo.database.storage import open_storage
from tests.support import servers

_SPACE = {
    "rate": FloatDistribution(1e-6, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0, step=0.25),
    "width": IntDistribution(1, 9, step=2),
    "layers": IntDistribution(1, 64, log=True),
    "any": CategoricalDistribution(["a", None, True, 1, 2.5, "é\n'\"%(x)s"]),
}
_PARAMS = {"width": 3, "rate": 0.1 + 0.2, "any": None, "share": 0.5, "layers": 2}


@pytest.fixture
def study(url: str) -> optuna.Study:
    """A study with trials of all states, and with every kind of value."""
    study = optuna.create_study(study_name="s", storage=url)
    for choice in _SPACE["any"].choices:
        params = {**_PARAMS, "any": choice}
        study.add_trial(
            create_trial(
                value=1 / 3,
                params=params,
                distributions={name: _SPACE[name] for name in params},
                user_attrs={"list": [1, {"a": [None]}], "short": "cpu", "none": None, "nan": [0.5]},
                system_attrs={"constraints:nonfinite": 0.0, "long": "x" * 500},
                intermediate_values={300: math.nan, 2: math.inf, 1: -math.inf, 0: 0.1},
            )
        )
    study.add_trial(create_trial(value=math.inf))
    study.add_trial(create_trial(value=-math.inf, params={"x": 1e-300}, distributions=_wide(-1)))
    study.add_trial(create_trial(value=2.0, params={"x": 1}, distributions=_wide(0)))
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: 3.0}))
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.enqueue_trial({"x": 0.25}, user_attrs={"by": "hand"})
    running = study.ask()
    study.enqueue_trial({"x": 0.75})
    running.suggest_float("x", 0, 1)
    running.report(5.0, 1)
    # An update moves its row behind those that were written later.
    for key in ("first", "second", "third", "first"):
        running.set_user_attr(key, key * 2)
        study._storage.set_trial_system_attr(running._trial_id, key, {"of": key})
    # Another study's trials are no part of it.
    optuna.create_study(study_name="other", storage=url).ask()
    return study


def _wide(low: int) -> dict[str, FloatDistribution]:
    return {"x": FloatDistribution(low, 1)}


def both(
    url: str, study: optuna.Study, *selection: object
) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Trials as this service reads them, and as Optuna does."""
    backend = open_storage(connect(url))._backend
    given = selection or (None, set(), -1)
    return (
        backend._get_trials(study._study_id, *given),
        RDBStorage._get_trials(backend, study._study_id, *given),
    )


def in_full(trial: FrozenTrial) -> dict[str, str]:
    """Every field in words, which tell the order of dicts, types, and NaN from NaN."""
    return {name: repr(value) for name, value in vars(trial).items()}


def test_every_field_and_its_order_is_as_optuna_reads_it(url, study):
    ours, optunas = both(url, study)

    assert {one.state for one in ours} == set(TrialState)
    assert list(map(in_full, ours)) == list(map(in_full, optunas))
    # NaN differs from itself, so that trials with one cannot be compared as they are.
    assert [a == b for a, b in zip(ours, optunas) if "nan" not in repr(b)] == [True] * 7


@pytest.mark.parametrize(
    ("states", "included", "above"),
    [
        (None, {2, 3, 8}, 5),
        (None, {2, 3}, 10_000),
        (None, set(), 4),
        (None, {1, 2}, -1),
        ((TrialState.COMPLETE, TrialState.WAITING), {1, 2}, 3),
        ((), set(), -1),
    ],
)
def test_a_selection_of_trials_is_the_one_that_optuna_makes(url, study, states, included, above):
    ours, optunas = both(url, study, states, included, above)

    assert list(map(in_full, ours)) == list(map(in_full, optunas))


def test_values_of_several_objectives_keep_their_places(url):
    study = optuna.create_study(storage=url, directions=["minimize", "maximize"])
    study.add_trial(create_trial(values=[1.0, math.inf]))

    ours, optunas = both(url, study)

    assert [one.values for one in ours] == [one.values for one in optunas] == [[1.0, math.inf]]


def test_a_study_that_is_gone_has_no_trials_and_an_empty_one_has_none(url):
    empty = optuna.create_study(storage=url)
    db = connect(url)

    assert frozen.read_trials(db, empty._study_id) == []
    with pytest.raises(KeyError):
        frozen.read_trials(db, empty._study_id + 1)


def test_a_change_of_one_trial_leaves_the_others(url, study):
    first, second, *_ = open_storage(connect(url))._backend.get_all_trials(
        study._study_id, deepcopy=False
    )
    before = in_full(second)

    first.user_attrs["list"].append("changed")
    first.params["width"] = 9
    first.distributions.clear()

    assert in_full(second) == before


def test_all_batches_are_of_one_snapshot(url, study, monkeypatch):
    monkeypatch.setattr(frozen, "_BATCH", 2)
    db = connect(url)
    count = len(frozen.read_trials(db, study._study_id))

    with frozen.snapshot(db) as connection:
        reading = frozen.read_batches(connection, study._study_id)
        found = next(reading)
        with connect(url).begin() as other:
            other.execute(sa.text("UPDATE trial_params SET param_value = 0.125"))
            other.execute(sa.text("DELETE FROM trial_intermediate_values"))
        found += [one for batch in reading for one in batch]

    assert len(found) == count
    assert not any(0.125 in one.params.values() for one in found)
    assert any(one.intermediate_values for one in found[2:])


def test_a_connection_that_breaks_while_trials_are_read_is_an_outage(
    server, url, study, monkeypatch
):
    monkeypatch.setattr(frozen, "_BATCH", 1)
    db = connect(url)

    with frozen.snapshot(db) as connection:
        reading = frozen.read_batches(connection, study._study_id)
        next(reading)
        servers.leave(server, url.rsplit("/", 1)[1])
        with pytest.raises(sa.exc.DBAPIError) as caught:
            next(reading)

    assert is_outage(caught.value)
    assert len(frozen.read_trials(db, study._study_id)) == 13
