"""A database is no way to run code on a host: what it names runs where the user named it, too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import optuna
import pytest

from hpo import trust
from hpo.fleet.config import FleetConfig
from hpo.study.config import StudyConfig
from tests.support.program import Program
from tests.support.studies import STUDY

pytestmark = pytest.mark.acceptance

# Its file notes that it was executed.
CODE = """
from pathlib import Path
Path({mark!r}).touch()
from objectives.quadratic import Quadratic

class Mine(Quadratic):
    name = "mine"

objective = Mine()
"""
SAMPLER, PRUNER = "tests.support.own_search:Fixed", "tests.support.own_search:half"
SHORT = ("--workers", "1", "--epochs_per_trial", "2", "--pruner", "none")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def code(tmp_path: Path, mark: Path) -> Path:
    path = tmp_path / "code" / "mine_of_host.py"
    path.parent.mkdir()
    path.write_text(CODE.format(mark=str(mark)))
    return path


def rewrite(url: str, **changed: object) -> None:
    """Change a study's settings as anybody can who may write to the database."""
    study = optuna.load_study(study_name=STUDY, storage=url)
    study.set_user_attr("config", {**study.user_attrs["config"], **changed})


@pytest.mark.parametrize(
    "args",
    [
        ("run", "--study_name", STUDY, "--n_trials", "13"),
        ("worker", "--study_name", STUDY),
        ("train", "--study_name", STUDY, "--epochs", "1", "--seeds", "1"),
        ("train", "FILE", "--epochs", "1", "--seeds", "1"),
    ],
    ids=["run", "worker", "train", "train of a file"],
)
def test_an_objective_that_nobody_named_is_not_executed(
    finished, code: Path, mark: Path, tmp_path: Path, args: tuple[str, ...]
):
    program: Program = finished("quadratic")
    rewrite(program.environment["HPO_STORAGE"], objective=str(code))
    saved = tmp_path / "best.json"
    assert program("best", "--study_name", STUDY, "--save", str(saved)).returncode == 0

    refused = program(*(str(saved) if arg == "FILE" else arg for arg in args))

    assert refused.returncode == 2, refused.stderr
    assert f"wants to run the code of '{code}'" in refused.stderr
    assert f"--objective '{code}'" in refused.stderr
    assert not mark.exists()


@pytest.mark.parametrize(("kind", "spec"), [("sampler", SAMPLER), ("pruner", PRUNER)])
@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_sampler_or_a_pruner_that_nobody_named_is_not_executed(
    finished, kind: str, spec: str, command: str
):
    program: Program = finished("quadratic")
    rewrite(program.environment["HPO_STORAGE"], **{kind: spec})

    refused = program(command, "--study_name", STUDY)

    assert refused.returncode == 2
    assert f"wants to run the code of '{spec}'" in refused.stderr
    assert f"say so with --{kind} '{spec}'" in refused.stderr
    assert program(command, "--study_name", STUDY, f"--{kind}", spec).returncode == 0


def test_what_a_run_named_here_goes_on_by_the_same_home_alone(
    program: Program, code: Path, mark: Path, tmp_path: Path, url: str
):
    def goes_on(home: Path) -> list[int]:
        program.environment["HPO_HOME"] = str(home)
        return [
            program("--study_name", "mine-wide-tiny", "--n_trials", "3", *SHORT[:2]).returncode,
            program("worker", "--study_name", "mine-wide-tiny").returncode,
            program(*training, "--out", str(tmp_path / "out")).returncode,
        ]

    third = ("--out", str(tmp_path / "third"))
    training = ("train", "--study_name", "mine-wide-tiny", "--epochs", "1", "--seeds", "1")
    ran = program("--objective", str(code), "--n_trials", "2", *SHORT)
    home = Path(program.environment["HPO_HOME"])

    assert ran.returncode == 0, ran.stderr
    assert (home / "allowed").read_text() == f"objective {code}\n"
    assert goes_on(home) == [0, 0, 0]
    assert goes_on(tmp_path / "other") == [2, 2, 2]
    # Named once there, it goes on there, too.
    assert program(*training, "--objective", str(code), *third).returncode == 0
    assert goes_on(tmp_path / "other") == [0, 0, 0]


def test_a_users_sampler_works_in_the_workers_of_the_run_that_names_it(
    program: Program, tmp_path: Path, url: str
):
    # A home that remembers nothing: its file is a folder.
    (tmp_path / "home" / "allowed").mkdir(parents=True)
    named = ("--sampler", SAMPLER)
    ran = program("--objective", "quadratic", "--n_trials", "3", *SHORT, *named)
    more = ("run", "--study_name", STUDY, "--n_trials", "4", "--workers", "1")

    assert ran.returncode == 0, ran.stderr
    assert program(*more).returncode == 2
    assert program(*more, *named).returncode == 0
    trials = optuna.load_study(study_name=STUDY, storage=url).trials
    assert [trial.state.is_finished() for trial in trials] == [True] * 4
    # It proposes the same again and again.
    assert trials[1].params == trials[2].params == trials[3].params


def test_a_name_for_one_purpose_is_none_for_another(monkeypatch, tmp_path: Path):
    from hpo import trust
    from hpo.errors import ConfigurationError

    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    trust.name("objective", "mine:thing")

    trust.refuse_unnamed("objective", "mine:thing", what="it")
    for kind, spec in (("sampler", "mine:thing"), ("objective", "mine:other")):
        with pytest.raises(ConfigurationError, match="wants to run"):
            trust.refuse_unnamed(kind, spec, what="it")
    # A line break in a path cannot add another line.
    trust.name("objective", "a\nsampler mine:thing.py")
    with pytest.raises(ConfigurationError):
        trust.refuse_unnamed("sampler", "mine:thing.py", what="it")


def test_a_run_passes_no_code_on_that_a_study_names_since_its_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    fleet = FleetConfig(slots=(), checkpoints=tmp_path, logs=tmp_path)
    changed = cast(StudyConfig, SimpleNamespace(sampler=SAMPLER, pruner="none"))

    before = fleet.plugins(changed)
    trust.name("sampler", SAMPLER)
    after = fleet.plugins(changed)

    assert (before, after) == ({}, {"sampler": SAMPLER})


def test_a_name_begins_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    (tmp_path / "allowed").write_text("objective a:b")

    trust.name("sampler", "own:S")

    assert (tmp_path / "allowed").read_text() == "objective a:b\nsampler own:S\n"


def test_what_was_named_is_the_path_and_the_module_of_one_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").touch()
    link = tmp_path / "link.py"
    link.symlink_to(tmp_path / "mine" / "own.py")
    monkeypatch.chdir(tmp_path / "mine")
    trust.name("objective", "own.py")
    trust.name("objective", "own:objective")

    known = [trust.is_named("objective", one) for one in ("own.py", "own:objective", str(link))]
    monkeypatch.chdir(tmp_path / "other")

    assert known == [True, True, False]
    assert not trust.is_named("objective", "own:objective")
    assert trust.is_named("objective", str(tmp_path / "mine" / "own.py"))
