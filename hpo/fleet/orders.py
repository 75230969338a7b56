"""An operator's orders as a run obeys them: slots that were drained, and a study that is paused.

Border: reads orders, and marks seats; `fleet` starts workers, and the workers obey by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from hpo.fleet.seats import Seat
from hpo.launch.supervisor import Process
from hpo.study.join import Prepared
from hpo.tickets.crew import Crew
from hpo.tickets.leases import host_name
from hpo.tickets.orders import paused


class Orders:
    """The orders for one run.

    Args:
        is_local: True if the workers run on this host.

    Attributes:
        pause: The study's pause in a sentence; None without one.
    """

    def __init__(self, prepared: Prepared, seats: Mapping[str, Seat], *, is_local: bool) -> None:
        self._db, self._uid, self._seats = prepared.db, prepared.opened.uid, seats
        self._crew = Crew(prepared.db, prepared.opened.uid)
        # Elsewhere an engine has chosen the host, and the slots have its name.
        self._host = host_name() if is_local else None
        self.pause: str | None = None

    def look(self, study: str) -> None:
        """Read whether the study, now of this name, is paused."""
        found = paused(self._db, self._uid)
        self.pause = None if found is None else found.sentence(study)

    def has_drained(self, process: Process) -> bool:
        """Return whether a worker that ended was drained; keep its seat empty then."""
        slot, pid = process.slot.name, process.launched.pid
        age_s = time.monotonic() - process.started_at
        is_drained = self._crew.has_drained(slot, self._host, pid=pid, age_s=age_s)
        self._seats[slot].is_drained |= is_drained
        self._crew.sweep()
        return is_drained

    def all_drained(self) -> bool:
        """Return whether no seat is left, and that not for failures alone."""
        seats = self._seats.values()
        return any(one.is_drained for one in seats) and not any(one.is_open for one in seats)
