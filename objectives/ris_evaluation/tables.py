"""The tables of an evaluation, and sentences on their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from models.ris.evaluation import (
    BACK_PROJECTION,
    BARTLETT,
    BOUND,
    GUESS,
    LIMIT,
    MAXIMUM_LIKELIHOOD,
    MUSIC,
    MVDR,
    NETWORK,
    RIDGE,
    Set,
    by_range,
)
from models.ris.limit.reference import limit_of
from models.ris.scene.scenes import ArrayConfig
from models.ris.truth.scoring import Errors
from objectives._evaluation import Table

# Each method has its ms per scene, for one scene alone and in a batch.
Times = Mapping[str, tuple[float, float]]
# A remark spells out this many comparisons at most.
_MOST_NAMED = 3
_EFFICIENT = (
    "The bound's row is the median of errors that are normal with its covariance, as an efficient "
    "method has them."
)
_OUTLIERS = (
    "An outlier is a source whose direction errs, after matching, by more than 5 standard "
    "deviations of its bound and by more than half a beamwidth."
)


def medians(sets: Sequence[Set], times: Times) -> list[Table]:
    """Tables of the median position error by method and SNR: as found, and refined."""
    found = []
    for name, title in (("plain", ""), ("refined", ", refined")):
        rows: list[Sequence[Any]] = []
        for method in sets[0].scored:
            parts = [getattr(one.scored[method], name) for one in sets]
            row = [part.median_m for part in parts]
            whole = [Errors.joined(parts).median_m] if len(sets) > 1 else []
            rows.append((method, *row, *whole, times[method][1]))
        rows.append(_bound_medians(sets))
        whole_head = ["all"] if len(sets) > 1 else []
        found.append(
            Table(
                name=f"median_{name}",
                title=f"Median position error in m{title}",
                head=("method", *(one.label for one in sets), *whole_head, "ms a scene"),
                rows=rows,
                note=f"Outliers included. {_EFFICIENT} Times are without refinement, but for "
                "maximum likelihood, of which it is part.",
            )
        )
    return found


def _bound_medians(sets: Sequence[Set]) -> Sequence[Any]:
    parts = [one.efficient_SD for one in sets]
    whole = [torch.cat(parts)] if len(sets) > 1 else []
    return (BOUND, *(float(part.median()) for part in (*parts, *whole)), None)


def ratios(sets: Sequence[Set]) -> Table:
    """Table of the RMSE of the sources found over the bound's, in scenes of one source."""
    head, rows = _plain_and_refined(sets, lambda errors, one: of_count(errors, one, 1).ratio)
    return Table(
        name="ratio_one_source",
        title="RMSE over the Cramér–Rao bound, scenes of one source",
        head=head,
        rows=rows,
        note=f"Of the sources found. {_OUTLIERS} Below 1 a method is better than any without bias "
        "could be: it knows the region that sources come from.",
    )


def outliers(sets: Sequence[Set]) -> Table:
    """Table of the share of sources that were not found."""
    head, rows = _plain_and_refined(sets, lambda errors, one: 100 * errors.outlier_rate)
    return Table(
        name="outliers", title="Sources not found, %", head=head, rows=rows, note=_OUTLIERS
    )


def beyond_beam(sets: Sequence[Set]) -> Table:
    """Table of the share of sources whose direction errs by more than half a beamwidth."""
    head, rows = _plain_and_refined(sets, lambda errors, one: 100 * errors.beyond_beam_rate)
    return Table(
        name="beyond_half_beam",
        title="Direction wrong by more than half a beamwidth, %",
        head=head,
        rows=rows,
        note="The same threshold at every SNR, whatever the bound.",
    )


