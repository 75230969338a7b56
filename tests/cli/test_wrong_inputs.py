"""Wrong inputs: a short answer that says what to write, exit code 2."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.database import waiting
from tests.support.program import Command, Program

QUADRATIC = ("--objective", "quadratic", "--workers", "1")
PG = "postgresql+psycopg2://u:secret@127.0.0.1"

# By class: arguments, and what the answer names. {tmp} is an empty folder, {port} one where nobody
# listens, {silent} one that takes connections and never says a word.
CASES: dict[str, list[tuple[tuple[str, ...], str]]] = {
    "flags and commands": [
        (("--no_such_flag",), "--no_such_flag"),
        (("--n_trails", "5"), "--n_trials"),
        (("trian",), "trian"),
        (("--n_trials",), "requires an argument"),
        (("status", "extra"), "extra"),
        (("worker",), "--study_name"),
    ],
    "values of flags": [
        (("--n_trials", "0"), "--n_trials"),
        (("--n_trials", "-3"), "--n_trials"),
        (("--n_trials", "many"), "--n_trials"),
        (("--n_trials", "2.5"), "--n_trials"),
        (("--workers", "-1"), "--workers"),
        (("--workers", "two"), "--workers"),
        (("--precision", "fp8"), "fp16"),
        (("--sampler", "tpee"), "tpe"),
        (("--pruner", "medain"), "median"),
        (("--timeout", "0"), "--timeout"),
        (("--seed", "x"), "--seed"),
        (("--gpus", "0"), "torch sees no GPU"),
        (("--n_trials", "99999999999"), "more than a study holds"),
        (("--verbose", "--n_trials", "0"), "--n_trials"),
        (("--export_csv", "{tmp}/no/such/folder/x.csv"), "no folder"),
        (("dashboard", "--port", "99999"), "port"),
        (("--metrics_port", "99999"), "is no port"),
        (("--metrics_host", "0.0.0.0"), "belongs to metrics_port"),
        (("--checkpoint_dir", "s3:/bucket/folder"), "write 's3://bucket/folder'"),
    ],
    "objectives": [
        (("--objective", "nothing"), "ris_covariance"),
        (("--objective", "missing.py"), "does not exist"),
        (("--objective", "{tmp}/empty.py"), "objective = "),
        (("--objective", "{tmp}/syntax.py"), "SyntaxError"),
        (("--objective", "{tmp}/raises.py"), "RuntimeError: at import"),
        (("--objective", "json:nothing"), "nothing"),
        (("--objective", "no_such_module:objective"), "no_such_module"),
        ((*QUADRATIC, "--space", "huge"), "narrow, wide"),
        ((*QUADRATIC, "--size", "giant"), "tiny"),
        ((*QUADRATIC, "--installation", "random"), "--installation"),
        (("--installation", "sideways"), "fixed"),
    ],
    "own ranges": [
        ((*QUADRATIC, "--set", "lr"), "NAME=VALUE"),
        ((*QUADRATIC, "--set", "lrr=1"), "lr, curvature"),
        ((*QUADRATIC, "--set", "lr=fast"), "0.0001 to 10000"),
        ((*QUADRATIC, "--set", "lr=1e9"), "0.0001 to 10000"),
        ((*QUADRATIC, "--range", "lr=1"), "LOW,HIGH"),
        ((*QUADRATIC, "--range", "lr=3,1"), "low end is above"),
        ((*QUADRATIC, "--set", "lr=1", "--range", "lr=1,2"), "both"),
        (("--range", "schedule=1,2"), "--set schedule"),
    ],
    "own samplers and pruners": [
        ((*QUADRATIC, "--sampler", "no_module:Sampler"), "no_module"),
        ((*QUADRATIC, "--sampler", "json:dumps"), "json:dumps"),
        ((*QUADRATIC, "--pruner", "optuna.pruners:Nothing"), "Nothing"),
        ((*QUADRATIC, "--pruner", "optuna.samplers:RandomSampler"), "BasePruner"),
    ],
    "files of flags": [
        (("--config", "{tmp}/none.toml"), "No such file"),
        (("--config", "{tmp}/syntax.toml"), "line 1"),
        (("--config", "{tmp}/unknown.toml"), "did you mean 'n_trials'"),
        (("--config", "{tmp}/wrong.toml"), "wrong.toml"),
    ],
    "storages": [
        (("--storage", "sqlite:///x.db"), "not a PostgreSQL"),
        (("--storage", "mysql://u:secret@h/d"), "not a PostgreSQL"),
        (("--storage", "postgresql://u:secret@h/d"), "postgresql+psycopg2://u:***@h/d"),
        (("--storage", "postgres://u:secret@h/d"), "postgresql+psycopg2://u:***@h/d"),
        (("--storage", "nonsense"), "USER:PASSWORD@HOST/DATABASE"),
        (("--storage", f"{PG}:{{port}}/d"), "does not answer"),
        (("--storage", f"{PG}:{{silent}}/d"), "does not answer"),
        (("--storage", "postgresql+psycopg2://u:secret@no.such.host.invalid/d"), "does not answer"),
    ],
    "studies": [
        (("best", "--study_name", "none"), "none"),
        (("best", "--study_name", ""), "no study's name"),
        (("--objective", "quadratic", "--study_name", "x" * 600), "no study's name"),
        (("status",), "holds no study; write 'python -m hpo run'"),
        (("replay", "3"), "python -m hpo run"),
        (("replay", "{tmp}/none.pt"), "no file"),
        (("best", "--save", "{tmp}/no/folder.json"), "no folder"),
    ],
}
FLAT = [(*case, kind) for kind, cases in CASES.items() for case in cases]
# One of each way through the program that differs between a process and a function: click's own
# refusals, those of a flag's value, of an objective's file, and of a database.
EXECUTED = [
    (("--n_trails", "5"), "--n_trials"),
    (("--verbose", "--n_trials", "0"), "--n_trials"),
    (("--objective", "{tmp}/raises.py"), "RuntimeError: at import"),
    (("--storage", f"{PG}:{{port}}/d"), "does not answer"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Files and ports that the cases name."""
    folder = tmp_path_factory.mktemp("wrong")
    for name, text in {
        "empty.py": "",
        "syntax.py": "def",
        "raises.py": "raise RuntimeError('at import')",
        "syntax.toml": "n_trials 5",
        "unknown.toml": "n_trails = 5",
        "wrong.toml": 'n_trials = "many"',
    }.items():
        (folder / name).write_text(text)
    with socket.socket() as free, socket.socket() as silent:
        free.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield {"tmp": folder, "port": free.getsockname()[1], "silent": silent.getsockname()[1]}


