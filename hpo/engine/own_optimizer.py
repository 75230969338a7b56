"""The optimizer that a task returns: its learning rates and its two modes.

Schedulers of torch may change its rates at any time, from any hook. The rate that they find and
leave in a group is theirs alone: the schedule's factor is in it during a step only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from objectives import Group


def start_rates(own: Any, groups: Sequence[Group]) -> None:
    """Set the groups' own rates, except where a scheduler or the optimizer itself has the say."""
    for group, ours in zip(own.param_groups, groups, strict=True):
        # A scheduler notes the rate that it began with. A rate of None is the optimizer's choice.
        if "initial_lr" not in group and group.get("lr") is not None:
            if isinstance(group["lr"], Tensor):
                # Groups made from one default may share its tensor.
                group["lr"] = group["lr"].detach().clone()
            _set_rate(group, ours.lr)


@contextmanager
def rates_times(own: Any, factors_G: Tensor) -> Iterator[None]:
    """Multiply the rates by the schedule's factors for one step of the optimizer."""
    groups = [group for group in own.param_groups if group.get("lr") is not None]
    rates = [float(group["lr"]) for group in groups]
    products = [rate * f for rate, f in zip(rates, _of_rated(own, factors_G), strict=True)]
    stepped: list[float] = torch.stack(products).tolist() if products else []
    for group, lr in zip(groups, stepped, strict=True):
        _set_rate(group, lr)
    is_due = True

    def put_back(*_: object) -> None:
        nonlocal is_due
        if is_due:
            is_due = False
            for group, lr, rate in zip(groups, stepped, rates, strict=True):
                now = float(group["lr"])
                # The optimizer may have changed it.
                _set_rate(group, rate if now == lr or not lr else rate * (now / lr))

    # A scheduler in a hook of the step itself finds, and may set, the rate without the factor.
    hooks: Any = getattr(own, "_optimizer_step_post_hooks", None)
    handle = None if hooks is None else own.register_step_post_hook(put_back)
    if handle is not None:
        hooks.move_to_end(handle.id, last=False)
    yield
    if handle is not None:
        handle.remove()
    put_back()


def _of_rated(own: Any, factors_G: Tensor) -> list[Tensor]:
    """The factors of the groups that have a rate."""
    pairs = zip(own.param_groups, factors_G.unbind(), strict=True)
    return [factor for group, factor in pairs if group.get("lr") is not None]


def _set_rate(group: dict[str, Any], lr: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def has_modes(optimizer: Any) -> bool:
    """Return whether an optimizer keeps other weights to train than to evaluate.

    A schedule-free one does: its `eval()` puts averages in place of the weights.
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


@contextmanager
def in_eval_mode(optimizer: Any) -> Iterator[None]:
    """Put an optimizer in its evaluation mode; restore the weights exactly on exit.

    Its `train()` restores them to rounding only. A trial that was validated or resumed more often
    than another would end with other weights.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [weight.detach().clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