def _plain_and_refined(
    sets: Sequence[Set], figure: Callable[[Errors, Set], float]
) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """Head and rows of a figure by method and set, as found and refined."""
    columns = [f"{one.label}{kind}" for one in sets for kind in ("", ", refined")]
    rows: list[Sequence[Any]] = []
    for method in sets[0].scored:
        pairs = [(one, one.scored[method]) for one in sets]
        found = [
            figure(errors, one)
            for one, scored in pairs
            for errors in (scored.plain, scored.refined)
        ]
        rows.append((method, *found))
    return ("method", *columns), rows


def accuracy(sets: Sequence[Set]) -> Table:
    """Table of all figures by SNR and method."""
    rows: list[Sequence[Any]] = []
    for one in sets:
        for method, scored in one.scored.items():
            plain, refined = scored.plain, scored.refined
            rows.append(
                (
                    *(one.label, method, float(scored.epsilon_B.mean())),
                    *(plain.median_m, refined.median_m),
                    *(100 * plain.outlier_rate, 100 * refined.outlier_rate),
                    *(plain.angle_rmse_deg, refined.angle_rmse_deg),
                    *(plain.range_rmse_m, refined.range_rmse_m),
                    *(plain.ratio, refined.ratio),
                )
            )
        empty = [None] * 6
        rows.append(
            (
                one.label,
                BOUND,
                float(one.bounds.epsilon_B.mean()),
                float(one.efficient_SD.median()),
                None,
                *empty,
                1,
                1,
            )
        )
        limit = limit_of(one.scenes)
        if limit is not None:
            rows.append((one.label, LIMIT, limit.epsilon, *[None] * 10))
    measures = ("median m", "outliers %", "angle RMSE °", "range RMSE m", "RMSE/bound")
    columns = [f"{measure}{kind}" for measure in measures for kind in ("", ", refined")]
    return Table(
        name="accuracy",
        title="Accuracy",
        head=("scenes", "method", "ε", *columns),
        rows=rows,
        note="ε is the part of the sources' span that the dominant eigenvectors of the covariance "
        "miss, or the steering vectors at the positions where a method has no covariance; the "
        "bound's is of first order, clamped at 1. The exact posterior's has the least mean that is "
        "possible over the whole range of SNRs for whoever does not know the SNR; the frozen test "
        "sets have it. "
        f"{_EFFICIENT} RMSE and its ratio to the bound are of the "
        f"sources found. {_OUTLIERS}",
    )


def groups(sets: Sequence[Set], config: ArrayConfig) -> Table:
    """Table by the number of sources and by their range, over all SNR."""
    rows: list[Sequence[Any]] = []
    for method in sets[0].scored:
        pairs = [(one.scored[method].plain, one.scored[method].refined) for one in sets]
        for count in range(1, config.max_sources + 1):
            both = [
                Errors.joined([of_count(pair[i], one, count) for pair, one in zip(pairs, sets)])
                for i in (0, 1)
            ]
            rows.append((f"K = {count}", method, *_figures(*both)))
        scenes = [one.scenes for one in sets]
        thirds = [by_range(Errors.joined([pair[i] for pair in pairs]), scenes) for i in (0, 1)]
        for name, plain, refined in zip(("near", "middle", "far"), *thirds):
            rows.append((name, method, *_figures(plain, refined)))
    order = {"near": 10, "middle": 11, "far": 12}
    rows.sort(key=lambda row: order.get(row[0], 0) or int(row[0].removeprefix("K = ")))
    measures = ("median m", "outliers %", "RMSE/bound")
    return Table(
        name="groups",
        title="By the number of sources, and by thirds of their range",
        head=(
            "scenes",
            "method",
            *(f"{measure}{kind}" for measure in measures for kind in ("", ", refined")),
        ),
        rows=rows,
        note="All SNR together.",
    )


def times(found: Times) -> Table:
    """Table of the time per scene of each method."""
    reference = found[MAXIMUM_LIKELIHOOD]
    rows = [
        (name, *both, both[0] / reference[0], both[1] / reference[1])
        for name, both in found.items()
    ]
    return Table(
        name="time",
        title="Time per scene in ms",
        head=("method", "alone", "in 200", "alone, of ML's", "in 200, of ML's"),
        rows=rows,
        note="One thread; without refinement, but for maximum likelihood, of which it is part.",
    )


