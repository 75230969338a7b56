"""Lines of a depot in the worker's log: each state of its store is said once.

Border: words; `depot` knows what happened.
"""

from __future__ import annotations

import logging

from hpo.database.faults import reason
from hpo.worker.transfer import Found, Owner, Store

_logger = logging.getLogger(__name__)


class DepotLog:
    """The log of one worker's copies.

    Attributes:
        is_away: True if the store failed when it was last asked to take a checkpoint, or later.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refusals: set[str] = set()
        self.is_away = False

    def away(self, error: Exception) -> None:
        """Note that the store failed."""
        if not self.is_away:
            self.is_away = True
            text = "%s takes or gives no checkpoint, and training goes on: %s"
            _logger.warning(text, self._store, reason(error))

    def back(self) -> None:
        """Note that the store has taken a checkpoint."""
        if self.is_away:
            self.is_away = False
            _logger.warning("%s takes checkpoints again", self._store)

    def refused(self, text: str) -> None:
        """Note why the store does not take a checkpoint that it could have."""
        if text not in self._refusals:
            self._refusals.add(text)
            cure = "name a folder that all hosts share, or a URL (--checkpoint_dir)"
            _logger.warning("%s, so no other host could go on with the trial; %s", text, cure)

    def found(self, owner: Owner, found: Found, *, seconds: float) -> None:
        """Note what was found for a trial that goes on."""
        log, copy = f"ticket {owner.ticket.ticket} | trial {owner.number}", found.brought
        if found.damaged:
            text = "%s | %d copies in %s are not whole, looking further back"
            _logger.warning(text, log, found.damaged, self._store)
        if copy is not None:
            text = "%s | step %d, copied by attempt %d, came from %s in %.1f s"
            _logger.info(text, log, copy.step, copy.attempt, self._store, seconds)

    def left_behind(self, owner: Owner, wait_s: float) -> None:
        """Note that the last checkpoint of a trial that is given back was not copied."""
        text = "ticket %d | its last checkpoint was not copied to %s within %.0f s"
        _logger.warning(text, owner.ticket.ticket, self._store, wait_s)

    def unfinished(self) -> None:
        """Note that the worker ends before all is done."""
        _logger.warning("not all checkpoints have come to %s", self._store)
