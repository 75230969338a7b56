"""The best trial is one that a worker measured; others are named, not taken."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpo.study.outcomes import best_trial, is_default, left_out, outcome

MEASURED = {"prune_reason": "-", "prune_detail": "-", "run_uid": "r"}
TOLD = {**MEASURED, "prune_detail": "ended from outside"}
ADDED: dict[str, str] = {}


def study_of(
    *trials: tuple[float, dict[str, str]], direction: str = "minimize", is_ours: bool = True
) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    if is_ours:
        study.set_user_attr("study_uid", "u")
    for value, attributes in trials:
        study.add_trial(create_trial(value=value, user_attrs=attributes))
    return study


@pytest.mark.parametrize("others", [TOLD, ADDED])
@pytest.mark.parametrize(("direction", "better"), [("minimize", -9.0), ("maximize", 9.0)])
def test_a_better_value_from_outside_is_named_and_left_out(others, direction, better):
    study = study_of((0.5, MEASURED), (better, others), (0.7, MEASURED), direction=direction)

    best = best_trial(study)

    assert best is not None
    assert best.value == (0.5 if direction == "minimize" else 0.7)
    assert left_out(study) == f"trial 1 has {better:g}, told from outside: it is left out"


def test_a_worse_value_from_outside_needs_no_word():
    study = study_of((0.5, MEASURED), (1.0, TOLD))

    assert best_trial(study).number == 0
    assert left_out(study) is None


def test_a_study_without_a_measured_trial_has_no_best_one():
    study = study_of((0.5, TOLD))

    assert best_trial(study) is None
    assert left_out(study) == "trial 0 has 0.5, told from outside: it is left out"
    assert (best_trial(study_of()), left_out(study_of())) == (None, None)


def test_of_two_equal_values_the_first_is_the_best():
    study = study_of((0.0, ADDED), (0.5, MEASURED), (0.5, MEASURED))

    assert best_trial(study).number == 1


def test_an_infeasible_trial_is_not_the_best_one():
    study = study_of((0.0, ADDED), (0.9, MEASURED))
    infeasible = create_trial(value=0.5, user_attrs=MEASURED)
    infeasible.set_constraint("nonfinite", 1.0)
    study.add_trial(infeasible)

    assert best_trial(study).number == 1


def test_a_value_is_known_as_told_before_the_worker_of_its_trial_has_noted_it():
    study = study_of((0.5, MEASURED))
    for value, attempt in ((0.4, 3), (0.3, 0)):
        study.add_trial(
            create_trial(value=value, user_attrs=MEASURED, system_attrs={"hpo:attempt": attempt})
        )

    assert best_trial(study).number == 1
    assert left_out(study) == "trial 2 has 0.3, told from outside: it is left out"


def test_another_programs_study_keeps_its_best_trial():
    study = study_of((0.5, ADDED), (0.7, ADDED), is_ours=False)

    assert best_trial(study).number == 0
    assert left_out(study) is None


def test_a_trial_that_another_program_pruned_or_completed_is_told_apart():
    pruned = create_trial(state=TrialState.PRUNED, user_attrs=ADDED)
    fixed = {"fixed_params": {"lr": 1.0}}
    queued = create_trial(value=1.0, user_attrs=ADDED, system_attrs=fixed)
    default = create_trial(value=1.0, user_attrs=MEASURED, system_attrs=fixed)

    assert outcome(pruned) == "outside"
    assert [is_default(trial) for trial in (queued, default)] == [False, True]
