"""The context of a worker's attempts."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.records import Records
from hpo.engine.recording import Recording
from hpo.study.study import OpenStudy
from hpo.task.process import ProcessState
from hpo.worker.depot import Depot
from hpo.worker.pulse import Pulse
from objectives import Objective


@dataclass(kw_only=True)
class WorkerContext:
    """Configuration, connections and state that all attempts of one worker share.

    Attributes:
        name: The worker's name, as trials show it.
        opened: The study with the configuration of the current ticket.
        stop: Set when the worker has to stop.
        recording: Settings of the predictions that its trials record.
        pulse: The phase of the training, which the supervisor reads.
        process_state: The settings of this process as the objective's import left them.
        trial_timeout_s: Wall time of a trial; None for no limit.
        depot: The copies of its checkpoints that other hosts reach; None if it makes none.
        training_cpu_s: CPU seconds of this process in training and validation so far.
        swept_at: The time of the last listing of the checkpoints.
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
    pulse: Pulse
    process_state: ProcessState = field(default_factory=ProcessState)
    trial_timeout_s: float | None = None
    depot: Depot | None = None
    training_cpu_s: float = 0.0
    swept_at: float = -math.inf
