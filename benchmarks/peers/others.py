"""Peers without a database: the service's engine alone, and Ray Tune by its own interpreter."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from typing import Any

from peers.processes import ROOT, environment

_STUCK_S = 400.0


def engine_alone(*, warm: int, timed: int) -> dict[str, Any]:
    """Train trials by the engine, one after the other in one process."""
    starts = _printed([sys.executable, "-m", "peers.engine_alone", str(warm + timed)])[warm:]
    between = [b - a for a, b in itertools.pairwise(starts)]
    return {
        "trials": len(between),
        "per_trial_ms": 1000 * (starts[-1] - starts[0]) / len(between),
        "per_trial_median_ms": 1000 * statistics.median(between),
    }


def has_ray(python: str) -> bool:
    """Return whether this interpreter has Ray Tune and torch."""
    command = [python, "-c", "import ray.tune, torch"]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    return done.returncode == 0


def ray_tune(python: str, *, workers: int, warm: int, timed: int) -> dict[str, Any]:
    """Run trials by Ray Tune on as many reused actors as there are workers."""
    words = [str(workers), str(workers * warm + timed)]
    times = sorted(_printed([python, "-m", "peers.ray_tune", *words]))[workers * warm :]
    starts = sorted(start for _, start in times)
    ends = [end for end, _ in times]
    return {
        "trials": len(times),
        "per_trial_ms": 1000 * (starts[-1] - starts[0]) / (len(starts) - 1),
        "within_ms": 1000 * statistics.mean(end - start for end, start in times),
        "trials_per_s": (len(ends) - 1) / (ends[-1] - ends[0]),
        "workers": workers,
    }


def _printed(command: list[str]) -> Any:
    """The JSON on the last line of a command's output."""
    done = subprocess.run(
        command,
        env=environment(RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_STUCK_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])
