"""The pictures of an evaluation: errors over SNR, a pseudospectrum, positions true and found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.ris.estimators.pseudospectra import covariance_spectrum, factor_spectrum
from models.ris.evaluation import (
    BARTLETT,
    BOUND,
    GUESS,
    MAXIMUM_LIKELIHOOD,
    MUSIC,
    MVDR,
    NETWORK,
    RIDGE,
    Method,
    Set,
)
from models.ris.scene.scenes import ArrayConfig, Scenes, direction
from models.ris.truth.metric import match_positions
from objectives._evaluation import Figure
from objectives.ris_evaluation.tables import of_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# A method has the same colour in every picture (Okabe and Ito's, distinct to the colour-blind).
_COLOURS = {
    NETWORK: "#D55E00",
    MAXIMUM_LIKELIHOOD: "#0072B2",
    RIDGE: "#009E73",
    MUSIC: "#CC79A7",
    MVDR: "#E69F00",
    BARTLETT: "#56B4E9",
    BOUND: "#000000",
}
_COMPARED = (NETWORK, MAXIMUM_LIKELIHOOD, RIDGE)
_SHOWN_SOURCES = 120


def figures(sets: Sequence[Set], config: ArrayConfig, chosen: Sequence[Method]) -> list[Figure]:
    """All pictures that these sets allow."""
    found = []
    if len(sets) > 1:
        found.append(
            Figure(
                name="error_over_snr",
                title="Errors over SNR",
                draw=partial(_over_snr, sets),
                size_in=(11.0, 4.6),
            )
        )
    # A set at 10 dB is preferred: sources are found there, and not yet with ease.
    shown = next((one for one in sets if one.label == "10 dB"), sets[-1])
    found.append(
        Figure(
            name="pseudospectrum",
            title="Pseudospectrum of one scene",
            draw=partial(_pseudospectrum, shown, config, chosen),
            size_in=(11.0, 4.2),
        )
    )
    found.append(
        Figure(
            name="positions",
            title="Positions, true and found",
            draw=partial(_positions, shown),
            size_in=(11.0, 3.2),
        )
    )
    return found


def found_positions(
    label: str, found: Mapping[str, tuple[Tensor, Tensor]], mask_BK: Tensor
) -> list[Figure]:
    """Pictures of positions found in scenes without labels, as found and refined."""
    return [
        Figure(
            name="positions",
            title="Positions found",
            draw=partial(_found_positions, label, found, mask_BK),
            size_in=(11.0, 3.2),
        )
    ]


def _over_snr(sets: Sequence[Set], canvas: Canvas) -> None:
    """RMSE of one source with the bound, median error of all, and outliers."""
    snrs = [float(one.label.split()[0]) for one in sets]
    rmse, median, outliers = canvas.subplots(1, 3)
    for method, colour in _COLOURS.items():
        if method == BOUND:
            continue
        single = [of_count(one.scored[method].plain, one, 1) for one in sets]
        refined = [of_count(one.scored[method].refined, one, 1) for one in sets]
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3}
        rmse.plot(snrs, [errors.rmse_m for errors in single], label=method, **style)
        rmse.plot(snrs, [errors.rmse_m for errors in refined], color=colour, ls=":", lw=1)
        median.plot(snrs, [one.scored[method].plain.median_m for one in sets], **style)
        rates = [100 * one.scored[method].plain.outlier_rate for one in sets]
        outliers.plot(snrs, rates, **style)
    unseen: dict[str, Any] = {"color": "grey", "ls": "-."}
    rmse.plot([], [], label=GUESS, **unseen)
    guessed = [one.scored[GUESS].plain for one in sets]
    median.plot(snrs, [errors.median_m for errors in guessed], **unseen)
    outliers.plot(snrs, [100 * errors.outlier_rate for errors in guessed], **unseen)
    single = [of_count(one.scored[NETWORK].plain, one, 1) for one in sets]
    bound = [errors.bound_rmse_m for errors in single]
    rmse.plot([], [], color="grey", ls=":", lw=1, label="the same, refined (left)")
    rmse.plot(snrs, bound, color="black", ls="--", label=BOUND)
    efficient = [float(one.efficient_SD.median()) for one in sets]
    median.plot(snrs, efficient, color="black", ls="--")
    rmse.set_title("one source: RMSE of those found, m", fontsize=9)
    median.set_title("all scenes: median error, m", fontsize=9)
    outliers.set_title("sources not found, %", fontsize=9)
    for axes in (rmse, median, outliers):
        axes.set_xlabel("SNR, dB")
        axes.grid(alpha=0.3)
    for axes in (rmse, median):
        _in_decimals(axes)
    handles, labels = rmse.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)


def _in_decimals(axes: Axes) -> None:
    """A logarithmic axis of errors, labelled 0.1, 0.2, 0.5 instead of with powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _pseudospectrum(
    one: Set, config: ArrayConfig, chosen: Sequence[Method], canvas: Canvas
) -> None:
    """MUSIC null spectra of the network's covariance and the ridge's, at one source's range."""
    scene = _scene_to_show(one)
    scenes = one.scenes.select(slice(scene, scene + 1))
    blind = scenes.blinded()
    azimuth_X = torch.linspace(-config.azimuth_max_rad, config.azimuth_max_rad, 121)
    elevation_Y = torch.linspace(-config.elevation_max_rad, config.elevation_max_rad, 61)
    range_m = float(scenes.positions_BK3[0, 0, 2])
    grid_YX3 = torch.stack(
        [
            *torch.meshgrid(azimuth_X, elevation_Y, indexing="xy"),
            torch.full((61, 121), range_m),
        ],
        dim=-1,
    )
    positions_G3 = grid_YX3.reshape(-1, 3).to(scenes.sample_BLMM.device)
    spectra = {}
    for method in chosen:
        count_mask_BK = scenes.source_mask_BK
        if method.name == RIDGE and method.covariance is not None:
            covariance_BNN = method.covariance(blind)
            spectra[RIDGE] = covariance_spectrum(
                covariance_BNN, count_mask_BK, positions_G3, config
            )
        if method.name == NETWORK and method.factor is not None:
            factor_BNR = method.factor(blind)
            spectra[NETWORK] = factor_spectrum(factor_BNR, count_mask_BK, positions_G3, config)
    for axes, name in zip(canvas.subplots(1, 2, sharey=True), (NETWORK, RIDGE), strict=True):
        null_YX = (1 - spectra[name][0].cpu()).clamp(min=1e-4).reshape(61, 121)
        image = axes.pcolormesh(
            azimuth_X.rad2deg().numpy(),
            elevation_Y.rad2deg().numpy(),
            (-10 * null_YX.log10()).numpy(),
            cmap="viridis",
        )
        _mark(axes, scenes, one.scored[name].positions_BK3[scene : scene + 1])
        axes.set_title(f"{name}, dB", fontsize=9)
        axes.set_xlabel("azimuth, °")
        canvas.colorbar(image, ax=axes)
    snr_db = float(scenes.snr_db_B[0])
    canvas.axes[0].set_ylabel(f"elevation, ° (at {range_m:.2f} m)")
    canvas.suptitle(
        f"Null spectrum of a scene at {snr_db:.0f} dB: true positions +, found ×", fontsize=10
    )


