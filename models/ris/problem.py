"""Data of the trials on the array problem: the wall, frozen scenes, and training scenes.

Scenes are drawn, with one random stream for each purpose, or read from a file (`files.split`).

Shapes: B scenes, N elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from models.ris.estimators.ridge import RidgeMatching
from models.ris.files.file import SceneFile
from models.ris.files.split import split
from models.ris.scene.scenes import SIZES, Installation, Scenes, draw_installation, draw_scenes
from models.ris.scene.streams import stream_generator
from models.ris.truth.metric import subspace_error

_VALIDATION_SCENES = {"unit": 200}
# 100 scenes distinguish a blend of .05 from one of .2, at a tenth of the cost of validation.
_CALIBRATION_SCENES = 100
# The ridge's loading is chosen on this many of a file's training scenes, as many as would be drawn.
_RIDGE_SCENES = 1000
# Validation holds covariances of this many scenes at once: 42 MB at the full size.
_CHUNK = 250
# The loading cannot be fitted where every scene has its own wall. On the walls tried, the error is
# flat between .03 and .1.
RANDOM_WALL_LOADING = 0.05


@dataclass(frozen=True)
class Problem:
    """Validation data of all trials of a study: frozen scenes, and the reference's estimates."""

    validation: Scenes
    calibration: Scenes
    validation_ridge_BNN: Tensor
    calibration_ridge_BNN: Tensor
    ridge_error_B: Tensor


@lru_cache(maxsize=1)
def wall(
    size: str, problem_seed: int, installation: str, device: str, file: SceneFile | None = None
) -> Installation | None:
    """Channel and codes that all scenes share; None where each scene has its own."""
    if file is not None:
        return file.wall(device)
    if installation == "random":
        return None
    generator = stream_generator(problem_seed, "installation")
    return draw_installation(SIZES[size], generator).to(device)


@lru_cache(maxsize=1)
def problem(
    size: str, problem_seed: int, installation: str, device: str, file: SceneFile | None = None
) -> Problem:
    """Frozen data of a size or of a file, cached for the next trial of this process."""
    config = SIZES[size]
    shared = wall(size, problem_seed, installation, device, file)
    on_cpu = shared.to("cpu") if shared is not None else None
    if file is None:
        count = _VALIDATION_SCENES.get(size, 1000)
        validation, calibration = (
            draw_scenes(config, n, generator, installation=on_cpu).to(device)
            for n, generator in (
                (count, stream_generator(problem_seed, "validation")),
                (_CALIBRATION_SCENES, stream_generator(problem_seed, "calibration")),
            )
        )
        fitted = RidgeMatching.fit(config, shared) if shared is not None else None
    else:
        parts = split(file)
        validation, calibration, some = (
            file.scenes(part, config, device)
            for part in (parts.validation, parts.calibration, parts.train[:_RIDGE_SCENES])
        )
        fitted = RidgeMatching.fit(config, shared, scenes=some) if shared is not None else None

    def estimate(scenes: Scenes) -> Tensor:
        ridge = fitted or RidgeMatching(scenes.installation, loading=RANDOM_WALL_LOADING)
        return ridge(scenes.sample_BLMM)

    ridge_BNN = estimate(validation)
    errors = [
        subspace_error(ridge_BNN[part], validation.select(part)) for part in chunks(len(validation))
    ]
    return Problem(
        validation=validation,
        calibration=calibration,
        validation_ridge_BNN=ridge_BNN,
        calibration_ridge_BNN=estimate(calibration),
        ridge_error_B=torch.cat(errors),
    )


def training(
    size: str,
    problem_seed: int,
    installation: str,
    device: str,
    file: SceneFile | None = None,
    *,
    trial_seed: int,
) -> Callable[[int, int], Scenes]:
    """Return the map from (count, step) to a trial's scenes, fixed by its seed and the file."""
    config = SIZES[size]
    shared = wall(size, problem_seed, installation, device, file)

    def draw(count: int, step: int) -> Scenes:
        generator = stream_generator(
            problem_seed, "train", step, trial_seed=trial_seed, device=device
        )
        return draw_scenes(config, count, generator, installation=shared)

    def read(count: int, step: int) -> Scenes:
        assert file is not None
        # Indices are drawn on the CPU, so that a trial reads the same scenes on every device.
        generator = stream_generator(problem_seed, "train", step, trial_seed=trial_seed)
        index = torch.randint(len(split(file).train), (count,), generator=generator)
        return file.scenes(index, config, device)

    return draw if file is None else read


def chunks(count: int) -> Iterator[slice]:
    """Slices of scenes whose covariances fit in memory at once."""
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))