@pytest.mark.parametrize(
    ("arguments", "says", "kind"), FLAT, ids=[" ".join(case[0])[:80] for case in FLAT]
)
def test_a_wrong_input_gets_a_short_answer_and_exit_code_2(
    command: Command, places: dict[str, object], arguments, says: str, kind: str
):
    refused = command(*(argument.format(**places) for argument in arguments))

    assert_short(refused, says)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("arguments", "says"), EXECUTED, ids=[" ".join(case[0]) for case in EXECUTED]
)
def test_a_process_answers_a_wrong_input_as_the_function_does(
    executed: Program, places: dict[str, object], arguments, says: str
):
    refused = executed(*(argument.format(**places) for argument in arguments))

    assert_short(refused, says)


def test_a_server_that_never_answers_is_given_up_within_5_s():
    # One attempt; a second is left for what comes before it.
    assert waiting.CONNECT_S <= 4


def assert_short(refused: subprocess.CompletedProcess[str], says: str) -> None:
    """Exit code 2, and an answer in a line or two that says this."""
    assert refused.returncode == 2, refused.stderr
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stdout + refused.stderr
    # Two lines of its own; click's have a usage and a pointer to --help before them.
    assert len([line for line in refused.stderr.splitlines() if line.strip()]) <= 4


def test_the_traceback_is_shown_when_asked_for(command: Command):
    refused = command("best", "--study_name", "none", "--verbose")

    assert refused.returncode == 2
    assert "Traceback" in refused.stderr


@pytest.mark.acceptance
def test_a_file_of_flags_is_taken_and_flags_win(program: Program, command: Command, tmp_path: Path):
    config = tmp_path / "study.toml"
    config.write_text(
        'objective = "quadratic"\nn_trials = 2\nepochs-per-trial = 3\nworkers = 1\n'
        'study_name = "s"\n[set]\ncurvature = 1.5\n[range]\nlr = [0.001, 0.1, "log"]\n'
    )

    ran = program("--config", str(config), "--n_trials", "1", "--seed", "7")
    status = command("status", "--json")

    assert ran.returncode == 0, ran.stderr
    assert "1 of 1 trials done" in ran.stderr
    assert "3 epochs a trial" in ran.stderr
    for said in ('"curvature": 1.5', '"seed": 7', '"n_trials": 1', '"epochs_per_trial": 3'):
        assert said in status.stdout


def test_a_wrong_password_and_a_missing_database_are_told_without_the_password(
    command: Command, url: str
):
    login, _, where = url.rpartition("@")
    wrong = f"{login.rpartition(':')[0]}:secret@{where}"
    missing = f"{url.rpartition('/')[0]}/nowhere"

    for given, says in ((wrong, "password authentication failed"), (missing, "does not exist")):
        refused = command("--storage", given)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert ":***@" in refused.stderr
        assert "secret" not in refused.stderr
        assert url.split(":")[2].split("@")[0] not in refused.stderr