def _scene_to_show(one: Set) -> int:
    """The first scene of several sources, else the first."""
    several_B = (one.scenes.source_mask_BK.sum(-1) > 1).cpu()
    return int(several_B.int().argmax())


def _mark(axes: Axes, scenes: Scenes, found_BK3: Tensor) -> None:
    mask_BK = scenes.source_mask_BK.cpu()
    for positions_BK3, marker in ((scenes.positions_BK3.cpu(), "+"), (found_BK3, "x")):
        degrees_S2 = positions_BK3[mask_BK][:, :2].rad2deg()
        axes.plot(*degrees_S2.T.tolist(), ls="", marker=marker, ms=11, mew=2, color="white")
        axes.plot(*degrees_S2.T.tolist(), ls="", marker=marker, ms=10, mew=1, color="black")


def _positions(one: Set, canvas: Canvas) -> None:
    """Positions from above, true and found, with the wall at the bottom."""
    names = [name for name in _COMPARED if name in one.scored]
    mask_BK = one.scenes.source_mask_BK.cpu()
    true_S2 = _from_above(one.scenes.positions_BK3.cpu()[mask_BK])[:_SHOWN_SOURCES]
    for axes, name in zip(canvas.subplots(1, len(names), sharey=True), names, strict=True):
        found_BK3, _ = match_positions(one.scored[name].positions_BK3, one.scenes.to("cpu"))
        found_S2 = _from_above(found_BK3[mask_BK])[:_SHOWN_SOURCES]
        for true_2, found_2 in zip(true_S2.tolist(), found_S2.tolist(), strict=True):
            pair = list(zip(true_2, found_2, strict=True))
            axes.plot(*pair, color=_COLOURS[name], lw=0.8, alpha=0.6)
        axes.plot(*true_S2.T.tolist(), ls="", marker="+", ms=6, color="black", label="true")
        axes.plot(
            *found_S2.T.tolist(), ls="", marker=".", ms=4, color=_COLOURS[name], label="found"
        )
        _as_a_map(axes, f"{name}, {one.label}")
    canvas.axes[0].set_ylabel("from the wall, m")


def _found_positions(
    label: str, found: Mapping[str, tuple[Tensor, Tensor]], mask_BK: Tensor, canvas: Canvas
) -> None:
    names = [name for name in _COMPARED if name in found]
    for axes, name in zip(canvas.subplots(1, len(names), sharey=True), names, strict=True):
        for positions_BK3, marker, kind in zip(found[name], (".", "x"), ("as it is", "refined")):
            shown_S2 = _from_above(positions_BK3[mask_BK].cpu())[:_SHOWN_SOURCES]
            style: dict[str, Any] = {"ls": "", "marker": marker, "ms": 5, "alpha": 0.7}
            axes.plot(*shown_S2.T.tolist(), color=_COLOURS[name], label=kind, **style)
        _as_a_map(axes, f"{name}, {label}")
    canvas.axes[0].set_ylabel("from the wall, m")


def _as_a_map(axes: Axes, title: str) -> None:
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("along the wall, m")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper left")


def _from_above(positions_S3: Tensor) -> Tensor:
    """Positions along the wall and their distance from it, in m."""
    unit_S3 = direction(positions_S3[:, 0], positions_S3[:, 1])
    return (positions_S3[:, 2:] * unit_S3)[:, [1, 0]]
