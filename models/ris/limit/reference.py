"""The limit as a reference: figures of frozen sets of scenes, computed beforehand.

`benchmarks/limit.py` computes them and writes `limits.json` beside this file. A set is known again
by a fingerprint of its scenes, so a changed problem has no limit instead of a wrong one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from models.ris.scene.scenes import Scenes

FILE = Path(__file__).with_name("limits.json")
# Hosts round sines and products differently, by 1e-6 of a scene's values.
_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The subspace error of the exact posterior's estimate on one set of scenes.

    No estimator has a less mean over scenes of the size. On a set at one SNR, one that knew the SNR
    could have.

    Attributes:
        size: Name of the size.
        name: What the set is.
        scenes: How many.
        fingerprint: As `fingerprint` has it.
        problem_seed: Of the size.
        hypotheses: Of the sampler, times its counted rounds.
        runs: Mean ε of independent runs.
        epsilon: Mean ε by the mean of their projectors: the limit.
        error: Standard error of `epsilon` by Monte Carlo, from the runs' differences.
        expected: What one run's posterior expects of the other's estimate, without the truth. It
            agrees with `epsilon` where the scenes' SNR has the prior's law, so not at one SNR.
        covariance_epsilon: Mean ε of the eigenvectors of E[A P Aᴴ | data].
    """

    size: str
    name: str
    scenes: int
    fingerprint: Sequence[float]
    problem_seed: int
    hypotheses: int
    runs: Sequence[float]
    epsilon: float
    error: float
    expected: float
    covariance_epsilon: float


def limit_of(scenes: Scenes) -> Limit | None:
    """Return the limit of a frozen set; None for any other scenes."""
    same_count = [limit for limit in stored() if limit.scenes == len(scenes)]
    if not same_count:
        return None
    found = fingerprint(scenes)
    for limit in same_count:
        pairs = zip(limit.fingerprint, found, strict=True)
        if all(abs(ours - theirs) <= _TOLERANCE for ours, theirs in pairs):
            return limit
    return None


@cache
def stored() -> Sequence[Limit]:
    """Return all limits of the file."""
    return [Limit(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))]


def fingerprint(scenes: Scenes) -> Sequence[float]:
    """Means over the scenes of their values, weighted by cosines of their numbers; of order one."""
    weight_B = torch.arange(len(scenes), dtype=torch.float64).cos()
    first_B = scenes.snapshots_BLMT[:, 0, 0, 0].cpu()
    code_B = scenes.installation.codes_BLN[:, -1, -1].cpu()
    values = (
        scenes.snr_db_B,
        scenes.source_mask_BK.sum(-1),
        scenes.positions_BK3[:, 0].sum(-1),
        scenes.powers_BK[:, 0],
        first_B.real,
        first_B.imag,
        scenes.snapshots_BLMT.abs().square().mean((1, 2, 3)),
        code_B.real.expand(len(scenes)),
        code_B.imag.expand(len(scenes)),
    )
    return [float((weight_B * value_B.cpu().double()).mean()) for value_B in values]
