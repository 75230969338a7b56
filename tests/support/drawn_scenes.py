"""Scenes drawn from seeds, and the same without their truth."""

from dataclasses import replace

import torch

from models.ris.scene.scenes import draw_installation, draw_scenes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(config, n, *, seed=0, is_shared=True, snr_db=None):
    """Scenes behind one wall, or behind a wall each; at one SNR where it is given."""
    if snr_db is not None:
        config = replace(config, snr_min_db=snr_db, snr_max_db=snr_db)
    installation = draw_installation(config, seeded(seed)) if is_shared else None
    return draw_scenes(config, n, seeded(seed + 1), installation=installation)


def blinded(scenes):
    """The scenes without their truth, but for the number of sources."""
    nan = {
        name: torch.full_like(getattr(scenes, name), torch.nan)
        for name in ("steering_BNK", "powers_BK", "positions_BK3", "noise_B", "snr_db_B")
    }
    return replace(scenes, **nan)
