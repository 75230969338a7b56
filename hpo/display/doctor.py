"""The findings of `doctor` on the terminal, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.display.console import errors, results, state_line
from hpo.doctor.finding import Finding


def print_finding(finding: Finding) -> None:
    """Print a finding, and its cure below it, on stdout."""
    results.print(state_line(finding.state, f"{finding.name:<13}  {finding.found}"))
    if finding.cure:
        results.print(f"         cure           {finding.cure}")


def print_summary(findings: Sequence[Finding]) -> None:
    """Print on stderr how many of the checks failed."""
    failed = sum(finding.state == "failed" for finding in findings)
    warned = sum(finding.state == "warning" for finding in findings)
    errors.print(f"{len(findings)} checks: {failed} failed, {warned} with a warning")
