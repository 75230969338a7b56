"""The code of others that may run on this host: what a command names, and what one named before.

    HPO_HOME/allowed    objective /home/me/mine.py
                        sampler mine:Sampler in /home/me

A study's settings, a training's file and a saved step name code by its place. Whoever can write
them could have any file of this host executed, so a name in them alone is no reason to.

Border: keeps and compares names; `hpo.study.objective` and `hpo.search.plugins` load what they say.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from hpo.environ import home
from hpo.errors import ConfigurationError
from objectives import folder_of

Kind = Literal["objective", "sampler", "pruner"]

# What this process was told, with the file. It counts, too, where the file cannot be written.
_named: set[tuple[Path, str]] = set()


def name(kind: Kind, spec: str) -> None:
    """Allow code that the user has named, in this process and in later ones on this host."""
    file, line = _file(), _line(kind, spec)
    if (file, line) in _named or not line.isprintable():
        return
    _named.add((file, line))
    # Without the file a later command asks for the name again.
    with suppress(OSError):
        if line not in _lines(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            # Whoever has edited the file may have left its last line without an end.
            begin = "" if file.read_bytes()[-1:] in (b"", b"\n") else "\n"
            with file.open("a", encoding="utf-8") as lines:
                lines.write(f"{begin}{line}\n")


def is_named(kind: Kind, spec: str) -> bool:
    """Return whether somebody has named the code on this host."""
    file, line = _file(), _line(kind, spec)
    return (file, line) in _named or line in _lines(file)


def refuse_unnamed(kind: Kind, spec: str, *, what: str) -> None:
    """Refuse code that nobody has named on this host.

    Args:
        what: The thing that names it, for the message: 'the saved step'.

    Raises:
        ConfigurationError: Nobody has.
    """
    if is_named(kind, spec):
        return
    place = ", or where it is on this machine" if kind == "objective" else ""
    raise ConfigurationError(
        f"{what} wants to run the code of '{spec}'; if that is what you expect, say so with "
        f"--{kind} '{spec}'{place}"
    )


def _line(kind: Kind, spec: str) -> str:
    if spec.endswith(".py"):
        # As it was named: whoever owns a link to a file could have it lead elsewhere by now.
        return f"{kind} {Path(spec).absolute()}"
    # Another folder, such as a clone of somebody's, may hold a module of the same name.
    folder = folder_of(spec.partition(":")[0])
    return f"{kind} {spec}" if folder is None else f"{kind} {spec} in {folder}"


def _file() -> Path:
    return home() / "allowed"


def _lines(file: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8").splitlines()
    return []
