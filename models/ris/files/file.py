"""Files of scenes: one format for measured scenes and for simulated ones.

It is an uncompressed .npz file, as `numpy.savez` writes it, read into memory only as it is used.

| array | shape | content |
|---|---|---|
| `snapshots` | (S, L, M, T) | y: signals at M antennas, T snapshots under each of L codes |
| `codes` | (L, N) or (S, L, N) | c: phase factors of N = side² elements, of unit modulus |
| `channel` | (M, N) or (S, M, N) | H: from elements to antennas, unit mean power per entry |
| `wavelength_m` | () | λ in m; elements stand λ/2 apart, in the order of `element_positions` |
| `positions` | (S, K, 3) | azimuth in rad, elevation in rad, range in m; NaN for absent sources |
| `powers` | (S, K) | powers of the sources, relative to each other |
| `snr_db` | (S,) | mean_l E‖Φ_l A s‖² / (M σ²) in dB |
| `count` | (S,) | number of sources, for files without labels |
| `scale` | (S,) | factor that brings snapshots to the label's units |

Each of the first three is complex64, or float16 pairs (real, imaginary) along a last axis of 2; the
rest are real. `positions`, `powers` and `snr_db` are the labels: a file has all or none of them,
present sources first. `count` and `scale` are optional; other arrays are ignored.

Units: the label A P Aᴴ has trace N, so powers are scaled to sum 1, and σ² follows from H, codes and
SNR. Snapshots may have any scale: estimators get S_l, which has none. Without `scale`, snapshots
are scaled to the mean power that the labels imply; without labels, to mean power 1. Half precision
is written at mean power 1, where fp16 neither overflows (the largest of 4,096 entries is 64) nor
loses values above 6e-5 of the mean.

Shapes: S scenes of a file, B some of them, L codes, M antennas, T snapshots a code, N elements,
K sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from models.ris.files.layout import (
    LABELS,
    NAMES,
    as_complex,
    check_labels,
    check_snapshots,
    check_wall,
    plain_shape,
    read_layout,
)
from models.ris.files.npz import Array, Mapped, map_arrays
from models.ris.scene.scenes import (
    NOISE_FLOOR,
    ArrayConfig,
    Installation,
    Scenes,
    element_positions,
    observe,
    scaled_sample_covariance,
    steering,
)

# Opening a file checks the values of this many scenes, evenly spread; reading checks all it reads.
_SAMPLED = 64
# Drawn powers sum to 1 within rounding, and must be read back unchanged.
_ROUNDING = 1e-6
_WALL = ("codes", "channel")

Index = slice | Sequence[int] | Tensor


class SceneFile:
    """A file of scenes, opened and checked.

    Attributes:
        fingerprint: Hash of the content, the same for a copy elsewhere.
        layout: Sizes of its scenes.
        has_labels: True if the truth is known.
        has_count: True if the number of sources is known, from labels or from `count`.
        has_one_wall: True if all scenes share channel and codes.
    """

    def __init__(self, path: Path, mapped: Mapped) -> None:
        self.path, self.fingerprint = path, mapped.fingerprint
        self._arrays = mapped.arrays
        self.layout = read_layout(path, mapped.arrays)
        self.has_labels = all(name in mapped.arrays for name in LABELS)
        self.has_count = self.has_labels or "count" in mapped.arrays
        self.has_one_wall = all(plain_shape(self._arrays[name])[:-2] == () for name in _WALL)
        sampled = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int))
        self._values(sampled)
        self._wall(sampled[:1] if self.has_one_wall else sampled)

    @classmethod
    def open(cls, path: Path | str) -> SceneFile:
        """Open a file of scenes and check it: the layout, and the values of 64 of its scenes.

        Raises:
            ValueError: The file is missing or not of this format; the message names the cure.
        """
        path = Path(path)
        return cls(path, map_arrays(path, NAMES))

    def __len__(self) -> int:
        return int(self._arrays["snapshots"].shape[0])

    def check(self, config: ArrayConfig) -> None:
        """Raise `ValueError` for a file of another size, naming the size that fits."""
        self.layout.refuse_misfit(config, self.path)

    def wall(self, device: torch.device | str = "cpu") -> Installation | None:
        """Channel and codes that all scenes share; None where each has its own."""
        if not self.has_one_wall:
            return None
        channel_1MN, codes_1LN = (
            torch.from_numpy(as_complex(np.array(self._arrays[name][None])))
            for name in ("channel", "codes")
        )
        return Installation(channel_1MN, codes_1LN).to(device)

    def scenes(
        self, index: Index, config: ArrayConfig, device: torch.device | str = "cpu"
    ) -> Scenes:
        """Read some scenes.

        Without labels, positions, powers, steering vectors, noise and SNR are NaN. Then `count`
        sources are present, or without `count` as many as the size has.

        Args:
            index: Numbers of the scenes, from 0: a slice, a range or whole numbers.
            config: The size; absent sources fill up to its K.
            device: Device of the computation and of the result.

        Raises:
            ValueError: The file is of another size, or a value of these scenes is invalid.
            IndexError: The file has no such scene.
        """
        self.check(config)
        rows = self._rows(index)
        given = {n: torch.from_numpy(array).to(device) for n, array in self._values(rows).items()}
        installation = self.wall(device) or self._wall(rows).to(device)
        raw_BLMT = given["snapshots"]
        truth = _truth if self.has_labels else _no_truth
        found = truth(given, installation, config)
        power_B = raw_BLMT.abs().square().mean((1, 2, 3))
        scale_B = given.get("scale", (found.pop("power") / power_B).sqrt())
        return Scenes(
            installation=installation,
            snapshots_BLMT=raw_BLMT * scale_B[:, None, None, None],
            sample_BLMM=scaled_sample_covariance(raw_BLMT),
            **found,
        )

    def _rows(self, index: Index) -> Array:
        if isinstance(index, slice):
            return np.arange(len(self))[index]
        rows = np.asarray(index, dtype=int)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"'{self.path}' holds scenes 0 to {len(self) - 1}, not all of {index}")
        return rows

    def _values(self, rows: Array) -> dict[str, Array]:
        """Snapshots, scales, labels and counts of some scenes, read and checked."""
        snapshots_BLMT = as_complex(self._arrays["snapshots"][rows])
        check_snapshots(self.path, rows, snapshots_BLMT)
        found = {
            name: self._arrays[name][rows].astype(np.float32)
            for name in (*LABELS, "scale")
            if name in self._arrays
        }
        if self.has_labels:
            positions_BK3, powers_BK, snr_db_B = (found[name] for name in LABELS)
            check_labels(
                self.path, rows, positions_BK3=positions_BK3, powers_BK=powers_BK, snr_db_B=snr_db_B
            )
        elif "count" in self._arrays:
            found["count"] = self._arrays["count"][rows].astype(np.int64)
        return {"snapshots": snapshots_BLMT, **found}

    def _wall(self, rows: Array) -> Installation:
        """Walls of some scenes, one each, read and checked."""
        both = {}
        for name in _WALL:
            array = self._arrays[name]
            is_own = len(plain_shape(array)) == 3
            own = as_complex(array[rows]) if is_own else as_complex(array[None])
            both[name] = np.broadcast_to(own, (len(rows), *own.shape[1:])).copy()
        check_wall(self.path, rows, codes_BLN=both["codes"], channel_BMN=both["channel"])
        return Installation(torch.from_numpy(both["channel"]), torch.from_numpy(both["codes"]))


def _truth(
    given: dict[str, Tensor], installation: Installation, config: ArrayConfig
) -> dict[str, Tensor]:
    """Fields of `Scenes` from labels, and the snapshots' mean power in the label's units."""
    positions_BK3, powers_BK, snr_db_B = (given[name] for name in LABELS)
    absent = config.max_sources - positions_BK3.shape[1]
    positions_BK3 = pad(positions_BK3, (0, 0, 0, absent), value=torch.nan)
    mask_BK = positions_BK3.isfinite().all(-1)
    powers_BK = pad(powers_BK, (0, absent)).where(mask_BK, 0)
    total_B1 = powers_BK.sum(-1, keepdim=True)
    powers_BK = powers_BK.where((total_B1 - 1).abs() < _ROUNDING, powers_BK / total_B1)
    elements_N3 = element_positions(config, device=positions_BK3.device)
    safe_BK3 = positions_BK3.where(mask_BK.unsqueeze(-1), 1)
    steering_BNK = steering(safe_BK3, elements_N3, wavelength_m=config.wavelength_m)
    steering_BNK = steering_BNK * mask_BK.unsqueeze(-2)
    seen_BLMK = observe(installation, steering_BNK * powers_BK.sqrt().unsqueeze(-2))
    gain_B = seen_BLMK.abs().square().sum((-2, -1)).mean(-1) / config.antennas
    sigma2_B = gain_B * 10 ** (-snr_db_B / 10)
    return {
        "steering_BNK": steering_BNK,
        "powers_BK": powers_BK,
        "positions_BK3": positions_BK3,
        "source_mask_BK": mask_BK,
        "noise_B": sigma2_B.clamp_min(NOISE_FLOOR),
        "snr_db_B": snr_db_B,
        "power": gain_B + sigma2_B,
    }


def _no_truth(
    given: dict[str, Tensor], installation: Installation, config: ArrayConfig
) -> dict[str, Tensor]:
    raw_BLMT = given["snapshots"]
    nan_B = torch.full_like(raw_BLMT[:, 0, 0, 0].real, torch.nan)
    nan_BK = nan_B.unsqueeze(-1).repeat(1, config.max_sources)
    source_K = torch.arange(config.max_sources, device=raw_BLMT.device)
    count_B = given.get("count", torch.full_like(nan_B, config.max_sources))
    steering_BNK = torch.complex(nan_BK, nan_BK).unsqueeze(-2).repeat(1, config.elements, 1)
    return {
        "steering_BNK": steering_BNK,
        "powers_BK": nan_BK,
        "positions_BK3": nan_BK.unsqueeze(-1).repeat(1, 1, 3),
        "source_mask_BK": source_K < count_B.unsqueeze(-1),
        "noise_B": nan_B,
        "snr_db_B": nan_B,
        "power": torch.ones_like(nan_B),
    }
