"""What the attempts of one worker work with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.records import Records
from hpo.engine.recording import Recording
from hpo.study.study import OpenStudy
from objectives import Objective


@dataclass(kw_only=True)
class WorkerContext:
    """What the attempts of one worker work with.

    Attributes:
        name: The worker's, as trials show it.
        recording: Which predictions are kept.
        training_cpu_s: CPU seconds of this process in training and validation so far.
    """

    name: str
    checkpoints: Path
    device: torch.device
    objective: Objective
    opened: OpenStudy
    records: Records
    artifacts: DatabaseArtifacts
    git_sha: str
    stop: threading.Event
    recording: Recording
    training_cpu_s: float = 0.0
