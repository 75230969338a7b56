"""Saving tensors: the file reads back, and a full disk is called so."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
import torch

from hpo.task.saving import save


def test_what_is_saved_reads_back(tmp_path: Path):
    save({"weights": torch.arange(3)}, tmp_path / "a.pt")

    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert found["weights"].tolist() == [0, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_called_so():
    with pytest.raises(OSError, match="No space left on device") as raised:
        save({"weights": torch.zeros(100_000)}, Path("/dev/full"))

    assert raised.value.errno == errno.ENOSPC
