"""What the doctor finds, a line each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from hpo.diagnosis import Finding
from hpo.display.console import errors, results

_SHOWN = {"ok": "ok     ", "warning": "[yellow]warning[/yellow]", "failed": "[red]FAILED[/red] "}


def print_finding(finding: Finding) -> None:
    """One finding, on stdout, and below it its cure."""
    results.print(f"{_SHOWN[finding.state]}  {finding.name:<13}  {escape(finding.found)}")
    if finding.cure:
        results.print(f"         cure           {escape(finding.cure)}")


def print_summary(findings: Sequence[Finding]) -> None:
    """How many of the checks failed, on stderr."""
    failed = sum(finding.state == "failed" for finding in findings)
    warned = sum(finding.state == "warning" for finding in findings)
    errors.print(f"{len(findings)} checks: {failed} failed, {warned} with a warning")
