"""The configuration of a fleet, and the command line of its workers."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpo import trust
from hpo.engine.recording import Recording
from hpo.launch.engine import Engine
from hpo.machine.slots import Slot
from hpo.search.plugins import is_plugin
from hpo.start import PROGRAM
from hpo.study.place import DATABASE, Place
from hpo.study.request import RunRequest

if TYPE_CHECKING:
    from hpo.study.config import StudyConfig
    from hpo.study.join import Prepared


@dataclass(frozen=True, kw_only=True)
class FleetConfig:
    """The configuration of a fleet: slots, folders and times.

    Attributes:
        program: The first words of a worker's command line.
        tether: Flags by which a worker ends with the process that started it.
        is_local: True if the workers run on this host, and share its files.
        copies: Where the workers copy checkpoints to: a URL, or the database; None for nowhere.
        gpu_share: GPUs of a worker on a GPU; a share where several have one.
    """

    slots: Sequence[Slot]
    checkpoints: Path
    logs: Path
    grace_s: float = 30.0
    timeout_s: float | None = None
    trial_timeout_s: float | None = None
    stall_s: float | None = None
    patience_s: float = 86_400.0
    fresh_process: bool = False
    allow_mixed: bool = False
    recording: Recording = field(default_factory=Recording)
    program: Sequence[str] = PROGRAM
    tether: Sequence[str] = ()
    is_local: bool = True
    copies: str | None = None
    gpu_share: float = 1.0

    @classmethod
    def below(cls, home: Path, request: RunRequest, uid: str, engine: Engine) -> FleetConfig:
        """The configuration that a run requests; its files are below `home` by default.

        Args:
            uid: The study's, which names its folders.
        """
        # Elsewhere a host's folder ends with the host.
        usual = None if engine.is_local else DATABASE
        place = Place.of(request.checkpoint_dir or usual)
        return cls(
            slots=engine.slots,
            program=engine.launcher.program,
            tether=engine.launcher.tether,
            is_local=engine.is_local,
            gpu_share=request.gpus_per_worker or 1 / request.workers_per_gpu,
            checkpoints=place.folder_of(uid, home=home),
            copies=place.copies,
            logs=home / "logs" / uid,
            grace_s=request.grace_s,
            timeout_s=request.timeout_s,
            trial_timeout_s=request.trial_timeout_s,
            stall_s=request.stall_s,
            patience_s=request.patience_s,
            fresh_process=request.fresh_process,
            allow_mixed=request.allow_mixed,
            recording=request.recording,
        )

    def argv(self, slot: Slot, prepared: Prepared) -> list[str]:
        """The command line of a worker on a slot."""
        return self.worker_argv(
            slot,
            objective=prepared.objective,
            study_name=prepared.opened.name,
            plugins=self.plugins(prepared.opened.config),
        )

    def worker_argv(
        self, slot: Slot, *, objective: str, study_name: str, plugins: Mapping[str, str]
    ) -> list[str]:
        """The command line of a worker of a study by its name."""
        return [
            *self._command(slot),
            *("--objective", objective),
            *(part for kind, spec in plugins.items() for part in (f"--{kind}", spec)),
            *("--study_name", study_name),
            *(part for name, value in self.places().items() for part in (f"--{name}", value)),
        ]

    def places(self) -> Mapping[str, str]:
        """Where a worker's checkpoints go, by its flags."""
        if self.copies is None:
            return {"checkpoint_dir": str(self.checkpoints)}
        # On another host the folder is below that host's home.
        here = {"checkpoint_folder": str(self.checkpoints)} if self.is_local else {}
        return {"checkpoint_dir": self.copies, **here}

    def first_argv(self, slot: Slot) -> list[str]:
        """The command line of the worker that starts before the study exists."""
        return [*self._command(slot), "--first"]

    def plugins(self, config: StudyConfig) -> Mapping[str, str]:
        """The user's own sampler and pruner of a study that are allowed here.

        A study's settings may have been changed since they were checked, and its worker allows what
        it is given.
        """
        kinds: Mapping[trust.Kind, str] = {"sampler": config.sampler, "pruner": config.pruner}
        return {
            kind: spec
            for kind, spec in kinds.items()
            if is_plugin(spec) and trust.is_named(kind, spec)
        }

    def log_of(self, slot: Slot) -> Path:
        """The log of the workers on a slot; hosts that share the folder write one each."""
        host = re.sub(r"[^\w.-]", "-", platform.node()) or "host"
        return self.logs / f"worker-{host}-{slot.name.replace(':', '-')}.log"

    def _command(self, slot: Slot) -> list[str]:
        predictions, every = self.recording.flags()
        limits = {"--stall": self.stall_s, "--trial_timeout": self.trial_timeout_s}
        return [
            *(*self.program, "worker", "--slot", slot.name, "--device", slot.device),
            *("--predictions", predictions, "--predictions_every", every),
            *("--patience", str(self.patience_s), "--grace", str(self.grace_s)),
            *(("--gpu_share", f"{self.gpu_share:g}") if self.gpu_share != 1 else ()),
            *(part for flag, s in limits.items() if s for part in (flag, str(s))),
            *(("--fresh_process",) if self.fresh_process else ()),
            *(("--allow_mixed",) if self.allow_mixed else ()),
            *self.tether,
        ]
