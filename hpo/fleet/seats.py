"""Seats of a fleet: one on each slot, with the deaths of its workers in a row.

A worker that was killed from outside is started again after a pause that grows with each quick
death, and never ends a run. A seat whose workers end by themselves is retired, so that one bad
device does not end the others; the run fails when all seats are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hpo.errors import ConfigurationError
from hpo.launch.launcher import LOST
from hpo.machine.slots import Slot

# No restart cures the cause if a worker ends this early, this often in a row.
_QUICK_S = 20.0
_QUICK_DEATHS = 3
# A trial fails after two lost workers. So many in a row, with no trial trained on the seat in
# between, are five configurations, or a device that breaks each.
_LOSING_DEATHS = 10
# A worker that is killed as soon as it has started costs its start: 5 to 10 s of a core.
_PAUSES_S = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(kw_only=True)
class Seat:
    """The workers of one slot, one after the other.

    Attributes:
        starts_at: Monotonic time before which no worker is started.
        is_retired: True if no worker is started any more.
        is_drained: True if an operator has drained its worker, which no other follows.
    """

    slot: Slot
    starts_at: float = 0.0
    is_retired: bool = False
    is_drained: bool = False
    _deaths: dict[str, int] = field(default_factory=lambda: {"outside": 0, "own": 0, "trial": 0})

    @property
    def is_open(self) -> bool:
        """True if a worker is to run here."""
        return not (self.is_retired or self.is_drained)

    def note_trained(self) -> None:
        """Count a trial that was trained to its end here."""
        self._deaths = dict.fromkeys(self._deaths, 0)

    def note_end(self, code: int, *, lived_s: float) -> None:
        """Count the end of a worker; retire the seat if its workers keep ending by themselves."""
        if code == 0:
            return
        if code == ConfigurationError.exit_code:
            self.is_retired = True
            return
        kind = "outside" if code < 0 else "trial" if code == LOST else "own"
        if kind != "trial" and lived_s > _QUICK_S:
            self._deaths[kind] = 0
        self._deaths[kind] += 1
        if kind == "outside":
            pause_s = _PAUSES_S[min(self._deaths[kind], len(_PAUSES_S)) - 1]
            self.starts_at = time.monotonic() + pause_s
        most = {"own": _QUICK_DEATHS, "trial": _LOSING_DEATHS}
        self.is_retired = self._deaths[kind] >= most.get(kind, float("inf"))
