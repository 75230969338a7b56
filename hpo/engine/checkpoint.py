"""A trial's checkpoint: one file, written under a temporary name and renamed into place.

A checkpoint is an insurance: if it cannot be written, the trial goes on without it; if it cannot be
read, the trial starts over.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch

from hpo import files

CHECKPOINT_VERSION = 3

_logger = logging.getLogger(__name__)


def file_of(folder: Path, trial_number: int) -> Path:
    """Path of a trial's checkpoint."""
    return folder / f"trial_{trial_number:05d}.pt"


def sweep(folder: Path, ended: Container[int], *, keep: int | None) -> None:
    """Delete the checkpoints of ended trials, except that of trial `keep`."""
    for file in (*folder.glob("trial_*"), *folder.glob(".trial_*.tmp")):
        number = int(file.name.lstrip(".").split(".")[0].removeprefix("trial_"))
        if number in ended and (number != keep or file.suffix == ".tmp"):
            file.unlink(missing_ok=True)


def write(path: Path, about: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a trial's description and its state."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.renamed(path) as file:
            torch.save({"version": CHECKPOINT_VERSION, "about": dict(about), **state}, file)
    except (OSError, RuntimeError) as error:
        _logger.warning("checkpoint %s cannot be written: %s", path, error)


def read(path: Path, about: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Read a trial's state; None without a readable file of this trial and version."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if state["version"] != CHECKPOINT_VERSION or state["about"] != dict(about):
            raise ValueError("it is of another trial or version")
    except Exception as error:
        _logger.warning("checkpoint %s cannot be used, starting over: %s", path, error)
        return None
    return state
