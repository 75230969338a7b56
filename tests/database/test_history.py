"""The history of a study: the same columns as of Optuna's objects, read in parts or at once."""

from __future__ import annotations

import math
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from hpo.database.history import ABSENT, History, Rows
from hpo.database.history_reader import HistoryReader, best_number
from hpo.database.outside import ENDED_OUTSIDE
from hpo.database.storage import TrialStorage

RUNNING = TrialState.RUNNING.value


def reader_of(study: optuna.Study) -> HistoryReader:
    storage = study._storage
    assert isinstance(storage, TrialStorage)
    return HistoryReader(storage.engine, study._study_id)


def begin(study: optuna.Study, number: int) -> optuna.Trial:
    """A running trial, each with other parameters and attributes."""
    trial = study.ask()
    trial.suggest_float("x", -1, 1)
    trial.suggest_int("n", 1, 64, log=True)
    if number % 2:
        trial.suggest_categorical("c", ["a", "b|c", None])
    if number % 3 == 0:
        trial.suggest_float("y", 0, 1, step=0.1)
    for step in range(1, number + 1):
        trial.report([0.5, math.nan, math.inf, -math.inf][step % 4] * step, step)
    trial.set_user_attr("run_uid", "an | uid")
    if number == 4:
        trial.set_user_attr("rerun_of", 1)
    if number == 5:
        trial.set_user_attr("prune_detail", ENDED_OUTSIDE)
    return trial


def end(study: optuna.Study, trial: optuna.Trial, number: int) -> None:
    """End a trial in the state that its number asks for."""
    trial.set_constraint("nonfinite", float(number == 2))
    storage = study._storage
    storage.set_trial_system_attr(trial._trial_id, "hpo:attempt", number)
    if number % 4 == 2:
        study.tell(trial, state=TrialState.PRUNED)
    elif number % 4 == 3:
        trial.set_user_attr("traceback", "a | b\nc")
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, math.inf if number == 4 else number / 7)


def check_equal(read: History, expected: History) -> None:
    assert read.size == expected.size
    for name in read.rows.dtype.names or ():
        np.testing.assert_array_equal(read.rows[name], expected.rows[name], err_msg=name)
    assert set(read.params) == set(expected.params)
    for name, column in expected.params.items():
        np.testing.assert_array_equal(read.params[name].value, column.value)
    for number in range(read.size):
        assert read.params_of(number) == expected.params_of(number)
    assert {step: sorted(map(str, found)) for step, found in read.reports.items()} == {
        step: sorted(map(str, found)) for step, found in expected.reports.items()
    }
    assert read.rungs == expected.rungs


def test_the_columns_are_those_of_optunas_objects_however_they_are_read(study):
    growing = reader_of(study)
    begun = {}
    for number in range(8):
        begun[number] = begin(study, number)
        growing.refresh(running=number % 2 == 0)
        if number >= 2:
            # Trials end in another order than they began in.
            ended = number - 2 if number % 2 else number
            end(study, begun.pop(ended), ended)
    for number, trial in begun.items():
        end(study, trial, number)

    growing.refresh(running=True)
    at_once = reader_of(study)
    at_once.refresh(running=True)

    expected = History.of(study.get_trials())
    check_equal(at_once.history, expected)
    check_equal(growing.history, expected)


def test_running_trials_are_read_for_an_ask_alone(study):
    trial = begin(study, 1)
    reader = reader_of(study)

    reader.refresh(running=False)
    before = reader.history.params_of(0)
    reader.refresh(running=True)

    assert reader.history.rows["state"][0] == RUNNING
    assert before == {}
    assert reader.history.params_of(0) == trial.params


def test_of_running_trials_the_rungs_may_be_read_alone(study, storage):
    trial = begin(study, 1)
    storage.set_trial_system_attr(trial._trial_id, "completed_rung_0", 0.5)
    reader = reader_of(study)

    reader.refresh(running=False)
    before = dict(reader.history.rungs)
    reader.refresh(running=False, rungs=True)

    assert before == {}
    assert reader.history.rungs == {"completed_rung_0": {0: 0.5}}
    assert reader.history.params_of(0) == {}


def test_a_deleted_trial_leaves_the_columns_and_its_number_may_have_another(study, storage):
    begin(study, 1)
    reader = reader_of(study)
    reader.refresh(running=True)
    with storage.engine.begin() as connection:
        for table in ("params", "user_attributes", "system_attributes", "intermediate_values"):
            connection.exec_driver_sql(f"DELETE FROM trial_{table}")
        connection.exec_driver_sql("DELETE FROM trials")

    reader.refresh(running=True)
    gone = reader.history.rows["state"][0], reader.history.params_of(0)
    storage._forget(study._study_id, 0)
    again = begin(study, 0)
    reader.refresh(running=True)

    assert gone == (ABSENT, {})
    assert again.number == 0
    assert reader.history.params_of(0) == again.params


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_trial_is_one_that_a_worker_measured(storage, direction):
    study = optuna.create_study(study_name="s", storage=storage, direction=direction)
    sign = 1 if direction == "minimize" else -1
    for number, value in enumerate([3.0, 1.0, 2.0, 0.0, -1.0]):
        trial = study.ask()
        if number != 3:
            trial.set_user_attr("run_uid", "u")
        if number == 4:
            trial.set_constraint("nonfinite", 1.0)
        storage.set_trial_system_attr(trial._trial_id, "hpo:attempt", 1)
        study.tell(trial, sign * value)

    history = storage.history(study._study_id)

    is_max = direction == "maximize"
    assert best_number(history, maximize=is_max, but=7) == 1
    assert best_number(history, maximize=is_max, but=1) == 2


@pytest.mark.parametrize("odd", ["a | b", "||", None, True, [1, "x"], {"a": 1}, 10**30])
def test_what_other_programs_write_under_our_names_stops_no_worker(study, storage, odd):
    for number in range(3):
        trial = begin(study, number)
        for name in ("hpo:attempt", "hpo:lost", "completed_rung_0", "constraints:x"):
            storage.set_trial_system_attr(trial._trial_id, name, 1 if number else odd)
        for name in ("rerun_of", "traceback", "prune_detail"):
            trial.set_user_attr(name, 1 if number else odd)
        study.tell(trial, float(number))
    reader = reader_of(study)

    reader.refresh(running=True)

    assert list(reader.history.rows["attempt"][1:]) == [1, 1]
    assert list(reader.history.rows["infeasible"][1:]) == [1, 1]
    assert reader.history.rungs["completed_rung_0"][2] == 1.0


def test_equal_distributions_are_one_and_many_different_ones_cost_little():
    history, count = History(), 20_000
    texts = [distribution_to_json(FloatDistribution(0, 1 + i // 2)) for i in range(count)]
    texts += [distribution_to_json(CategoricalDistribution([1, math.nan]))] * 2
    numbers = [*range(len(texts))]
    history.add([Rows("trial", "COMPLETE", "", numbers, numbers)])

    began = time.process_time()
    history.add(Rows("param", "x", text, [i], [0.5]) for i, text in enumerate(texts))

    # Compared with one another they took 70 s.
    assert time.process_time() - began < 10
    assert len(history.distributions) == count // 2 + 1
