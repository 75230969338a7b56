"""The workers of a fleet on the terminal, one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from hpo.display.console import duration
from hpo.machine.version import digest
from hpo.tickets.roster import Manned

_COLUMNS = ("study", "worker", "launcher", "gpu", "up", "trial", "epoch", "step", "beat", "code")


def table(found: Sequence[Manned]) -> Table:
    """Lay out the workers; code that differs from most of its study is marked with '!'."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in _COLUMNS:
        shown.add_column(column, justify="right" if column in ("epoch", "step") else "left")
    codes: dict[str, Counter[str]] = {}
    for one in found:
        codes.setdefault(one.study_uid, Counter())[digest(one.version)] += 1
    for one in found:
        code, usual = digest(one.version), codes[one.study_uid].most_common(1)[0][0]
        shown.add_row(
            one.study,
            one.worker,
            one.launcher,
            one.gpu or "-",
            duration(one.up_s),
            _trial(one),
            "-" if one.epoch is None else f"{one.epoch}/{one.epochs or '?'}",
            f"{one.step or 0:,}/{one.steps:,}" if one.steps else "-",
            f"{duration(one.silent_s)} ago" + (", silent" if one.is_silent else ""),
            code if code == usual else f"{code} !",
        )
    return shown


def _trial(one: Manned) -> str:
    """The trial that a worker holds, and what it is asked to do after it."""
    what = "idle" if one.is_idle else "asking" if one.trial is None else str(one.trial)
    return f"{what}, then leaves" if one.is_drained else what
