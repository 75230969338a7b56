"""The committed task as a plain loop in torch, which is what a user of the peers writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from peers.objective import one_weight, optimizer_of, shown
from peers.space import EPOCHS, badness

# A trial of ours has as many attributes, or more.
ATTRIBUTES = ("reason", "detail", "precision", "worker", "seconds", "skipped", "run", "seed")


def epochs(params: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Train one weight; yield each epoch and its value."""
    net, one = one_weight(torch.device("cpu")), torch.ones(1, 1)
    optimizer = optimizer_of(net)
    for epoch in range(1, EPOCHS + 1):
        optimizer.zero_grad()
        (net(one) - 3.0).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            distance = shown(float(net(one)))
        yield epoch, distance + (badness(params) if epoch == EPOCHS else 0.0)


def attributes(number: int) -> dict[str, Any]:
    """Eight attributes of a trial, as texts and numbers."""
    texts = {name: f"{name} of trial {number}" for name in ATTRIBUTES[:3]}
    return {**texts, "worker": f"process {os.getpid()}", **dict.fromkeys(ATTRIBUTES[4:], number)}
