"""The end of a process's descendants: all of them, their exit codes, and no error for others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.program import HANGS_S, ROOT

pytestmark = pytest.mark.acceptance

LOADERS = """
import multiprocessing, subprocess
import torch
from hpo.launch import children

class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        return torch.ones(1)

if __name__ == "__main__":
    children.adopt_orphans()
    older = subprocess.Popen(["sleep", "100"])
    earlier = children.living()
    loader = iter(torch.utils.data.DataLoader(Items(), num_workers=2))
    next(loader)
    orphan = subprocess.run(["sh", "-c", "setsid sleep 100 >/dev/null & echo $!"],
                            capture_output=True, text=True).stdout
    ended = children.end(earlier=earlier, spare_services=True)
    # torch raises in the main thread for each loader process that ended before its loader.
    for _ in range(20000):
        pass
    print(ended, multiprocessing.active_children(), older.poll(), children.living() == earlier)
    print(children.end(), older.poll() is not None, children.living())
"""


def test_descendants_end_with_their_orphans_and_without_an_error_of_their_loader():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADERS],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        cwd=ROOT,
        check=False,
    )

    assert done.stdout.splitlines() == ["3 [] None True", "1 True set()"], done.stderr
