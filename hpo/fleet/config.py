"""The configuration of a fleet, and the command line of its workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpo.engine.recording import Recording
from hpo.machine.slots import Slot
from hpo.search.plugins import is_plugin
from hpo.start import PROGRAM
from hpo.study.join import Prepared
from hpo.study.request import RunRequest


@dataclass(frozen=True, kw_only=True)
class FleetConfig:
    """The configuration of a fleet: slots, folders and times."""

    slots: Sequence[Slot]
    checkpoints: Path
    logs: Path
    grace_s: float = 30.0
    timeout_s: float | None = None
    trial_timeout_s: float | None = None
    stall_s: float | None = None
    patience_s: float = 86_400.0
    recording: Recording = field(default_factory=Recording)

    @classmethod
    def below(
        cls, home: Path, request: RunRequest, prepared: Prepared, slots: Sequence[Slot]
    ) -> FleetConfig:
        """The configuration that a run requests; its files are below `home` by default."""
        uid = prepared.opened.uid
        checkpoints = (request.checkpoint_dir or home / "checkpoints") / uid
        return cls(
            slots=slots,
            checkpoints=checkpoints.absolute(),
            logs=home / "logs" / uid,
            grace_s=request.grace_s,
            timeout_s=request.timeout_s,
            trial_timeout_s=request.trial_timeout_s,
            stall_s=request.stall_s,
            patience_s=request.patience_s,
            recording=request.recording,
        )

    def argv(self, slot: Slot, prepared: Prepared) -> list[str]:
        """The command line of a worker on a slot."""
        opened = prepared.opened
        predictions, every = self.recording.flags()
        plugins = {"--sampler": opened.config.sampler, "--pruner": opened.config.pruner}
        limits = {"--stall": self.stall_s, "--trial_timeout": self.trial_timeout_s}
        return [
            *(*PROGRAM, "worker", "--study_name", opened.name),
            *("--slot", slot.name, "--device", slot.device),
            *("--checkpoint_dir", str(self.checkpoints)),
            *("--objective", prepared.objective),
            *(part for flag, name in plugins.items() if is_plugin(name) for part in (flag, name)),
            *("--predictions", predictions, "--predictions_every", every),
            *("--patience", str(self.patience_s)),
            *(part for flag, s in limits.items() if s for part in (flag, str(s))),
            *("--with_parent", str(os.getpid())),
        ]
