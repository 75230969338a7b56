"""The compose file as its engine would read it, with the defaults of its variables."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.program import ROOT


def composed() -> dict[str, Any]:
    """The file's content, each `${NAME:-default}` replaced by its default."""
    text = (ROOT / "docker-compose.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return found
