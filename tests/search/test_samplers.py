"""The samplers: they learn from divergence, and no value of a study is invented for it."""

from __future__ import annotations

import logging
import math
import uuid
import warnings
from collections.abc import Callable

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from hpo.database.connection import connect
from hpo.database.storage import open_storage
from hpo.search.sampler_view import without_superseded
from hpo.search.samplers import RERUN_OF, SAMPLERS, UNTRAINED, InformedSampler, resolve
from hpo.tickets.budget import Tickets
from objectives import Choice, Float
from tests.database.test_storage import begin
from tests.support.columns import some_trials, study_of

# A genetic sampler reads complete trials alone, too; a small population has generations.
ALL: dict[str, Callable[[int], BaseSampler]] = {
    **SAMPLERS,
    "nsgaii": lambda seed: InformedSampler(NSGAIISampler(seed=seed, population_size=8)),
}
UNTRAINED_VALUE = 1.0


def outcome(x: float, y: float) -> float | None:
    """A bowl whose lowest point lies near the half that diverges; None if the trial does."""
    return None if x > 0.5 else (x - 0.4) ** 2 + (y - 0.5) ** 2


def search(
    name: str,
    *,
    seed: int = 0,
    n_trials: int = 24,
    as_failed: bool = False,
    sign: int = 1,
    has_columns: bool = False,
) -> optuna.Study:
    """A study in memory, one sampler an ask as the service does it."""
    direction = "minimize" if sign > 0 else "maximize"
    study = study_of([], has_columns=has_columns, direction=direction)
    for ticket in range(n_trials):
        study.sampler = ALL[name](1000 * seed + ticket)
        run(study, study.ask(), as_failed=as_failed, sign=sign)
    return study


def run(study: optuna.Study, trial: optuna.Trial, *, as_failed: bool = False, sign: int = 1):
    """Run a trial as a worker does; a diverged one has reported once."""
    value = outcome(trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1))
    study._storage.set_trial_system_attr(trial._trial_id, UNTRAINED, sign * UNTRAINED_VALUE)
    trial.report(sign * 0.9, 1)
    # Hyperband founds its brackets here.
    trial.should_prune()
    if value is not None:
        trial.set_constraint("nonfinite", 0.0)
        study.tell(trial, sign * value)
    elif as_failed:
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_constraint("nonfinite", 1.0)
        study.tell(trial, state=TrialState.PRUNED)


def points(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in study.trials]


def diverged(study: optuna.Study) -> list[bool]:
    return [outcome(**trial.params) is None for trial in study.trials]


@pytest.fixture(scope="module")
def studies() -> dict[str, optuna.Study]:
    return {name: search(name) for name in ALL}


@pytest.mark.acceptance
# Not the genetic sampler: its children come of parents that did not diverge, however recorded.
@pytest.mark.parametrize(
    ("name", "seeds", "n_trials"), [("tpe", 8, 48), ("gp", 1, 24), ("cmaes", 8, 48)]
)
def test_divergence_is_avoided_as_it_is_not_where_it_counts_as_a_failure(name, seeds, n_trials):
    ours, control = (
        [diverged(search(name, seed=s, n_trials=n_trials, as_failed=f)) for s in range(seeds)]
        for f in (False, True)
    )

    half = n_trials // 2
    early, late = (sum(sum(d[part]) for d in ours) for part in (slice(half), slice(half, None)))
    assert late < early
    assert late < sum(sum(d[half:]) for d in control)


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ALL)
def test_the_study_holds_what_was_told_and_nothing_else(name, studies):
    for trial in studies[name].trials:
        told = outcome(**trial.params)
        # Of a pruned trial Optuna itself keeps the last report as the value.
        assert trial.value == (0.9 if told is None else told)
        assert trial.state == (TrialState.PRUNED if told is None else TrialState.COMPLETE)
        assert trial.constraints == {"nonfinite": float(told is None)}


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_study(name, studies):
    assert points(search(name)) == points(studies[name])


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ALL)
def test_maximizing_mirrors_minimizing(name, studies):
    assert points(search(name, sign=-1)) == points(studies[name])


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ALL)
def test_a_study_in_postgresql_is_the_one_in_memory(name, studies, url):
    storage = open_storage(connect(url))
    study = optuna.create_study(study_name="s", storage=storage)

    tickets = Tickets(connect(url), str(uuid.uuid4()))
    # 14: beyond the 10 that most samplers draw at random.
    tickets.grow(14)
    for ticket in range(14):
        study.sampler = ALL[name](ticket)
        taken = tickets.take(worker="w", slot="cpu:0")
        assert taken is not None
        run(study, begin(storage, study, taken))

    assert points(study) == points(studies[name])[:14]


