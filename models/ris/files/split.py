"""Scene files in a study: identity by path and fingerprint, and the split by purpose.

The last tenth of a file, 1,000 scenes at most, is for validation. The twentieth before it, 100 at
most, is for calibration, and the rest for training.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from models.ris.files.file import SceneFile
from models.ris.files.layout import Layout
from models.ris.scene.scenes import ArrayConfig, Scenes

_MOST_VALIDATION = 1000
_MOST_CALIBRATION = 100
# Fewer scenes would leave less than 10 for validation, and 5 for calibration.
_LEAST_IN_FILE = 100


class Split(NamedTuple):
    """Disjoint parts of a file's scenes, by purpose."""

    train: range
    calibration: range
    validation: range


class Samples(NamedTuple):
    """Scenes of a file, to evaluate a trained network on.

    Attributes:
        has_labels: True if the truth is known; else it is NaN.
        has_count: True if the number of sources is known.
        is_held_out: True if these are only the validation scenes, since the network was trained on
            others of the file.
    """

    scenes: Scenes
    has_labels: bool
    has_count: bool
    is_held_out: bool


def split(file: SceneFile) -> Split:
    """Split a file into its parts: training first, validation last."""
    count = len(file)
    validation = min(_MOST_VALIDATION, count // 10)
    calibration = min(_MOST_CALIBRATION, count // 20)
    ends = count - validation - calibration, count - validation
    return Split(range(ends[0]), range(*ends), range(ends[1], count))


def settled(scenes: str, config: ArrayConfig) -> tuple[str, str]:
    """Values of the options `scenes` and `installation` that a study stores for a training file.

    Returns:
        'absolute path#fingerprint'; and `fixed` if its scenes share a wall, else `random`.

    Raises:
        ValueError: The file is unfit for training: of another size, changed, without labels, or
            too short.
    """
    try:
        file = opened(scenes)
        assert file is not None
        _refuse_unfit(file, config)
    except ValueError as error:
        raise ValueError(f"{error} (--scenes)") from error
    name = f"{file.path.resolve()}#{file.fingerprint}"
    return name, "fixed" if file.has_one_wall else "random"


def _refuse_unfit(file: SceneFile, config: ArrayConfig) -> None:
    """Raise `ValueError` for a file that cannot be trained on."""
    file.check(config)
    if not file.has_labels:
        raise ValueError(
            f"'{file.path}' holds no labels (positions, powers, snr_db): measured scenes without "
            "the truth can be evaluated, not trained on"
        )
    if len(file) < _LEAST_IN_FILE:
        raise ValueError(
            f"'{file.path}' holds {len(file)} scenes; {_LEAST_IN_FILE} are the least that can be "
            "parted into training, calibration and validation"
        )


def opened(scenes: str) -> SceneFile | None:
    """Open the file that an option names; None for an empty one. Cached while it does not change.

    Raises:
        ValueError: The file is invalid, or its content differs from the option's fingerprint.
    """
    if not scenes:
        return None
    path, fingerprint = named(scenes)
    state: tuple[int, ...] = ()
    with suppress(OSError):  # opening it below raises the reason
        found = path.stat()
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
    return _opened(path, fingerprint, state)


@lru_cache(maxsize=1)
def _opened(path: Path, fingerprint: str, state: tuple[int, ...]) -> SceneFile:
    file = SceneFile.open(path)
    if fingerprint not in ("", file.fingerprint):
        raise ValueError(
            f"'{path}' has changed since the study was created with it (its fingerprint was "
            f"{fingerprint} and is {file.fingerprint}); put it back, or name another study with "
            "--study_name"
        )
    return file


def named(scenes: str) -> tuple[Path, str]:
    """Path and fingerprint in an option; the latter is empty in an option as a user wrote it."""
    found = re.fullmatch(r"(.+)#([0-9a-f]{16})", scenes)
    if found is None or Path(scenes).exists():
        return Path(scenes), ""
    return Path(found[1]), found[2]


def samples(
    path: Path,
    config: ArrayConfig,
    device: torch.device | str = "cpu",
    *,
    trained_on: str = "",
    most: int | None = None,
) -> Samples:
    """Read the scenes of a file to evaluate a network on.

    Args:
        trained_on: The option `scenes` of the network's study. If it names the same content, only
            the validation scenes are read.
        most: Largest number of scenes, taken from the end; None for all.

    Raises:
        ValueError: The file is invalid, or of another size.
    """
    file = SceneFile.open(path)
    if not file.layout.fits(config):
        raise ValueError(
            f"'{path}' holds scenes of {file.layout}, and the network is of {Layout.of(config)}; "
            "give it scenes of its own size, or train one of theirs"
        )
    is_held_out = bool(trained_on) and named(trained_on)[1] == file.fingerprint
    wanted = split(file).validation if is_held_out else range(len(file))
    if most is not None:
        wanted = wanted[max(0, len(wanted) - most) :]
    return Samples(
        file.scenes(wanted, config, device), file.has_labels, file.has_count, is_held_out
    )
