"""Where the workers of a run are told to keep checkpoints, by what starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.fleet.config import FleetConfig
from hpo.launch.engine import Engine
from hpo.launch.local import LocalLauncher
from hpo.machine.slots import cpu_slots
from hpo.study.request import RunRequest

UID = "0f0e0d0c-0000-4000-8000-000000000001"
HOME = Path("/home/me/hpo")


@pytest.mark.parametrize(
    ("given", "is_local", "places"),
    [
        (None, True, {"checkpoint_dir": f"{HOME}/checkpoints/{UID}"}),
        # Elsewhere a host's folder ends with the host.
        (None, False, {"checkpoint_dir": "database"}),
        ("/shared", True, {"checkpoint_dir": f"/shared/{UID}"}),
        ("/shared", False, {"checkpoint_dir": f"/shared/{UID}"}),
        ("s3://bucket/x", False, {"checkpoint_dir": "s3://bucket/x"}),
        (
            "database",
            True,
            {"checkpoint_dir": "database", "checkpoint_folder": f"{HOME}/checkpoints/{UID}"},
        ),
    ],
)
def test_workers_keep_checkpoints_where_their_successors_find_them(
    given: str | None, is_local: bool, places: dict[str, str]
):
    engine = Engine(launcher=LocalLauncher({}), slots=cpu_slots(1), is_local=is_local)

    config = FleetConfig.below(HOME, RunRequest(checkpoint_dir=given), UID, engine)

    assert config.places() == places
