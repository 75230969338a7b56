"""The rows and files that `delete` and `gc` remove, on the terminal."""

from __future__ import annotations

from hpo.display.console import errors, results
from hpo.study.deletion import Content
from hpo.study.leftovers import Leftovers


def print_content(study: str, content: Content) -> None:
    """Print on stderr the content that would be deleted."""
    rows = content.rows
    sizes = [path.stat().st_size for path in content.checkpoints]
    checkpoints_mb, artifacts_mb, stored_mb = (
        sum(each) / 1e6 for each in (sizes, content.artifacts, content.stored)
    )
    lines = {
        "study": study,
        "trials": f"{rows['trials']:,}",
        "records": f"{rows['metrics']:,} of epochs, {rows['divergences']:,} of divergences",
        "artifacts": f"{len(content.artifacts):,} ({artifacts_mb:.1f} MB)",
        **(
            {"copies": f"{len(content.stored):,} checkpoints in the database ({stored_mb:.1f} MB)"}
            if content.stored
            else {}
        ),
        "files": f"{len(content.checkpoints):,} checkpoints ({checkpoints_mb:.1f} MB), "
        f"{len(content.logs):,} logs, on this host",
    }
    for name, value in lines.items():
        errors.print(f"{name:<10} {value}")


def print_leftovers(found: Leftovers, *, dry_run: bool) -> None:
    """Print on stdout what gone studies had left behind."""
    # Predictions are counted on a line of their own.
    rows = [f"{n:,} {table}" for table, n in found.rows.items() if n and table != "predictions"]
    files_mb, artifacts_mb = found.file_bytes / 1e6, found.artifact_bytes / 1e6
    parts = {
        f"{', '.join(rows)} of {found.studies:,} studies that are gone": rows,
        f"{found.files:,} files of theirs on this host ({files_mb:.1f} MB)": found.files,
        f"{found.artifacts:,} artifacts without a study ({artifacts_mb:.1f} MB)": found.artifacts,
    }
    for text, is_there in parts.items():
        if is_there:
            results.print(f"{text} {'would be removed' if dry_run else 'removed'}")
