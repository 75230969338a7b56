"""The checkpoints of a study's copy: staged while rows are copied, published with them.

Border: files alone; `copy` has the rows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import RunFailed


@contextmanager
def staged(checkpoints: Path, old: str, new: str) -> Iterator[Callable[[], Path | None]]:
    """Stage the checkpoints as they are now; yield the function that publishes them to the copy.

    Files are hard links where the file system allows, as a checkpoint is never changed in place.
    Until it is published, the staging folder is within the study's own. If a crash leaves it
    behind, it is deleted with that study.
    """
    staging, folder = checkpoints / old / f"{new}.tmp", checkpoints / new
    found = sorted((checkpoints / old).glob("trial_*.pt"))

    def publish() -> Path | None:
        return staging.rename(folder) if found else None

    try:
        if found:
            staging.mkdir(mode=0o700)
        for path in found:
            _link(path, staging / path.name)
        yield publish
    except BaseException as error:
        for leftover in (staging, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunFailed(f"the checkpoints cannot be copied: {error}") from error
        raise


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except FileNotFoundError:
        # The file was deleted because its trial has just ended.
        return
    except OSError:
        shutil.copy2(path, place)
