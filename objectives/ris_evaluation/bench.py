"""What an evaluation works with: the network, the methods beside it, and test scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from models.ris.estimators.ridge import RidgeMatching
from models.ris.evaluation import (
    Estimator,
    Method,
    Network,
    Set,
    methods,
    scored_set,
)
from models.ris.network.covariance_net import RisCovarianceNet, factor_from
from models.ris.problem import RANDOM_WALL_LOADING
from models.ris.scene.scenes import (
    ArrayConfig,
    Installation,
    Scenes,
    draw_scenes,
)
from models.ris.scene.streams import stream_generator
from objectives._evaluation import Asked

SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 20.0)
# Scenes at each SNR: a median over the 1,500 sources of 1,000 scenes errs by 2 to 4 %.
_SCENES, _QUICK_SCENES = 1000, 100
# Draws of the stream: a seed's at each SNR, then its at each number of snapshots.
_DRAWS_PER_SEED, _FIRST_OF_SNAPSHOTS = 1000, 100


class Bench:
    """One evaluation of one network.

    Args:
        net: In evaluation mode.
        config: The size.
        wall: The installation that all scenes share; None where each has its own.
        asked: How.
    """

    def __init__(
        self,
        net: RisCovarianceNet,
        config: ArrayConfig,
        wall: Installation | None,
        asked: Asked,
    ) -> None:
        self.net, self.config, self.wall, self.asked = net, config, wall, asked
        self.device = net.positions_1G3.device
        self.count = _QUICK_SCENES if asked.quick else _SCENES
        self.ridge_estimator = self.ridge(wall)
        self.methods = methods(config, self.ridge_estimator, network(net))

    def tell(self, line: str) -> None:
        """Say what comes next; give up where that is asked for."""
        if self.asked.must_stop():
            raise InterruptedError("the evaluation was interrupted; the same command starts anew")
        self.asked.tell(line)

    def ridge(self, wall: Installation | None) -> Estimator:
        """Ridge matching: fitted to the wall that all scenes share, or solved for each scene's."""
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
        """Scenes of a stream of their own, at one SNR or over the size's range of them."""
        config = replace(self.config, snapshots=snapshots)
        index = _FIRST_OF_SNAPSHOTS + snapshots
        if snr_db is not None:
            config = replace(config, snr_min_db=snr_db, snr_max_db=snr_db)
            index = SNRS_DB.index(snr_db)
        index += _DRAWS_PER_SEED * seed
        generator = stream_generator(config.problem_seed, "evaluation", index)
        shared = wall or self.wall
        on_cpu = None if shared is None else shared.to("cpu")
        scenes = draw_scenes(config, count or self.count, generator, installation=on_cpu)
        return scenes.to(self.device)

    def scored(
        self,
        label: str,
        scenes: Scenes,
        chosen: Sequence[Method] | None = None,
        *,
        refine: bool = True,
    ) -> Set:
        """What methods make of scenes, all of them by default."""
        which = chosen or self.methods
        return scored_set(label, scenes, self.config, which, tell=self.tell, refine=refine)


def network(net: RisCovarianceNet) -> Network:
    """A network as what finds a covariance's factor."""

    @torch.no_grad()
    def factor(scenes: Scenes) -> torch.Tensor:
        wall = scenes.installation
        outputs = net(scenes.sample_BLMM, wall.codes_BLN, wall.channel_BMN)
        return factor_from(outputs)[0]

    return factor
