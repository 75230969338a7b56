"""Checks of a file of scenes: arrays, types and shapes as a whole, values scene by scene.

Border: numpy arrays and their faults; `files.file` documents the format.

Shapes: S scenes of the file, B some of them, L codes, M antennas, T snapshots a code,
N elements, K sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, pi
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from models.ris.files.npz import Array
from models.ris.scene.geometry import SIZES, ArrayConfig

COMPLEX = ("snapshots", "codes", "channel")
NEEDED = (*COMPLEX, "wavelength_m")
LABELS = ("positions", "powers", "snr_db")
NAMES = (*NEEDED, *LABELS, "count", "scale")
# Powers of float32 snapshots are sums of squares, which must stay within 1e±38.
_LEAST, _MOST = 1e-15, 1e15
# Codes that were rounded to half precision err by 2⁻¹¹ in either part.
_MODULUS_ERROR = 2e-3
# Drawn channels of 64 entries have mean powers of 0.6 to 1.5; an unscaled one is orders off.
_CHANNEL_POWER = (0.25, 4.0)
# At this error the phase over the full surface, 25 rad, errs by 2.5e-3 rad.
_WAVELENGTH_ERROR = 1e-4
# σ² is the gain times 10^(−SNR/10), which must stay within float32.
_MOST_DB = 100.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of a file, or of a problem; `max_sources` is 0 where a file does not give it."""

    side: int
    antennas: int
    codes: int
    snapshots: int
    wavelength_m: float
    max_sources: int

    def fits(self, config: ArrayConfig) -> bool:
        """Return whether scenes of this layout are scenes of a size."""
        same = ("side", "antennas", "codes", "snapshots")
        return (
            all(getattr(self, name) == getattr(config, name) for name in same)
            and abs(self.wavelength_m / config.wavelength_m - 1) < _WAVELENGTH_ERROR
            and self.max_sources <= config.max_sources
        )

    @classmethod
    def of(cls, config: ArrayConfig) -> Layout:
        """Return the layout of a size."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    def refuse_misfit(self, config: ArrayConfig, path: Path) -> None:
        """Raise `ValueError` for another size, naming the sizes that fit."""
        if self.fits(config):
            return
        size = Layout.of(config)
        fitting = [name for name, one in SIZES.items() if self.fits(one)]
        cure = f"write --size {fitting[0]}" if fitting else f"none of {', '.join(SIZES)} fits"
        raise ValueError(f"'{path}' holds scenes of {self}; the size has {size}; {cure}")

    def __str__(self) -> str:
        sources = f", up to {self.max_sources} sources" if self.max_sources else ""
        return (
            f"{self.side}×{self.side} elements, M {self.antennas} antennas, L {self.codes} codes, "
            f"T {self.snapshots} snapshots, λ {self.wavelength_m:g} m{sources}"
        )


def read_layout(path: Path, arrays: Mapping[str, Array]) -> Layout:
    """Sizes of a file, after a check that its arrays follow the format and agree.

    Raises:
        ValueError: An array is missing, or of another type or shape.
    """
    _refuse_missing(path, arrays)
    for name, array in arrays.items():
        _refuse_type(f"'{name}' in '{path}'", name, array)
    shapes = {name: plain_shape(array) for name, array in arrays.items()}
    if len(shapes["snapshots"]) != 4 or not shapes["codes"]:
        name, wanted = ("codes", "(L, N)") if len(shapes["snapshots"]) == 4 else _SNAPSHOTS
        raise ValueError(f"'{name}' in '{path}' has the shape {shapes[name]}; write {wanted}")
    S, L, M, T = shapes["snapshots"]
    N, K = shapes["codes"][-1], (*shapes.get("positions", ()), 0, 0)[1]
    if not S:
        raise ValueError(f"'{path}' holds no scene: 'snapshots' has the shape {(S, L, M, T)}")
    expected: dict[str, list[tuple[int, ...]]] = {
        "snapshots": [(S, max(L, 1), max(M, 1), max(T, 1))],
        "codes": [(L, N), (S, L, N)],
        "channel": [(M, N), (S, M, N)],
        "wavelength_m": [(), (1,)],
        "positions": [(S, max(K, 1), 3)],
        "powers": [(S, K)],
        **{name: [(S,)] for name in ("snr_db", "count", "scale")},
    }
    for name, shape in shapes.items():
        if shape not in expected[name]:
            wanted = " or ".join(map(str, expected[name]))
            raise ValueError(
                f"'{name}' in '{path}' has the shape {shape}, and with snapshots of {(S, L, M, T)} "
                f"and {N} elements {wanted} is wanted"
            )
    if N == 0 or isqrt(N) ** 2 != N:
        raise ValueError(f"'codes' in '{path}' are of {N} elements; a square surface has N = side²")
    wavelength_m = float(arrays["wavelength_m"].reshape(()))
    if not 0 < wavelength_m < np.inf:
        raise ValueError(f"'wavelength_m' in '{path}' is {wavelength_m:g}; write metres above 0")
    if not K and "count" in arrays:
        K = _most_counted(path, arrays["count"])
    return Layout(
        side=isqrt(N),
        antennas=M,
        codes=L,
        snapshots=T,
        wavelength_m=wavelength_m,
        max_sources=K,
    )


_SNAPSHOTS = ("snapshots", "(S, L, M, T): scenes, codes, antennas, snapshots a code")


def plain_shape(array: Array) -> tuple[int, ...]:
    """Shape of an array without the axis of float16 pairs."""
    return array.shape[:-1] if _is_paired(array) else array.shape


def as_complex(array: Array) -> Array:
    """Convert complex64 or float16 pairs to complex64, in memory and in native byte order."""
    if array.dtype.kind == "c":
        return np.ascontiguousarray(array, np.complex64)
    return np.ascontiguousarray(array, np.float32).view(np.complex64)[..., 0]


def check_snapshots(path: Path, rows: Array, snapshots_BLMT: Array) -> None:
    """Raise `ValueError` for snapshots that are not finite, vanish, or would overflow."""
    parts = snapshots_BLMT.view(np.float32)
    most_B = np.abs(parts).max((1, 2, 3))
    _refuse(path, rows, ~np.isfinite(most_B), "'snapshots' are not finite; leave that scene out")
    _refuse(
        path,
        rows,
        (most_B < _LEAST) | (most_B > _MOST),
        f"the largest of 'snapshots' is not within {_LEAST:g} to {_MOST:g}; scale them, or leave "
        "that scene out",
    )


def check_wall(path: Path, rows: Array, *, codes_BLN: Array, channel_BMN: Array) -> None:
    """Raise `ValueError` for codes without unit modulus or a channel without unit mean power."""
    is_off_B = ~(np.abs(np.abs(codes_BLN) - 1) < _MODULUS_ERROR).all((1, 2))
    _refuse(path, rows, is_off_B, "'codes' are not of unit modulus; write exp(1j * phase)")
    power_B = np.square(np.abs(channel_BMN)).mean((1, 2))
    low, high = _CHANNEL_POWER
    _refuse(
        path,
        rows,
        ~((power_B > low) & (power_B < high)),
        "'channel' is not of unit mean power; divide it by sqrt(mean(abs(channel) ** 2))",
    )


def check_labels(
    path: Path, rows: Array, *, positions_BK3: Array, powers_BK: Array, snr_db_B: Array
) -> None:
    """Raise `ValueError` for labels that no scene can have."""
    is_absent_BK = np.asarray(np.isnan(positions_BK3).all(-1))
    is_right_BK = (
        (np.abs(positions_BK3[..., :2]) <= pi / 2).all(-1)
        & (positions_BK3[..., 2] > 0)
        & np.isfinite(positions_BK3[..., 2])
    )
    _refuse(
        path,
        rows,
        ~(is_absent_BK | is_right_BK).all(-1),
        "'positions' are no azimuth and elevation within ±π/2 rad and a range above 0 m; absent "
        "sources are NaN in all three",
    )
    is_late_B = is_absent_BK[:, 0] | (is_absent_BK[:, :-1] & ~is_absent_BK[:, 1:]).any(-1)
    _refuse(path, rows, is_late_B, "'positions' begin with an absent source, or have one between")
    is_power_BK = is_absent_BK | ((powers_BK > 0) & (powers_BK < np.inf))
    _refuse(path, rows, ~is_power_BK.all(-1), "'powers' of present sources are not above 0")
    _refuse(path, rows, ~(np.abs(snr_db_B) <= _MOST_DB), "'snr_db' is not within ±100 dB")


def _is_paired(array: Array) -> bool:
    return bool(array.dtype.kind == "f" and array.dtype.itemsize == 2 and array.shape[-1:] == (2,))


def _refuse_missing(path: Path, arrays: Mapping[str, Array]) -> None:
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise ValueError(
            f"'{path}' is no file of scenes: it lacks {', '.join(missing)} of {', '.join(NEEDED)}"
        )
    there = [name for name in LABELS if name in arrays]
    if there and len(there) < len(LABELS):
        lacking = [name for name in LABELS if name not in arrays]
        raise ValueError(
            f"'{path}' holds {', '.join(there)} and lacks {', '.join(lacking)}; labels are there "
            "all or none"
        )


def _refuse_type(here: str, name: str, array: Array) -> None:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if name in COMPLEX:
        if (kind, size) == ("c", 8) or _is_paired(array):
            return
        wanted = "complex64, with .astype('complex64'), or float16 pairs along a last axis of 2"
    elif name == "count":
        wanted = "whole numbers"
        if kind in "iu":
            return
    else:
        wanted = "float32"
        if kind in "fiu":
            return
    raise ValueError(f"{here} is {array.dtype} of shape {array.shape}; write {wanted}")


def _most_counted(path: Path, count_S: Array) -> int:
    if count_S.min() < 1:
        raise ValueError(f"'count' in '{path}' goes down to {count_S.min()}; write 1 or more")
    return int(count_S.max())


def _refuse(path: Path, rows: Array, is_wrong_B: ArrayLike, what: str) -> None:
    wrong = np.flatnonzero(is_wrong_B)
    if len(wrong):
        raise ValueError(f"scene {rows[wrong[0]]} of '{path}': {what}")
