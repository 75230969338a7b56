"""Sums over a trial's steps, on the device: loss, terms, figures and gradient norms.

Border: figures only; the host waits for the device only when an interval or an epoch is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from hpo.engine.reports import Interval
from objectives import Task

# One log line covers 20 steps; one synchronisation in 20 does not slow training noticeably.
INTERVAL_STEPS = 20
# A group with zero gradients for 20 steps, and not by construction, is not being trained.
_ZEROS_TO_WARN = 20


class Monitor:
    """Sums over the steps since the last interval, and since the epoch began."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._groups = [group.name for group in task.groups]
        self._device = device
        self._epoch, self._interval, self._latest = (_Sums(self._none()) for _ in range(3))
        # Both count steps in a row in which a group's gradient was exactly zero, though not by
        # construction: the row up to now, and the longest row since the last interval.
        self._zeros_G, self._longest_G = self._none(), self._none()
        self._warned: set[str] = set()
        self._masks: dict[frozenset[str], Tensor] = {}

    def _none(self) -> Tensor:
        return torch.zeros(len(self._groups), device=self._device)

    def add(
        self,
        loss: Tensor,
        terms: Mapping[str, Tensor],
        *,
        norms_G: Tensor | None = None,
        figures: Mapping[str, Tensor] | None = None,
        idle: Collection[str] = (),
    ) -> None:
        """Add a step.

        Args:
            norms_G: Norms of the groups' gradients; None if the step has no gradients.
            figures: The task's own figures, from `Task.monitor`.
            idle: The groups that had no gradient by construction.
        """
        latest = self._latest
        latest.add({"": loss, **{f"loss.{n}": t for n, t in terms.items()}})
        latest.add({f"monitor.{n}": t for n, t in (figures or {}).items()})
        latest.steps += 1
        if norms_G is None:
            return
        # x − x is 0 only if x is finite. A group without a gradient is not counted either.
        is_moved_G = (norms_G - norms_G).eq(0) & norms_G.gt(0)
        latest.norms_G = latest.norms_G + norms_G.where(is_moved_G, 0)
        latest.moved_G = latest.moved_G + is_moved_G
        latest.zero_G = latest.zero_G + norms_G.eq(0)
        zeros_G = (self._zeros_G + 1) * norms_G.eq(0)
        if idle:
            zeros_G = torch.where(self._mask(frozenset(idle)), self._zeros_G, zeros_G)
            latest.idle |= set(idle)
        self._zeros_G, self._longest_G = zeros_G, torch.maximum(self._longest_G, zeros_G)

    def _mask(self, idle: frozenset[str]) -> Tensor:
        """Mask of these groups; cached, as copying it to the device is a synchronisation."""
        if idle not in self._masks:
            is_idle = [name in idle for name in self._groups]
            self._masks[idle] = torch.tensor(is_idle, device=self._device)
        return self._masks[idle]

    def interval(self, step: int, scale: float) -> Interval:
        """Means over the steps since the last call, at the price of a synchronisation."""
        self._fold()
        sums, self._interval = self._interval, _Sums(self._none())
        unmoved = {
            name
            for name, zeros in zip(self._groups, self._longest_G.tolist(), strict=True)
            if zeros >= _ZEROS_TO_WARN
        }
        self._longest_G = self._zeros_G
        new, self._warned = unmoved - self._warned, unmoved
        return Interval(
            step=step,
            steps=sums.steps,
            loss=sums.mean(""),
            grad_norms=sums.grad_norms(self._groups),
            moved=self._counted(sums.moved_G),
            zero=self._counted(sums.zero_G),
            idle=frozenset(sums.idle),
            scale=scale,
            figures=sums.means("monitor."),
            unmoved=tuple(sorted(new)),
        )

    def _counted(self, counts_G: Tensor) -> dict[str, int]:
        return dict(zip(self._groups, map(int, counts_G.tolist()), strict=True))

    def end_epoch(self) -> dict[str, Any]:
        """Return the means over the epoch's steps by `Epoch`'s fields, and start the next epoch."""
        self._fold()
        sums, self._epoch = self._epoch, _Sums(self._none())
        return {
            "loss": sums.mean(""),
            "terms": sums.means("loss."),
            "figures": sums.means("monitor."),
            "grad_norms": sums.grad_norms(self._groups),
            "idle": frozenset(sums.idle),
        }

    def _fold(self) -> None:
        """Add the latest steps to both sums, so that a step itself is added up only once."""
        for sums in (self._epoch, self._interval):
            sums.fold(self._latest)
        self._latest = _Sums(self._none())

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch.state_dict(),
            "interval": self._interval.state_dict(),
            "latest": self._latest.state_dict(),
            "zeros": self._zeros_G,
            "longest": self._longest_G,
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch.load_state_dict(state["epoch"])
        self._interval.load_state_dict(state["interval"])
        self._latest.load_state_dict(state["latest"])
        self._zeros_G, self._longest_G = state["zeros"], state["longest"]
        self._warned = set(state["warned"])


class _Sums:
    """Sums over some steps, on the device."""

    def __init__(self, nothing_G: Tensor) -> None:
        self.steps = 0
        self.values: dict[str, Tensor] = {}
        # Each value counts its own steps, as a skipped step has a loss but no terms.
        self.counts: dict[str, int] = {}
        # These hold, by group, the sum of the norms over the steps with a finite gradient above 0,
        # the number of these steps, and the number of steps with a gradient of exactly 0.
        self.norms_G, self.moved_G, self.zero_G = nothing_G, nothing_G, nothing_G
        self.idle: set[str] = set()

    def add(self, values: Mapping[str, Tensor], counts: Mapping[str, int] | None = None) -> None:
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + value.detach()
            self.counts[name] = self.counts.get(name, 0) + (counts[name] if counts else 1)

    def fold(self, other: _Sums) -> None:
        """Add the steps of other sums."""
        self.add(other.values, other.counts)
        self.steps += other.steps
        self.norms_G = self.norms_G + other.norms_G
        self.moved_G = self.moved_G + other.moved_G
        self.zero_G = self.zero_G + other.zero_G
        self.idle |= other.idle

    def mean(self, name: str) -> float:
        return self.values[name].item() / self.counts[name] if name in self.values else math.nan

    def means(self, prefix: str) -> dict[str, float]:
        """Means of the values whose names have a prefix, by name without it."""
        names = [name for name in self.values if name.startswith(prefix)] if prefix else []
        return {name.removeprefix(prefix): self.mean(name) for name in names}

    def grad_norms(self, groups: Collection[str]) -> dict[str, float]:
        """Mean norm of each group over its steps with a finite gradient above 0; 0 without any."""
        means = (self.norms_G / self.moved_G.clamp_min(1)).tolist()
        return dict(zip(groups, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "idle": sorted(self.idle)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, idle=set(state["idle"]))
