"""The rows and files of a study that a deletion removes, on the terminal."""

from __future__ import annotations

from hpo.display.console import errors
from hpo.study.deletion import Content


def print_content(study: str, content: Content) -> None:
    """Print on stderr the content that would be deleted."""
    rows = content.rows
    checkpoints_mb, artifacts_mb = (
        sum(sizes) / 1e6
        for sizes in ((path.stat().st_size for path in content.checkpoints), content.artifacts)
    )
    lines = {
        "study": study,
        "trials": f"{rows['trials']:,}",
        "records": f"{rows['metrics']:,} of epochs, {rows['divergences']:,} of divergences",
        "artifacts": f"{len(content.artifacts):,} ({artifacts_mb:.1f} MB)",
        "files": f"{len(content.checkpoints):,} checkpoints ({checkpoints_mb:.1f} MB), "
        f"{len(content.logs):,} logs, on this host",
    }
    for name, value in lines.items():
        errors.print(f"{name:<10} {value}")
