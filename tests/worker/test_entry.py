"""A worker as it enters the crew, and the facts of its host that `doctor --fleet` compares."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from hpo.doctor.finding import Finding
from hpo.doctor.fleet import compare
from hpo.machine.version import code_version
from hpo.tickets.roster import Host
from hpo.worker import entry
from hpo.worker.entry import facts


def found(folders: list[Path], copies: str | None) -> Finding:
    """What is said of the checkpoints of hosts with these local folders."""
    version = code_version(None)
    hosts = [
        Host(
            host=folder.parent.name,
            facts=facts(version, folder, copies=copies, git="abc", clock_s=0.0),
            at=datetime.now(UTC),
        )
        for folder in folders
    ]
    (finding,) = (one for one in compare(hosts) if one.name == "checkpoints")
    return finding


@pytest.mark.parametrize("copies", ["database", "s3://bucket/checkpoints"])
def test_hosts_that_copy_their_checkpoints_to_one_place_have_it_in_common(
    tmp_path: Path, copies: str
):
    own = [tmp_path / name / "checkpoints" for name in ("a", "b")]

    assert found(own, copies).state == "ok"
    assert copies in found(own, copies).found


def test_hosts_with_folders_of_their_own_have_none_in_common(tmp_path: Path):
    own, shared = tmp_path / "a" / "checkpoints", tmp_path / "shared" / "checkpoints"

    assert found([own, shared], None).state == "warning"
    assert found([shared, shared], None).state == "ok"


@pytest.mark.parametrize(
    ("slot", "is_launched", "launcher"),
    [
        ("gpu:0", True, "local"),
        ("gpu:0", False, "none"),
        # As `deploy/kubernetes.yaml` and `deploy/ssh-workers.sh` call them.
        ("pod:3", False, "none"),
        ("cuda:0", False, "none"),
        ("ray:1", False, "ray"),
        ("slurm:1", False, "slurm"),
    ],
)
def test_a_worker_that_a_command_started_is_no_engines_whatever_its_slot(
    slot, is_launched, launcher
):
    found = entry.member(
        slot=slot,
        process=None,
        device=torch.device("cpu"),
        version={},
        is_launched=is_launched,
        log=None,
    )

    assert found.launcher == launcher
