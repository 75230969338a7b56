"""The program without a study: help, its interpreter, and the storage's URL for others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import HANGS_S, ROOT, Command, Program


@pytest.mark.acceptance
def test_help_is_instant_and_imports_nothing_heavy(executed: Program):
    shown = executed("--help")
    bare = executed()
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hpo", "--help"],
        capture_output=True,
        text=True,
        env=executed.environment,
        check=True,
    ).stderr

    assert shown.returncode == bare.returncode == 0
    assert "python -m hpo --n_trials 50" in shown.stdout
    assert bare.stdout == shown.stdout
    assert not re.search(r"\b(torch|optuna|sqlalchemy|rich)\b", imported)


# It notes for each process above the trainer whether torch is in its memory.
WATCHING = """
from pathlib import Path
from objectives import Option
from objectives.quadratic import Quadratic, QuadraticTask

def has_torch(pid):
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()

def above(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

class Watching(Quadratic):
    name = "watching"
    options = {"note": Option(default="", help="where to write")}
    def references(self, context):
        trainer, found = Path("/proc/self").resolve().name, []
        for _ in range(3):
            found.append(has_torch(trainer))
            trainer = above(trainer)
        Path(__file__).with_suffix(".txt").write_text(f"{found} {context.options['note']}")
        return {}

objective = Watching()
"""


@pytest.mark.acceptance
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc to look into")
@pytest.mark.parametrize("option", [(), ("--note", "given")], ids=["plain", "own option"])
def test_only_the_process_that_trains_has_torch(
    executed: Program, tmp_path: Path, option: tuple[str, ...]
):
    path = tmp_path / "watching.py"
    path.write_text(WATCHING)

    ran = executed("--objective", str(path), "--n_trials", "1", "--workers", "1", *option)

    assert ran.returncode == 0, ran.stderr
    # The trainer, its supervisor, and the run.
    assert path.with_suffix(".txt").read_text() == f"[True, False, False] {''.join(option[1:])}"


def test_the_url_can_be_given_to_other_programs(command: Command, url: str):
    assert command("url").stdout.strip() == url
    assert command("url", "--for", "psql").stdout.strip() == url.replace("+psycopg2", "")


# What a user may have in the folder in which the program is started.
NAMES = ("objectives.py", "hpo_notes.py", "typing.py", "random.py", "torch.py", "click.py")


@pytest.mark.acceptance
@pytest.mark.parametrize("console", [False, True], ids=["module", "script"])
def test_files_of_the_working_folder_hide_nothing(executed: Program, tmp_path: Path, console: bool):
    for name in NAMES:
        (tmp_path / name).write_text("raise RuntimeError('imported')\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    # The script that an installation makes.
    script = "import sys; from hpo.__main__ import main; sys.exit(main())"
    command = ["-P", "-c", script] if console else ["-m", "hpo"]

    shown = subprocess.run(
        [sys.executable, *command, "objectives", "quadratic"],
        cwd=tmp_path,
        env={**executed.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    assert "distance, minimize" in shown.stdout


SHOW = """
import os, sys
from hpo.start import restart
first = int(os.environ.setdefault("FIRST", str(os.getpid())))
restart()
print(first == os.getpid(), hash("text"), sys.flags.safe_path, sys.flags.dev_mode, sys.argv[1:])
"""


@pytest.mark.parametrize("seed", [None, "0", "7", "random"])
def test_every_interpreter_has_one_hash_seed_and_its_own_flags(seed: str | None):
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    surroundings.pop("PYTHONHASHSEED", None)
    given = {} if seed is None else {"PYTHONHASHSEED": seed}
    fixed = {**surroundings, "PYTHONHASHSEED": "0"}

    shown, expected = (
        subprocess.run(
            [sys.executable, *command],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split(maxsplit=4)
        for command, env in (
            (["-X", "dev", "-c", SHOW, "a b", "-P"], {**surroundings, **given}),
            (["-c", "print(0, hash('text'))"], fixed),
        )
    )

    assert shown == ["True", expected[1], "True", "True", "['a b', '-P']\n"]


def test_an_interpreter_that_draws_its_hash_seed_starts_once():
    shown = subprocess.run(
        [sys.executable, "-R", "-c", SHOW],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=HANGS_S,
    )

    assert shown.stdout.startswith("True")


INTERRUPTED = """
import sys
from importlib.abc import MetaPathFinder

class Interrupted(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from hpo.cli import main
sys.exit(main(["run", "--objective", "quadratic", "--n_trials", "1"]))
"""


@pytest.mark.acceptance
@pytest.mark.parametrize("module", ["ssl", "sqlalchemy", "optuna"])
def test_ctrl_c_during_an_import_ends_a_run(executed: Program, module: str):
    interrupted = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED, module],
        env={**executed.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
    )

    assert interrupted.returncode == 130, interrupted.stderr
