"""Validate a task as training does: evaluation mode, no autocast, figures as numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch

from hpo.errors import ObjectiveError
from hpo.task.forward import LinAlgError
from hpo.task.state import evaluating
from objectives import Task

_logger = logging.getLogger(__name__)


def validated(task: Task, *, device: torch.device, metric: str) -> dict[str, float]:
    """Figures of a validation; the metric is NaN if a decomposition refused its matrix."""
    try:
        with evaluating(task, device):
            return _figures(task.validate(), metric)
    except LinAlgError as error:
        _logger.warning("validation: %s", error)
        return {metric: math.nan}


def _figures(found: Any, metric: str) -> dict[str, float]:
    """Convert what a validation returned to numbers.

    Raises:
        ObjectiveError: `found` is no mapping of names to numbers, or lacks the metric.
    """
    if not isinstance(found, Mapping) or metric not in found:
        given = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise ObjectiveError(f"validate() returned {given} without the metric '{metric}'")
    figures = {}
    for name, value in found.items():
        try:
            figures[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ObjectiveError(
                f"validate() returned {value!r} for '{name}', which is no number"
            ) from error
    return figures
