"""Measure the cost of coordination: the service's time per trial against bare Optuna and Ray Tune.

    python benchmarks/coordination.py --out coordination.json                     # everything
    python benchmarks/coordination.py --rows local-0,local-1000 --times 3         # a part of it
    python benchmarks/coordination.py --ray_python VENV/bin/python --rows two-0   # beside Ray Tune

    local-N     one worker, N trials ended before: the service and bare Optuna
    network-N   the same behind a proxy that makes each round trip 1 ms longer
    eight-N     8 workers on this machine
    two-0       2 workers, and Ray Tune with its own searcher and 2 reused actors
    engine      the service's engine without a database

One committed task for all (`peers/objective.py`): 12 parameters, 12 reports, 8 attributes, one
weight. All peers of a row run in turn, as often as `--times` says, or both at the same time
(`--together`). Each time has a fresh copy of a study in which thousands of trials have ended, on a
PostgreSQL server of the benchmark's own. Times are from start to start of trials, by the database's
clock; the first trials of each worker are left out. Printed are medians with smallest and largest
figures, and ratios within the same turn. Other work on this machine disturbs times, less so CPU:
`others_cores` says how much there was, a peer at the same time included. `--out FILE` stores all
figures, and the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from peers import others, studies
from peers.kept import Kept, described, say, spread
from peers.processes import end_cleanly
from peers.running import Running
from peers.server import Server, started
from peers.window import Size, measure

SIZES = (0, 1000, 5000, 10000)
_NETWORK_MS = 1.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        ended: Trials that have ended before.
        round_trip_ms: Time that the network adds to a round trip.
        peers: Who runs it.
    """

    ended: int
    workers: int = 1
    round_trip_ms: float = 0.0
    size: Size = field(default_factory=Size)
    peers: Sequence[str] = ("hpo", "optuna")


ROWS: Mapping[str, Row] = {
    **{f"local-{n}": Row(ended=n) for n in SIZES},
    "engine": Row(ended=0, peers=("engine",)),
    **{
        f"network-{n}": Row(ended=n, round_trip_ms=_NETWORK_MS, size=Size(warm=2, timed=12))
        for n in SIZES
    },
    **{f"eight-{n}": Row(ended=n, workers=8, size=Size(warm=2, timed=400)) for n in (0, 1000)},
    "two-0": Row(ended=0, workers=2, size=Size(timed=60), peers=("hpo", "optuna", "ray")),
}


@dataclass(frozen=True, kw_only=True)
class Stand:
    """What all repetitions of a row share.

    Attributes:
        databases: The studies' template databases by peer; empty if no peer of the row has one.
        ray: The interpreter with Ray Tune; None without one.
    """

    row: Row
    server: Server
    databases: Mapping[str, str]
    port: int | None
    ray: str | None

    def figures(self, peers: Sequence[str], turn: int) -> list[dict[str, Any]]:
        """One repetition of some peers at the same time."""
        size, workers = self.row.size, self.row.workers
        if peers == ("engine",):
            return [others.engine_alone(warm=size.warm, timed=10 * size.timed)]
        if peers == ("ray",):
            assert self.ray is not None
            return [others.ray_tune(self.ray, workers=workers, warm=size.warm, timed=size.timed)]
        begin = partial(
            Running,
            self.server,
            ended=max(self.row.ended, studies.RUN),
            workers=workers,
            port=self.port,
            seed=turn,
        )
        return measure([partial(begin, peer, self.databases[peer]) for peer in peers], size)


