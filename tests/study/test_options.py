"""Search spaces that depend on an objective's options: of a study, its name, its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpo.database.connection import connect
from hpo.errors import ConfigurationError, ObjectiveError, StudyMismatch
from hpo.refit.request import TrainRequest
from hpo.refit.resolve import config_with
from hpo.study.config import StudyConfig
from hpo.study.join import Prepared, prepare_study
from hpo.study.objective import load_objective
from hpo.study.request import RunRequest
from hpo.study.spaces import by_options
from objectives import Choice, Objective, Option, bound, complete, files_of, unbound
from tests.support.program import ROOT, Command, Program
from tests.support.studies import trials
from tests.support.two_models import SPACES, Models, objective

MODELS = str(ROOT / "tests" / "support" / "two_models.py")
PLAIN = "models-wide-tiny"


def join(url: str, **asked: Any) -> Prepared:
    """The study as a run would create or join it, without workers."""
    given = {"objective": MODELS, "n_trials": 3, **asked}
    return prepare_study(connect(url), RunRequest(**given), on_gpu=False)


def forget(made: Prepared, *names: str) -> StudyConfig:
    """Store a study's configuration as a version did that did not have these options."""
    options = {n: v for n, v in made.opened.config.options.items() if n not in names}
    config = replace(made.opened.config, options=options)
    storage = made.opened.storage
    storage.set_study_user_attr(made.opened.study_id, "config", config.stored())
    return config


def searched(made: Prepared) -> list[str]:
    return list(made.opened.config.parameters)


@pytest.mark.parametrize("model", ["a", "b"])
def test_a_bound_objective_suggests_from_the_spaces_of_its_options(model: str):
    found = bound(objective, {"model": model, "noise": "none"})

    assert found.spaces == SPACES[model]
    assert set(found.defaults("wide")) == set(SPACES[model]["wide"])
    assert set(found.suggest(optuna.create_study().ask(), "wide")) == set(SPACES[model]["wide"])
    assert bound(found, {"model": "a"}).spaces == SPACES["a"]
    assert unbound(found) is objective
    assert objective.spaces == SPACES["a"]


def test_options_that_a_study_lacks_are_what_they_were_before():
    assert complete(objective.options, {"noise": "some"}) == {"model": "a", "noise": "some"}


def test_an_objective_without_other_spaces_is_its_own_copy():
    class Plain(Models):
        spaces_for = Objective.spaces_for

    one = Plain()

    assert bound(one, {"model": "b"}) is one


def test_what_a_trial_keeps_in_the_objective_is_there_in_the_next_one():
    one = Models()
    options = {"model": "b", "noise": "none"}

    bound(one, options).kept = "a data set"

    assert bound(one, options).kept == "a data set"
    assert bound(one, {**options, "model": "a"}).spaces == SPACES["a"]
    assert not hasattr(one, "kept")


def test_a_bound_copy_is_of_the_same_files():
    loaded = load_objective(MODELS)

    assert files_of(bound(loaded, {"model": "b"})) == files_of(loaded)


def test_a_study_stores_what_auto_is_and_says_why(url: str):
    auto = join(url)
    again = join(url, options={"model": "auto"})
    named = join(url, options={"model": "a"})
    other = join(url, options={"model": "b"})

    assert auto.opened.config.options == {"model": "a", "noise": "none"}
    assert auto.chosen == {"model": "a (auto: the best at size tiny)"}
    assert (again.is_new, again.chosen) == (False, {"model": "a (the study's)"})
    assert (named.is_new, named.chosen) == (False, {"model": "a (asked for)"})
    assert {one.opened.name for one in (auto, again, named)} == {PLAIN}
    assert searched(auto) == ["lr", "curvature"]
    # Another model is no accident and no puzzle: it has a study of its own.
    assert (other.is_new, other.opened.name) == (True, f"{PLAIN}-b")
    assert other.chosen == {"model": "b (asked for)"}
    assert searched(other) == ["lr", "depth"]
    assert not join(url, options={"model": "b"}).is_new


def test_the_default_name_follows_the_study_that_is_there(url: str):
    named = join(url, study_name=PLAIN, options={"model": "b"})

    again, other = join(url, options={"model": "b"}), join(url, options={"model": "a"})

    # The study has the plain name, although 'auto' would be another model today.
    assert (again.opened.name, again.is_new) == (PLAIN, False)
    assert (other.opened.name, other.is_new) == (f"{PLAIN}-a", True)
    assert join(url).chosen == {"model": "b (the study's)"}
    assert named.opened.config.options["model"] == "b"


