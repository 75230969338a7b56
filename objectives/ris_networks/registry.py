"""The registry of networks: what the RIS objective knows of each of them.

A network is an `nn.Module` with the parameter groups `backbone` and `head`. Its `config` and its
`settings` build another one like it: `type(net)(config, **settings)`. Its
`forward(sample_BLMM, codes_BLN, channel_BMN)` returns `factor` of shape BNR2 and `log_noise` of
shape B, as `RisCovarianceNet.forward` does.

Shapes: B scenes, L codes, M antennas, N elements, R columns of the factor; 2 = real and imaginary
part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from models.ris.scene.scenes import SIZES, ArrayConfig
from objectives._space import Params, Space
from objectives.ris_networks import hybrid, transformer, unrolled


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that can be trained.

    Attributes:
        name: Its name as a choice of the objective's option `network`.
        spaces: Search spaces by name: its own parameters, and those of the training.
        settled: Values of parameters that no space searches.
        build: Builds it with initial weights.
    """

    name: str
    spaces: Mapping[str, Space]
    settled: Mapping[str, Any]
    build: Callable[[ArrayConfig, Params], nn.Module]


# Studies that are older than the option `network` trained this one.
FIRST = "unrolled"
# The network that `auto` is in a new study, by size, and why. All was measured on a CPU.
_UNMEASURED = ("unrolled", "no other has been measured at this size")
MEASURED: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(SIZES, _UNMEASURED),
    "tiny": ("unrolled", "within .4 dB of the limit in the least time; hybrid comes within .2 dB"),
    "base": ("hybrid", "-9.92 dB after two epochs, unrolled -9.75 dB in half as much time again"),
}
NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(
            name="unrolled",
            spaces=unrolled.SPACES,
            settled=unrolled.SETTLED,
            build=unrolled.build,
        ),
        Network(
            name="transformer",
            spaces=transformer.SPACES,
            settled=transformer.SETTLED,
            build=transformer.build,
        ),
        Network(
            name="hybrid",
            spaces=hybrid.SPACES,
            settled=hybrid.SETTLED,
            build=hybrid.build,
        ),
    )
}


_EARLIER = replace(NETWORKS[FIRST], settled=unrolled.EARLIER)


def network_of(options: Mapping[str, str]) -> Network:
    """The network that the options of a study name; `auto` must be settled before."""
    return NETWORKS[options["network"]] if "network" in options else _EARLIER


def device_of(net: nn.Module) -> torch.device:
    """The device of a network."""
    return next(net.parameters()).device


def built_again(net: nn.Module, config: ArrayConfig) -> nn.Module:
    """A network of the same shape with initial weights, in evaluation mode on the same device."""
    settings: Mapping[str, Any] = cast(Any, net).settings
    return type(net)(config, **settings).to(device_of(net)).eval()