@pytest.mark.parametrize("name", ALL)
def test_trials_of_other_programs_do_no_harm(name):
    study = search(name, n_trials=12)
    where = {name: FloatDistribution(0, 1) for name in ("x", "y")}
    plain = optuna.create_trial(params={"x": 0.1, "y": 0.1}, distributions=where, value=0.3)
    # As Optuna wrote constraints up to version 4.
    limited = optuna.create_trial(
        params={"x": 0.2, "y": 0.2},
        distributions=where,
        value=1e3,
        system_attrs={"constraints": [-1.0, 2.0]},
    )
    study.add_trials([plain, limited])

    study.sampler = ALL[name](99)
    run(study, study.ask())

    assert study.trials[-1].state in (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.mark.parametrize("name", [name for name in ALL if name != "gp"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_storage_with_columns_changes_no_proposal(name, sign):
    plain, columns = (
        points(search(name, n_trials=32, sign=sign, has_columns=one)) for one in (False, True)
    )

    assert plain == columns


def test_the_gaussian_process_needs_no_columns():
    plain, columns = (points(search("gp", n_trials=12, has_columns=one)) for one in (False, True))

    assert plain == columns


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_cmaes_finds_the_same_space_in_columns(seed, count):
    trials = some_trials(seed, count, is_dynamic=True)
    spaces = []
    for has_columns in (True, False):
        study = study_of(trials, has_columns=has_columns)
        asked = study.ask()._cached_frozen_trial
        spaces.append(SAMPLERS["cmaes"](0).infer_relative_search_space(study, asked))

    assert list(spaces[0].items()) == list(spaces[1].items())


@pytest.mark.parametrize("name", ALL)
def test_a_bracket_of_hyperband_is_searched_as_any_study(name):
    study = optuna.create_study(pruner=HyperbandPruner(min_resource=1, max_resource=3))
    for ticket in range(12):
        study.sampler = ALL[name](ticket)
        run(study, study.ask())

    assert all(trial.state.is_finished() for trial in study.trials)


@pytest.mark.parametrize("name", ALL)
def test_a_category_is_searched_without_a_warning(name):
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = heard.append
    study = optuna.create_study()
    logging.getLogger("optuna").addHandler(listener)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ticket in range(12):
            study.sampler = ALL[name](ticket)
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            trial.suggest_categorical("kind", ["a", "b"])
            trial.set_constraint("nonfinite", 0.0)
            study.tell(trial, 1.0)
    logging.getLogger("optuna").removeHandler(listener)

    assert [r.getMessage() for r in heard if r.levelno >= logging.WARNING] == []
    assert {trial.params["kind"] for trial in study.trials} == {"a", "b"}


def test_cmaes_which_proposes_numbers_alone_learns_a_category_too():
    study = optuna.create_study()
    for ticket in range(40):
        study.sampler = SAMPLERS["cmaes"](ticket)
        trial = study.ask()
        x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", "b"])
        study.tell(trial, x + (kind == "b"))

    # By chance 15 or more of 20 come with p = 2 %.
    assert [trial.params["kind"] for trial in study.trials[20:]].count("a") >= 15


class Witness(BaseSampler):
    """A sampler that keeps what it was shown."""

    def infer_relative_search_space(self, study, trial):
        self.shown: list[FrozenTrial] = study.get_trials(deepcopy=False)
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return param_distribution.low


def shown(study: optuna.Study, *, reads_pruned: bool = False) -> dict[int, FrozenTrial]:
    """The numbers of the ended trials that a sampler is shown."""
    witness = Witness()
    study.sampler = InformedSampler(witness, reads_pruned=reads_pruned)
    study.ask({"x": FloatDistribution(0, 1)})
    return {trial.number: trial for trial in witness.shown if trial.state.is_finished()}


def add(
    study: optuna.Study,
    value: float | None = None,
    *,
    diverged: bool = False,
    untrained: float | None = None,
    reports: dict[int, float] | None = None,
    rerun_of: object = None,
    state: TrialState | None = None,
    **system_attrs: object,
) -> None:
    """Add an ended trial."""
    ended = state or (TrialState.COMPLETE if value is not None else TrialState.PRUNED)
    noted = {} if untrained is None else {UNTRAINED: untrained}
    study.add_trial(
        optuna.create_trial(
            state=ended,
            value=value,
            params={"x": 0.5},
            distributions={"x": FloatDistribution(0, 1)},
            intermediate_values=reports or {},
            user_attrs={} if rerun_of is None else {RERUN_OF: rerun_of},
            system_attrs={**noted, **system_attrs},
            constraints={"nonfinite": float(diverged)},
        )
    )


def test_a_diverged_trial_is_shown_infeasible_at_its_untrained_networks_value():
    study = optuna.create_study()
    add(study, 0.1, untrained=7.0)
    add(study, diverged=True, untrained=5.0, reports={1: 0.2})

    seen = shown(study)

    assert (seen[1].state, seen[1].value) == (TrialState.COMPLETE, 5.0)
    assert seen[1].constraints == {"nonfinite": 1.0}
    assert study.trials[1].state == TrialState.PRUNED


@pytest.mark.parametrize(
    ("untrained", "direction", "expected"),
    [
        ((4.0, 6.0, 9.0), "minimize", 6.0),
        ((math.nan, None, 8.0), "minimize", 8.0),
        ((None, None, None), "minimize", 3.0),
        ((None, None, None), "maximize", 1.0),
        # Worse than untrained is what training itself came to.
        ((2.0, 2.0, 2.0), "minimize", 3.0),
        ((2.0, 2.0, 2.0), "maximize", 1.0),
    ],
)
def test_where_nobody_noted_that_value_it_is_the_median_and_never_better_than_the_worst_seen(
    untrained, direction, expected
):
    study = optuna.create_study(direction=direction)
    for noted, value in zip(untrained, (1.0, 2.0, 3.0), strict=True):
        add(study, value, untrained=noted)
    add(study, diverged=True)

    assert shown(study)[3].value == expected


def test_a_diverged_trial_without_any_value_to_stand_at_is_left_out():
    study = optuna.create_study()
    add(study, diverged=True)

    assert shown(study) == {}


def test_a_trial_ended_by_the_pruner_is_shown_at_its_last_report():
    study = optuna.create_study()
    add(study, reports={1: 3.0, 2: 2.5})
    add(study, reports={1: math.nan})
    add(study)

    seen = shown(study)

    assert {number: trial.value for number, trial in seen.items()} == {0: 2.5}


def test_all_are_shown_with_the_same_constraints_or_none_where_none_is_violated():
    study = optuna.create_study()
    add(study, 1.0)
    study.add_trial(optuna.create_trial(value=2.0))
    before = shown(study)
    add(study, diverged=True)

    after = shown(study)

    assert [trial.constraints for trial in before.values()] == [{}, {}]
    assert [trial.constraints["nonfinite"] for trial in after.values()] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("reads_pruned", [True, False])
def test_a_trial_that_was_repeated_is_not_shown_and_its_rerun_stands_for_it(reads_pruned):
    study = optuna.create_study()
    add(study, diverged=True, untrained=5.0, **{"cma:generation": 3})
    add(study, 0.5, rerun_of=0)

    seen = shown(study, reads_pruned=reads_pruned)

    assert {number: trial.value for number, trial in seen.items()} == {1: 0.5}
    # Else CMA-ES would wait for a member of its generation for ever.
    assert seen[1].system_attrs["cma:generation"] == 3
    assert seen[1].constraints.get("nonfinite", 0.0) == 0.0


def test_a_rerun_of_a_rerun_stands_for_both():
    study = optuna.create_study()
    add(study, diverged=True, untrained=5.0, **{"cma:generation": 3})
    add(study, diverged=True, untrained=5.0, rerun_of=0)
    add(study, 0.5, rerun_of=1)

    seen = shown(study)

    assert list(seen) == [2]
    assert seen[2].system_attrs["cma:generation"] == 3


def test_a_rerun_that_failed_leaves_the_first_verdict_standing():
    study = optuna.create_study()
    add(study, diverged=True, untrained=5.0)
    add(study, rerun_of=0, state=TrialState.FAIL)

    assert shown(study)[0].value == 5.0


@pytest.mark.parametrize("foreign", [1, 7, "0", None, [0]])
def test_an_attribute_of_that_name_from_another_program_names_no_rerun(foreign):
    study = optuna.create_study()
    add(study, 1.0)
    add(study, 2.0, rerun_of=foreign)

    assert list(shown(study)) == [0, 1]


def test_a_sampler_that_reads_pruned_trials_is_shown_them_as_they_are():
    study = optuna.create_study()
    add(study, diverged=True, untrained=5.0, reports={1: 0.2})

    assert shown(study, reads_pruned=True)[0] == study.trials[0]


def test_tpe_proposes_what_it_would_in_any_program_that_prunes():
    study = optuna.create_study()
    for number in range(12):
        add(study, number / 12)
    # Out of memory before the first report: TPE reads that, too.
    for _ in range(4):
        add(study)

    proposed = []
    for sampler in (SAMPLERS["tpe"](7), TPESampler(seed=7)):
        study.sampler = sampler
        trial = study.ask({"x": FloatDistribution(0, 1)})
        proposed.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)

    assert proposed[0] == proposed[1]


@pytest.mark.parametrize(
    ("numbers", "choices", "n_trials", "meant"),
    [(5, 0, 200, "gp"), (4, 0, 50, "tpe"), (5, 1, 50, "tpe"), (6, 0, 201, "tpe")],
)
def test_auto_is_resolved_by_the_space_and_the_number_of_trials(numbers, choices, n_trials, meant):
    number = Float(low=0, high=1, default=0)
    space = {f"x{i}": number for i in range(numbers)}
    space |= {f"c{i}": Choice(choices=("a", "b"), default="a") for i in range(choices)}

    assert resolve("auto", space, n_trials=n_trials) == meant
    assert resolve("cmaes", space, n_trials=n_trials) == "cmaes"


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.FAIL])
def test_until_a_rerun_has_told_something_the_first_verdict_stands(state):
    first = optuna.trial.create_trial(state=TrialState.PRUNED)
    rerun = optuna.trial.create_trial(state=state, user_attrs={RERUN_OF: 0})
    first.number, rerun.number = 0, 1

    assert [trial.number for trial in without_superseded([first, rerun])] == [0, 1]

    rerun.state = TrialState.PRUNED
    assert [trial.number for trial in without_superseded([first, rerun])] == [1]