def test_a_name_made_of_an_option_is_held_to_what_names_may_be(url: str, tmp_path: Path):
    path = tmp_path / "mine.py"
    text = Path(MODELS).read_text()
    path.write_text(text.replace('choices=("none", "some")', "names_study=True"))

    with pytest.raises(ConfigurationError, match="can be no study's name"):
        join(url, objective=str(path), options={"noise": "two\nlines"})


def test_another_model_is_not_joined_by_accident(url: str):
    join(url, study_name="s", options={"model": "b"})
    with pytest.raises(StudyMismatch) as refused:
        join(url, study_name="s", options={"model": "a"})
    forced = join(url, study_name="s", options={"model": "a"}, force=True)

    assert str(refused.value) == (
        "study 's' was created with --model b (now a): leave that out to go on with it, or name "
        "another study with --study_name, or write --force to have the trials that follow differ"
    )
    assert searched(forced) == ["lr", "curvature"]
    assert forced.opened.config.forced == {"model": ["b", "a"]}


def test_a_forced_model_drops_the_narrowing_of_parameters_that_it_lacks(url: str):
    join(
        url, study_name="s", options={"model": "b"}, fixed={"depth": "3"}, ranges={"lr": "0.01,0.1"}
    )

    forced = join(url, study_name="s", options={"model": "a"}, force=True).opened.config

    assert (forced.fixed, list(forced.ranges)) == ({}, ["lr"])


@pytest.mark.parametrize("asked", [{"fixed": {"curvature": 1}}, {"ranges": {"curvature": "1,2"}}])
def test_a_parameter_of_another_model_is_refused_with_the_option_that_has_it(url: str, asked):
    for existing in (False, True):
        if existing:
            join(url, options={"model": "b"})
        with pytest.raises(ConfigurationError) as refused:
            join(url, options={"model": "b"}, **asked)

        assert str(refused.value).startswith(
            "with --model b the search space has no parameter 'curvature', which it has with "
            "--model a; here it has lr, depth"
        )


def test_a_configuration_to_try_is_of_the_studys_model(url: str):
    made = join(url, options={"model": "b"}, enqueue=[{"depth": 4}])

    assert "1 configuration is tried next" in made.notes
    with pytest.raises(ConfigurationError, match="curvature"):
        join(url, options={"model": "b"}, enqueue=[{"curvature": 1}])


def test_a_study_that_is_older_than_the_option_goes_on_as_before(url: str):
    made = join(url)
    config = forget(made, "model", "noise")

    again, named = join(url), join(url, options={"model": "a", "noise": "none"})
    with pytest.raises(StudyMismatch, match=r"--model a \(now b\)"):
        join(url, study_name=PLAIN, options={"model": "b"})

    assert (again.is_new, again.opened.config) == (False, config)
    assert (named.is_new, named.opened.config) == (False, config)
    assert again.chosen == {"model": "a (the study's)"}


def test_a_training_keeps_the_model_of_its_configuration(url: str):
    config = join(url, study_name="s", options={"model": "b"}).opened.config
    older = forget(join(url), "model")

    def trained(of: StudyConfig, **options: str) -> Mapping[str, str]:
        request = TrainRequest(options=options)
        return config_with(of, objective, MODELS, request, precision="fp32").options

    assert trained(config)["model"] == trained(config, model="auto", noise="some")["model"] == "b"
    assert trained(older)["model"] == "a"
    with pytest.raises(ConfigurationError) as refused:
        trained(config, model="a")
    assert str(refused.value) == (
        "the configuration is of --model b, and --model a searches other parameters; leave it out"
    )


def test_spaces_with_a_fault_are_refused_before_anything_is_created(url: str, tmp_path: Path):
    path = tmp_path / "mine.py"
    own = Path(MODELS).read_text()
    for change, words in (
        ('SPACES[options["model"]]', 'SPACES[options["modell"]]'),
        ('SPACES[options["model"]]', '{"wide": {"lr": 1}}'),
        ('spaces = SPACES["a"]', "spaces = property(lambda self: dict(SPACES['a']))"),
    ):
        path.write_text(own.replace(change, words))
        with pytest.raises(ObjectiveError, match=r"spaces_for\(\)"):
            join(url, objective=str(path))

    assert not optuna.get_all_study_names(storage=url)


