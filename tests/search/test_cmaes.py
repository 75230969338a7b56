"""CMA-ES without pickles: Optuna's proposals to the bit, and nothing of a database is executed."""

from __future__ import annotations

import json
import pickle
import uuid

import optuna
import pytest
from optuna.samplers import CmaEsSampler, RandomSampler
from optuna.trial import TrialState

from hpo.database.connection import connect
from hpo.database.storage import open_storage
from hpo.errors import ConfigurationError
from hpo.search.cmaes import PlainCmaEs, refuse_pickles
from hpo.search.samplers import InformedSampler
from hpo.tickets.budget import Tickets
from tests.database.test_storage import begin

PICKLED, PLAIN = CmaEsSampler, PlainCmaEs


def made(kind: type[CmaEsSampler], seed: int) -> CmaEsSampler:
    return kind(
        seed=seed, independent_sampler=RandomSampler(seed=seed), warn_independent_sampling=False
    )


def step(
    study: optuna.Study, ticket: int, kind: type[CmaEsSampler], *, viewed: bool = False
) -> optuna.Trial:
    """Ask as a worker does, with a sampler of its own."""
    sampler = made(kind, 1000 + ticket)
    study.sampler = InformedSampler(sampler) if viewed else sampler
    return asked(study.ask())


def asked(trial: optuna.Trial) -> optuna.Trial:
    trial.suggest_float("x", 1e-4, 1e-1, log=True)
    trial.suggest_float("y", -1, 1)
    trial.suggest_int("n", 2, 60)
    trial.suggest_categorical("kind", ["a", "b"])
    return trial


def value(trial: optuna.Trial) -> float:
    p = trial.params
    return (p["x"] - 0.02) ** 2 + p["y"] ** 2 + abs(p["n"] - 20) / 30 + (p["kind"] == "b")


def searched(kind: type[CmaEsSampler], n: int, *, sign: int = 1) -> optuna.Study:
    study = optuna.create_study(direction="minimize" if sign > 0 else "maximize")
    for ticket in range(n):
        trial = step(study, ticket, kind)
        if ticket % 7 == 5:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, sign * value(trial))
    return study


def points(study: optuna.Study) -> list[dict]:
    return [trial.params for trial in study.get_trials()]


@pytest.mark.parametrize("sign", [1, -1], ids=["minimize", "maximize"])
def test_its_proposals_are_optunas_to_the_bit(sign: int):
    # With three numbers a generation has 7 trials, so that 70 have 8 or 9.
    plain, pickled = (searched(kind, 70, sign=sign) for kind in (PLAIN, PICKLED))

    assert points(plain) == points(pickled)
    assert max(t.system_attrs.get("cma:generation", 0) for t in plain.trials) >= 7


def test_proposals_at_the_same_time_are_optunas_too():
    studies = [optuna.create_study() for _ in range(2)]
    for study, kind in zip(studies, (PLAIN, PICKLED), strict=True):
        open_trials = []
        for ticket in range(60):
            open_trials.append(step(study, ticket, kind))
            # Three run at once, and the youngest ends first now and then.
            if len(open_trials) == 3:
                trial = open_trials.pop(0 if ticket % 2 else -1)
                study.tell(trial, value(trial))

    assert points(studies[0]) == points(studies[1])


def test_what_it_stores_is_plain_numbers():
    attributes = [t.system_attrs for t in searched(PLAIN, 30).trials]

    assert not any(key.startswith("cma:optimizer") for one in attributes for key in one)
    told = [one["hpo:cma_told"] for one in attributes if "hpo:cma_told" in one]
    assert len(told) >= 3
    assert json.loads(json.dumps(told)) == told


class Trap:
    """An object that fails the test where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle of the database was loaded",))


def copied(study: optuna.Study, **attributes: object) -> optuna.Study:
    """A copy of a study with other system attributes on the trials that have them."""
    other = optuna.create_study()
    for trial in study.get_trials():
        if trial.state == TrialState.COMPLETE:
            changed = {k: v for k, v in attributes.items() if k in trial.system_attrs}
            trial.system_attrs = {**trial.system_attrs, **changed}
            other.add_trial(trial)
    return other


@pytest.mark.parametrize("viewed", [False, True], ids=["bare", "viewed"])
def test_a_study_with_pickles_goes_on_and_none_is_loaded(viewed: bool):
    trap = pickle.dumps(Trap()).hex()
    study = copied(searched(PICKLED, 30), **{"cma:optimizer:0": trap})
    generation = max(t.system_attrs.get("cma:generation", 0) for t in study.trials)
    assert any(t.system_attrs.get("cma:optimizer:0") == trap for t in study.trials)

    trials = []
    for ticket in range(30, 50):
        trials.append(step(study, ticket, PLAIN, viewed=viewed))
        study.tell(trials[-1], value(trials[-1]))

    reached = [t.system_attrs["cma:generation"] for t in study.trials[-20:]]
    assert reached[0] >= generation >= 3
    assert reached[-1] >= generation + 2


@pytest.mark.parametrize(
    "told",
    [
        "text",
        {"generation": "0", "solutions": []},
        {"generation": 0, "solutions": [[0.5, 0.5, 0.5, 1.0]]},
        {"generation": 0, "solutions": [["a", 0.5, 0.5, 1.0]] * 7},
        {"generation": 0, "solutions": [[0.5, 1e40, 0.5, 1.0]] * 7},
        {"generation": 0, "solutions": [[0.5, float("nan"), 0.5, 1.0]] * 7},
        {"generation": 0, "solutions": [[0.5, 0.5, 1.0]] * 7},
    ],
    ids=["no record", "no number", "too few", "texts", "too large", "not finite", "two numbers"],
)
def test_a_record_that_another_program_wrote_is_passed_over(told: object):
    study = copied(searched(PLAIN, 30), **{"hpo:cma_told": told})

    trial = step(study, 30, PLAIN)

    assert set(trial.params) == {"x", "y", "n", "kind"}


def test_it_goes_on_where_a_parameter_is_no_longer_searched():
    study = searched(PLAIN, 30)
    for ticket in range(30, 40):
        study.sampler = made(PLAIN, ticket)
        trial = study.ask()
        trial.suggest_float("x", 1e-4, 1e-1, log=True)
        trial.suggest_float("y", -1, 1)
        study.tell(trial, 1.0)

    assert all(trial.state.is_finished() for trial in study.trials)


@pytest.mark.acceptance
def test_in_postgresql_it_is_the_same(url: str):
    storage = open_storage(connect(url))
    study = optuna.create_study(study_name="s", storage=storage)
    tickets = Tickets(connect(url), str(uuid.uuid4()))
    tickets.grow(24)
    for ticket in range(24):
        study.sampler = made(PLAIN, 1000 + ticket)
        taken = tickets.take(worker="w", slot="cpu:0")
        assert taken is not None
        trial = begin(storage, study, taken)
        asked(trial)
        if ticket % 7 == 5:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value(trial))

    assert points(study) == points(searched(PICKLED, 24))


def test_optunas_own_as_a_users_sampler_is_refused():
    with pytest.raises(ConfigurationError, match="write --sampler cmaes"):
        refuse_pickles(CmaEsSampler())
    refuse_pickles(RandomSampler())
    refuse_pickles(made(PLAIN, 0))
