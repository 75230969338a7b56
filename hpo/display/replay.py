"""A replayed step on the terminal: verdict, passes by precision, spectra."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hpo.display.console import results
from hpo.guard.evidence import Evidence
from hpo.guard.replay import Replayed


def print_replayed(found: Replayed, *, step: int | None) -> None:
    """Print a replayed step and its verdict on stdout."""
    evidence = found.evidence
    results.print(f"trial      {found.about['trial']}, pruned as {found.recorded}")
    origin = f"of step {found.step}" if step is None else f"of step {step}, drawn anew"
    results.print(f"step       {found.step}, {found.precision}; the batch {origin}")
    same = ", as recorded" if found.reason == found.recorded else ""
    verdict = Text.assemble("verdict    ", (found.reason or "benign", "bold"), same)
    results.print(verdict)
    if found.reason is not None:
        results.print(f"           {found.detail}")
    if evidence.passes:
        results.print(_table_of_passes(evidence))
    if evidence.spectra:
        results.print(_table_of_spectra(evidence))
    if evidence.scales:
        last = ", ".join(f"{s}: {scale:g} ({n})" for s, scale, n in evidence.scales[-8:])
        results.print(f"scale      by step, with the steps withheld by then: {last}")


def _table_of_passes(evidence: Evidence) -> Table:
    table = Table("precision", "term", "value", "gradient norm by group", box=None)
    for precision, look in evidence.passes.items():
        if look.error is not None:
            table.add_row(precision, "-", "-", look.error)
        for term, value in look.terms.items():
            norms = look.grad_norms.get(term, {})
            shown = ", ".join(f"{group} {norm:.4g}" for group, norm in norms.items())
            table.add_row(precision, term, f"{value:.6g}", shown or "no gradient")
    return table


def _table_of_spectra(evidence: Evidence) -> Table:
    table = Table(
        *("decomposition", "at", "shape", "matrices", "condition", "smallest gap", "ties"),
        box=None,
    )
    for spectrum in evidence.spectra:
        table.add_row(
            spectrum.operation,
            spectrum.where,
            "×".join(map(str, spectrum.shape)),
            str(spectrum.matrices),
            f"{spectrum.condition:.3g}",
            f"{spectrum.smallest_gap:.3g}",
            str(spectrum.ties),
        )
    return table
