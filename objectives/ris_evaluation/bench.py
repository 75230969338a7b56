"""Parts of an evaluation: the network, the methods to compare with, and test scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from models.ris.estimators.ridge import RidgeMatching
from models.ris.evaluation import Estimator, Method, Network, Set, methods, scored_set
from models.ris.network.covariance_net import factor_from
from models.ris.problem import RANDOM_WALL_LOADING
from models.ris.scene.scenes import ArrayConfig, Installation, Scenes, draw_scenes
from models.ris.scene.streams import stream_generator
from objectives._evaluation import Asked
from objectives.ris_networks.registry import device_of

SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 20.0)
# A median over the 1,500 sources of 1,000 scenes at an SNR errs by 2 to 4 %.
SCENES, QUICK_SCENES = 1000, 100
# A seed has 1,000 draws of the stream: at each SNR first, from 100 on at each number of snapshots.
_DRAWS_PER_SEED, _FIRST_OF_SNAPSHOTS = 1000, 100


class Bench:
    """One evaluation of one network.

    Args:
        net: The network, in evaluation mode.
        config: The size.
        wall: The installation that all scenes share; None where each has its own.
        asked: The request.
    """

    def __init__(
        self,
        net: nn.Module,
        config: ArrayConfig,
        wall: Installation | None,
        asked: Asked,
    ) -> None:
        self.net, self.config, self.wall, self.asked = net, config, wall, asked
        self.device = device_of(net)
        self.count = QUICK_SCENES if asked.quick else SCENES
        self.ridge_estimator = self.ridge(wall)
        self.methods = methods(config, self.ridge_estimator, network(net), positions(net))

    def tell(self, line: str) -> None:
        """Report the next part; raise `InterruptedError` if the evaluation must end."""
        if self.asked.must_stop():
            raise InterruptedError("the evaluation was interrupted; the same command starts anew")
        self.asked.tell(line)

    def ridge(self, wall: Installation | None) -> Estimator:
        """Return ridge matching, fitted to a shared wall or solved for each scene's own."""
        if wall is not None:
            fitted = RidgeMatching.fit(self.config, wall)
            return lambda scenes: fitted(scenes.sample_BLMM)
        return lambda scenes: RidgeMatching(scenes.installation, loading=RANDOM_WALL_LOADING)(
            scenes.sample_BLMM
        )

    def drawn(
        self,
        snr_db: float | None,
        *,
        seed: int,
        wall: Installation | None = None,
        count: int | None = None,
        snapshots: int = 1,
    ) -> Scenes:
        """Draw scenes as `drawn` does, on the evaluation's wall and device by default."""
        shared, some = wall or self.wall, count or self.count
        scenes = drawn(self.config, shared, snr_db, seed=seed, count=some, snapshots=snapshots)
        return scenes.to(self.device)

    def scored(
        self,
        label: str,
        scenes: Scenes,
        chosen: Sequence[Method] | None = None,
        *,
        refine: bool = True,
    ) -> Set:
        """Score methods on scenes, all methods by default."""
        which = chosen or self.methods
        return scored_set(label, scenes, self.config, which, tell=self.tell, refine=refine)


def drawn(
    config: ArrayConfig,
    wall: Installation | None,
    snr_db: float | None,
    *,
    seed: int = 0,
    count: int = SCENES,
    snapshots: int = 1,
) -> Scenes:
    """Draw scenes of the evaluation's stream, at one SNR or over the size's range of SNRs."""
    config = replace(config, snapshots=snapshots)
    index = _FIRST_OF_SNAPSHOTS + snapshots
    if snr_db is not None:
        config = replace(config, snr_min_db=snr_db, snr_max_db=snr_db)
        index = SNRS_DB.index(snr_db)
    index += _DRAWS_PER_SEED * seed
    generator = stream_generator(config.problem_seed, "evaluation", index)
    on_cpu = None if wall is None else wall.to("cpu")
    return draw_scenes(config, count, generator, installation=on_cpu)


def network(net: nn.Module) -> Network:
    """Return a network as a function from scenes to a covariance's factor."""

    @torch.no_grad()
    def factor(scenes: Scenes) -> torch.Tensor:
        wall = scenes.installation
        outputs = net(scenes.sample_BLMM, wall.codes_BLN, wall.channel_BMN)
        return factor_from(outputs)[0]

    return factor


def positions(net: nn.Module) -> Estimator | None:
    """Return a network's own estimate of positions as a function of scenes; None without one."""
    estimate = getattr(net, "positions", None)
    if estimate is None:
        return None

    def find(scenes: Scenes) -> torch.Tensor:
        wall = scenes.installation
        found_BK3: torch.Tensor = estimate(
            scenes.sample_BLMM, wall.codes_BLN, wall.channel_BMN, scenes.source_mask_BK
        )
        return found_BK3

    return find
