"""The GPUs that torch can use, counted in a process of its own.

Border: asks torch; `slots` says what the answer means.
"""

from __future__ import annotations

import json
import subprocess
import sys

from hpo.errors import ConfigurationError

_COUNT = (
    "import json, sys, torch; "
    "json.dump([torch.version.cuda, torch.cuda.device_count()], sys.stdout)"
)


def torchs_gpus() -> tuple[str | None, int]:
    """torch's version of CUDA, None for a CPU build, and the number of GPUs that it can use.

    A run holds 80 MB without torch and 270 with it, and needs no more of it than this.

    Raises:
        ConfigurationError: torch cannot be imported.
    """
    if "torch" in sys.modules or not sys.executable:
        import torch

        return torch.version.cuda, torch.cuda.device_count()
    command = [sys.executable, "-P", "-c", _COUNT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise ConfigurationError(f"torch cannot look for GPUs: {said}")
    cuda, count = json.loads(done.stdout.splitlines()[-1])
    return cuda, count
