"""A worker as it enters the crew."""

from __future__ import annotations

import pytest
import torch

from hpo.worker import entry


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