def test_choices_are_listed_by_the_options_that_decide():
    found = by_options(objective)

    # `noise` has no effect on the spaces.
    assert [(one.flags, one.spaces) for one in found] == [
        ("--model a", SPACES["a"]),
        ("--model b", SPACES["b"]),
    ]


def test_many_combinations_are_listed_by_each_choice_alone():
    class Many(Models):
        options = {f"o{n}": Option(default="0", choices=("0", "1", "2"), help="") for n in range(5)}

        def spaces_for(self, options):
            levels = tuple(options[name] for name in ("o1", "o3"))
            return {"wide": {"x": Choice(choices=(*levels[:1], "-"), default="-")}}

    found = by_options(Many())

    assert [dict(one.options) for one in found] == [{"o1": "0"}, {"o1": "1"}, {"o1": "2"}]


def test_the_check_tries_every_model(command: Command, tmp_path: Path):
    broken = tmp_path / "broken.py"
    broken.write_text(
        Path(MODELS).read_text().replace('params.get("depth", 1)', 'float("depth" not in params)')
    )

    sound, faulty = command("check", MODELS), command("check", str(broken))

    assert (sound.returncode, faulty.returncode) == (0, 2), sound.stdout + sound.stderr
    assert "'--model a', '--model b'" in sound.stdout
    assert "with --model b: ZeroDivisionError" in faulty.stdout


def test_the_check_trains_the_model_that_it_is_asked_for(command: Command):
    other = command("check", "--size", "tiny", MODELS, "--model", "b", "--precision", "fp32")
    wrong = command("check", MODELS, "--model", "c")

    assert other.returncode == 0, other.stdout + other.stderr
    assert "lr, depth" in other.stdout
    assert f"{MODELS} --model b --n_trials 20" in other.stdout
    assert wrong.returncode == 2
    assert "'c' is not one of 'auto', 'a', 'b'" in wrong.stderr


def test_the_command_shows_the_spaces_of_every_model(command: Command):
    shown = command("objectives", MODELS)
    data = json.loads(command("objectives", MODELS, "--json").stdout)

    assert "space wide --model a" in shown.stdout
    assert "space wide --model b" in shown.stdout
    assert [one["options"] for one in data["spaces_by_options"]] == [{"model": "a"}, {"model": "b"}]
    assert list(data["spaces_by_options"][1]["spaces"]["wide"]) == ["lr", "depth"]


@pytest.mark.acceptance
def test_spaces_that_raise_in_a_worker_fail_its_trials_alone(
    program: Program, url: str, tmp_path: Path
):
    path, fault = tmp_path / "mine.py", tmp_path / "fault"
    raising = f"__import__('pathlib').Path({str(fault)!r}).exists() and 1 / 0 or SPACES["
    path.write_text(Path(MODELS).read_text().replace("return SPACES[", f"return {raising}"))
    join(url, objective=str(path), study_name="s", n_trials=2)
    fault.touch()

    ended = program("worker", "--study_name", "s", "--objective", str(path))

    assert ended.returncode == 0, ended.stderr
    found = trials(url, "s")
    assert [trial.state for trial in found] == [TrialState.FAIL] * 2
    assert "ZeroDivisionError" in found[0].user_attrs["prune_detail"]


@pytest.mark.acceptance
def test_a_study_of_the_other_model_is_run_resumed_copied_and_trained(
    program: Program, command: Command, url: str, tmp_path: Path
):
    flags = ("--objective", MODELS, "--epochs_per_trial", "2", "--workers", "1")

    first = program(*flags, "--model", "b", "--n_trials", "3", "--set", "depth=3")
    name = f"{PLAIN}-b"
    resumed = program("run", "--study_name", name, "--n_trials", "4", "--workers", "1")
    copied = command("copy", "--study_name", name, "--to", url, "--as", "copy")
    further = program("run", "--study_name", "copy", "--n_trials", "5", "--workers", "1")
    out = str(tmp_path / "out")
    trained = program("train", "--study_name", name, "--epochs", "2", "--seeds", "1", "--out", out)

    assert first.returncode == resumed.returncode == 0, first.stderr + resumed.stderr
    assert "model      b (asked for)" in first.stderr
    assert copied.returncode == further.returncode == 0, copied.stderr + further.stderr
    assert trained.returncode == 0, trained.stderr
    for one, count in ((name, 4), ("copy", 5)):
        found = trials(url, one)
        assert [trial.state for trial in found] == [TrialState.COMPLETE] * count
        assert {trial.params["depth"] for trial in found} == {3}
