"""Options for sbatch on the command line of `run` and in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.cli.slurm_options import of_file, taken_out
from tests.support.program import Command


def test_options_for_sbatch_are_taken_out_with_their_values():
    words = ["--workers", "2", "--slurm_time", "4:00:00", "--slurm-partition=gpu"]

    left, found = taken_out([*words, "--slurm_exclusive", "--slurm_nice=-5", "--json"])

    assert left == ["--workers", "2", "--json"]
    assert found == {"time": "4:00:00", "partition": "gpu", "exclusive": True, "nice": "-5"}


def test_a_files_options_for_sbatch_are_apart_from_its_flags():
    left, found = of_file({"workers": 4, "slurm_time": 30, "slurm_exclusive": True})

    assert left == {"workers": 4}
    assert found == {"time": 30, "exclusive": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slurm_time", "30"], "--slurm_time belongs to --launcher slurm"),
        (["--dry_run"], "--dry_run shows the script of --launcher slurm"),
        (["--launcher", "slurm", "--workers", "2"], "'sbatch' is not on PATH"),
    ],
)
def test_what_cannot_reach_slurm_is_refused_in_a_sentence(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], said: str
):
    monkeypatch.setenv("PATH", str(tmp_path))

    done = command("run", *words)

    assert done.returncode == 2
    assert said in done.stderr