def perform(
    name: str, server: Server, kept: Kept, *, times: int, ray: str | None, is_together: bool
) -> None:
    """Run all repetitions of a row that are not kept."""
    row = ROWS[name]
    mode = "together" if is_together and row.workers == 1 else "in turn"
    key = {"row": name, "commit": described(), "mode": mode}
    groups: list[tuple[str, ...]] = [
        (peer,) for peer in row.peers if peer != "ray" or ray is not None
    ]
    if mode == "together" and len(groups) > 1:
        groups = [tuple(row.peers)]
    missing = [
        (turn, group)
        for turn in range(times)
        for group in (groups if turn % 2 == 0 else groups[::-1])
        if not all(kept.find(**key, peer=peer, turn=turn) for peer in group)
    ]
    with ExitStack() as stack:
        databases, port, own = {}, None, {}
        if missing and row.peers != ("engine",):
            say(f"{name}: filling studies of {row.ended} trials")
            databases = studies.templates(server, row.ended)
        if missing and row.round_trip_ms:
            port = stack.enter_context(server.delayed(row.round_trip_ms))
            own = {"round_trip_ms": server.round_trip_ms(port)}
            say(f"{name}: a round trip takes {line(own)}, {server.round_trip_ms():.2f} without")
        stand = Stand(row=row, server=server, databases=databases, port=port, ray=ray)
        for turn, group in missing:
            for peer, found in zip(group, stand.figures(group, turn), strict=True):
                kept.add({**key, "peer": peer, "turn": turn, **own, **found})
                say(f"{name} {peer} {turn} {mode}: " + line(found))


def line(found: Mapping[str, Any]) -> str:
    """The figures of one repetition in a line."""
    return ", ".join(f"{key} {value:.4g}" for key, value in found.items())


_COLUMNS: Mapping[str, int] = {
    "per_trial_ms": 0,
    "trials_per_s": 1,
    "worker_cpu_ms": 0,
    "server_cpu_ms": 0,
    "memory_mb": 0,
    "others_cores": 1,
}


def table(kept: Kept, names: Sequence[str]) -> str:
    """All rows as Markdown."""
    head = [
        "row",
        "peer",
        "turns",
        *_COLUMNS,
        "bare Optuna's time / this one's",
        "its CPU / this one's",
    ]
    lines = [head, ["---"] * len(head)]
    for name in names:
        for peer in ROWS[name].peers:
            found = [one for one in kept.all if (one["row"], one["peer"]) == (name, peer)]
            if not found:
                lines.append([name, peer, "0", *["-"] * len(_COLUMNS), "not installed", "-"])
                continue
            cells = [
                spread([one[key] for one in found], digits) if key in found[0] else "-"
                for key, digits in _COLUMNS.items()
            ]
            lines.append([name, peer, str(len(found)), *cells, *_ratios(kept, found)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _ratios(kept: Kept, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Time and CPU of bare Optuna in the same turn over this peer's."""
    cells = []
    for figure in ("per_trial_ms", "cpu_ms"):
        ratios = []
        for one in found:
            key = {name: one[name] for name in ("row", "turn", "commit", "mode")}
            other = kept.find(peer="optuna", **key)
            if other is not None and one["peer"] != "optuna" and figure in one:
                ratios.append(other[figure] / one[figure])
        cells.append(spread(ratios, 2) if ratios else "-")
    return cells


def growth(kept: Kept, peer: str) -> str:
    """A line on how much longer a trial of a peer takes in the largest study than in an empty one.

    Both are of the same turn and commit, though minutes apart.
    """
    found = []
    for one in kept.all:
        if (one["row"], one["peer"]) == (f"local-{SIZES[-1]}", peer):
            key = {"peer": peer, **{name: one[name] for name in ("turn", "commit", "mode")}}
            empty = kept.find(row="local-0", **key)
            if empty is not None:
                found.append(one["per_trial_ms"] / empty["per_trial_ms"])
    return f"growth of {peer} from 0 to {SIZES[-1]:,} trials: {spread(found, 2) if found else '-'}"


def main() -> int:
    """Measure rows, print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="names, with commas (default: all)")
    parser.add_argument("--times", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument(
        "--together",
        action="store_true",
        help="run both peers of a row with one worker at the same time: on a machine with other "
        "work, the ratio is of equal conditions",
    )
    parser.add_argument("--ray_python", help="an interpreter with ray[tune] and torch")
    parser.add_argument("--out", type=Path, help="file of all figures, as JSON")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    end_cleanly()
    kept = Kept(given.out)
    ray = given.ray_python if given.ray_python and others.has_ray(given.ray_python) else None
    if ray is None:
        say("Ray Tune is not installed; its row is left out (--ray_python)")
    with started() as server:
        for name in names:
            perform(name, server, kept, times=given.times, ray=ray, is_together=given.together)
    print(table(kept, names), *(growth(kept, peer) for peer in ("hpo", "optuna")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
