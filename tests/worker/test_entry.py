"""The facts that a worker's host writes for others, as `doctor --fleet` compares them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpo.doctor.finding import Finding
from hpo.doctor.fleet import compare
from hpo.machine.version import code_version
from hpo.tickets.roster import Host
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