def verdicts(sets: Sequence[Set], times: Times) -> list[str]:
    """Sentences on the network's targets: met or missed, and by how much."""
    low = [one for one in sets if float(one.label.split()[0]) <= 10]
    rivals = (BARTLETT, MVDR, MUSIC, BACK_PROJECTION, RIDGE)
    lost = [
        f"{rival} at {one.label} ({one.scored[rival].plain.median_m:.3f} m against "
        f"{one.scored[NETWORK].plain.median_m:.3f} m)"
        for one in low
        for rival in rivals
        if one.scored[rival].plain.median_m <= one.scored[NETWORK].plain.median_m
    ]
    found = [
        "median error: below Bartlett's, MVDR's, MUSIC's per code, of back-projection and of the "
        "ridge at every SNR up to 10 dB"
        if not lost
        else f"median error up to 10 dB: not below {'; '.join(lost[:_MOST_NAMED])}"
        + f"; and {len(lost) - _MOST_NAMED} more" * (len(lost) > _MOST_NAMED)
    ]
    ours, theirs = (
        Errors.joined([one.scored[name].plain for one in sets]).median_m
        for name in (NETWORK, MAXIMUM_LIKELIHOOD)
    )
    share = times[NETWORK][1] / times[MAXIMUM_LIKELIHOOD][1]
    by_snr = ", ".join(
        f"{_percent(one.scored[NETWORK], one.scored[MAXIMUM_LIKELIHOOD])} at {one.label}"
        for one in sets
    )
    found.append(
        f"against greedy maximum likelihood: {100 * (ours / theirs - 1):+.0f} % median error over "
        f"all SNR ({by_snr}), in {share:.2f} of its time per scene"
    )
    clear = [one for one in sets if float(one.label.split()[0]) >= 10]
    ratio_text = ", ".join(
        f"{of_count(one.scored[NETWORK].refined, one, 1).ratio:.2f} at {one.label}" for one in clear
    )
    found.append(f"refined, one source: RMSE over the bound {ratio_text}")
    noisy = sets[0]
    compared = (NETWORK, MAXIMUM_LIKELIHOOD, RIDGE)
    for what, rate in (
        ("not found", "outlier_rate"),
        ("wrong by more than half a beamwidth", "beyond_beam_rate"),
    ):
        ours, theirs, ridge = (getattr(noisy.scored[name].plain, rate) for name in compared)
        found.append(
            f"{what} at {noisy.label}: {100 * ours:.1f} %; maximum likelihood "
            f"{100 * theirs:.1f} %, the ridge {100 * ridge:.1f} % "
            f"({ours / max(ridge, 1e-9):.2f} of these)"
        )
    unseen = noisy.scored[GUESS].plain
    found.append(
        f"a guess, each source in the middle of its part of the region: {unseen.median_m:.3f} m at "
        f"{noisy.label}, {100 * unseen.outlier_rate:.1f} % not found; a figure no better than that "
        "owes nothing to the snapshots"
    )
    return found


def _percent(ours: Any, theirs: Any) -> str:
    return f"{100 * (ours.plain.median_m / theirs.plain.median_m - 1):+.0f} %"


def _figures(plain: Errors, refined: Errors) -> Sequence[float]:
    return (
        *(plain.median_m, refined.median_m),
        *(100 * plain.outlier_rate, 100 * refined.outlier_rate),
        *(plain.ratio, refined.ratio),
    )


def of_count(errors: Errors, one: Set, count: int) -> Errors:
    """Errors in the scenes that have `count` sources."""
    count_B = one.scenes.source_mask_BK.sum(-1).cpu()
    return errors.select(count_B[errors.scene_S] == count)
