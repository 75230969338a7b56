"""Save tensors to a file, with the system's own error where that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save(content: Any, path: Path) -> None:
    """Write what `torch.load` reads.

    Raises:
        OSError: The file cannot be written; its `strerror` says why. torch itself reports a full
            disk as 'unexpected pos'.
    """
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise OSError(str(error).splitlines()[0]) from error
