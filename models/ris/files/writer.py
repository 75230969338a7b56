"""Write scenes to a file in the format of `files.file`, part by part: all of them or no file.

Simulated scenes are drawn from streams that no study uses for training or validation.

Shapes: B scenes, L codes, M antennas, T snapshots a code.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from models.ris.files.npz import Array
from models.ris.scene.scenes import (
    ArrayConfig,
    Scenes,
    draw_installation,
    draw_scenes,
    stream_generator,
)

_COPIED_BYTES = 1 << 20
# This many scenes are drawn at once: 60 MB at the full size where each has its own wall.
_PART = 500
_TEST_SEEDS = 4096
_TOLD_EVERY_S = 5.0


def write_scenes(
    path: Path | str,
    parts: Iterable[Scenes],
    count: int,
    *,
    wavelength_m: float,
    half: bool = False,
) -> None:
    """Write scenes with labels, with one part in memory at a time.

    The file is written under a temporary name in the same folder, and replaces the target when it
    is complete. After an exception or on a full disk nothing of it remains.

    Args:
        parts: Scenes, all with one installation or each with its own.
        count: Number of scenes in all parts together, 1 or more.
        half: True for each scene's complex entries as float16 pairs; a shared wall stays complex64.

    Raises:
        ValueError: The parts hold more or fewer scenes than `count`.
        OSError: The file cannot be written.
    """
    path = Path(path).resolve()
    with (
        _beside(path) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive,
        ExitStack() as waiting,
    ):
        written, files, wall = 0, {}, {"wavelength_m": np.array(wavelength_m)}
        # A zip takes one member at a time: the longest is written as it comes, the others follow.
        # They wait in unnamed temporary files, which vanish even if the process is killed.
        with _member(archive, "snapshots") as snapshots:
            for part in parts:
                is_first, is_shared = not written, len(part.installation) == 1
                if is_first and is_shared:
                    wall |= {name: array[0] for name, array in _wall(part, half=False).items()}
                arrays = _labelled(part, half=half)
                arrays |= _wall(part, half=half) if len(wall) == 1 else {}
                for name, array in arrays.items():
                    if is_first:
                        files[name] = (
                            snapshots
                            if name == "snapshots"
                            else waiting.enter_context(tempfile.TemporaryFile(dir=path.parent))
                        )
                        _begin(files[name], array.dtype, (count, *array.shape[1:]))
                    files[name].write(array.tobytes())
                written += len(part)
        if written != count or not count:
            raise ValueError(f"{written} scenes were given, and {count} announced")
        for name, file in files.items():
            if file is not snapshots:
                file.seek(0)
                with _member(archive, name) as member:
                    shutil.copyfileobj(file, member, _COPIED_BYTES)
        for name, array in wall.items():
            with _member(archive, name) as member:
                _begin(member, array.dtype, array.shape)
                member.write(array.tobytes())


def drawn_parts(
    config: ArrayConfig, count: int, *, stream: str, seed: int, is_shared: bool
) -> Iterator[Scenes]:
    """Draw scenes for a file, on the CPU, in parts.

    Args:
        stream: `train`, with a seed that no trial has, or `test`.
        seed: 0 or more; below 4,096 for `test`.
        is_shared: True if all scenes have the wall of the size, False if each has its own.

    Raises:
        ValueError: The stream is another one, or the seed is out of range.
    """
    if stream not in ("train", "test"):
        raise ValueError(f"no stream '{stream}' to write scenes of; use train or test")
    if not 0 <= seed < (_TEST_SEEDS if stream == "test" else 2**31):
        most = _TEST_SEEDS - 1 if stream == "test" else 2**31 - 1
        raise ValueError(f"seed {seed} is out of range; write 0 to {most} (--seed)")
    wall = None
    if is_shared:
        wall = draw_installation(config, stream_generator(config.problem_seed, "installation"))
    for part, start in enumerate(range(0, count, _PART)):
        if stream == "test":
            # The CPU's generator uses the low 29 bits of an index: 12 for seeds leave 17 for parts.
            generator = stream_generator(config.problem_seed, "test", part * _TEST_SEEDS + seed)
        else:
            # A trial's seed is never negative, so no trial draws these scenes.
            generator = stream_generator(config.problem_seed, "train", part, trial_seed=-1 - seed)
        yield draw_scenes(config, min(_PART, count - start), generator, installation=wall)


def watched(
    parts: Iterable[Scenes],
    count: int,
    *,
    tell: Callable[[str], None],
    must_stop: Callable[[], bool],
) -> Iterator[Scenes]:
    """Pass the parts on, with a line on the progress every five seconds.

    Raises:
        InterruptedError: `must_stop` returned True.
    """
    done, told_at = 0, time.monotonic()
    for part in parts:
        if must_stop():
            raise InterruptedError(f"stopped after {done:,} of {count:,} scenes")
        yield part
        done += len(part)
        if time.monotonic() - told_at > _TOLD_EVERY_S:
            tell(f"{done:,} of {count:,} scenes ({done / count:.0%})")
            told_at = time.monotonic()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Temporary file next to a path, which replaces it on success and is removed on failure."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # The member has no date, so that the same scenes give the same bytes.
    member = zipfile.ZipInfo(f"{name}.npy")
    member.external_attr = 0o644 << 16
    return archive.open(member, "w", force_zip64=True)


def _begin(file: IO[bytes], dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    described = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _labelled(part: Scenes, *, half: bool) -> dict[str, Array]:
    """Snapshots, their scale, and the labels."""
    snapshots_BLMT = part.snapshots_BLMT
    scale_B = torch.ones_like(part.snr_db_B)
    if half:
        scale_B = snapshots_BLMT.abs().square().mean((1, 2, 3)).sqrt()
        snapshots_BLMT = snapshots_BLMT / scale_B[:, None, None, None]
    return {
        "snapshots": _complex(snapshots_BLMT, half=half),
        "scale": scale_B.cpu().numpy(),
        "positions": part.positions_BK3.cpu().numpy(),
        "powers": part.powers_BK.cpu().numpy(),
        "snr_db": part.snr_db_B.cpu().numpy(),
    }


def _wall(part: Scenes, *, half: bool) -> Mapping[str, Array]:
    installation = part.installation
    return {
        "codes": _complex(installation.codes_BLN, half=half),
        "channel": _complex(installation.channel_BMN, half=half),
    }


def _complex(tensor: Tensor, *, half: bool) -> Array:
    """Array of complex64, or of float16 pairs along a last axis."""
    tensor = tensor.cpu().resolve_conj()
    return torch.view_as_real(tensor).half().numpy() if half else tensor.numpy()
