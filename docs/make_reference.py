"""Fill the generated parts of the documents from the code: flags, tables, modules, signatures.

    python docs/make_reference.py            writes them
    python docs/make_reference.py --check    exits with 1 where one is out of date

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; all else is written by hand.
Border: uses nothing of the machine or the terminal, so that the text is the same everywhere.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from interfaces import code, commands, objectives, python, table
from sqlalchemy.dialects import postgresql

from hpo import environ, errors
from hpo.cli.shared import INTERRUPTED
from hpo.database import schema

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "docs" / name for name in ("reference.md", "architecture.md")]
COMMAND = "python docs/make_reference.py"
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TABLES = {
    "schema_version": "The version of these tables.",
    "identities": "A row per study: the study of Optuna that its uid belongs to.",
    "tickets": "The study's budget: a row is a trial that is to be made, or was.",
    "leases": "Who works on which ticket now; a row goes when its trial ends.",
    "spending": "A row per study: the most that it may spend, and the time of its ended leases.",
    "spans": "Ended leases that are not in the sums of `spending` yet.",
    "workers": "Who works on which study, idle or not; a row goes when its worker ends.",
    "hosts": "What the hosts of a study's workers run on, as `doctor --fleet` compares them.",
    "controls": "What holds for all workers of a study: the version of their code, and a pause.",
    "metrics": "What each epoch measured; epoch 0 is the untrained network.",
    "predictions": "What the networks made of some validation samples, by trial and step.",
    "environments": "What each worker ran on: host, Python, packages, device.",
    "divergences": "Why the guard ended a trial, with all figures in `evidence`.",
    "checkpoints": "Copies of checkpoints, in parts of 1 MiB, for a trial to go on elsewhere.",
    "artifacts": "Files of trials, in parts of 1 MiB: the step that shows a divergence.",
}


def filled(document: str) -> str:
    """A document with its generated parts brought up to date."""

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n{_PARTS[found[2]]().strip()}\n\n{found[3]}"

    return _PART.sub(part, document)


def _variables() -> str:
    return table(("variable", "what it says"), [(code(k), v) for k, v in environ.VARIABLES.items()])


def _exit_codes() -> str:
    def said(*kinds: type[errors.HpoError]) -> str:
        return " ".join((kind.__doc__ or "").splitlines()[0] for kind in kinds)

    failed, wrong = errors.RunFailed, (errors.ConfigurationError, errors.StorageError)
    rows = [
        ("0", "Done."),
        (str(failed.exit_code), said(failed)),
        (str(wrong[0].exit_code), said(*wrong)),
        (str(INTERRUPTED), "Interrupted: by Ctrl-C, SIGTERM, a closed terminal or `--timeout`."),
    ]
    return table(("code", "what happened"), rows)


def _tables() -> str:
    text = f"Version {schema.SCHEMA_VERSION}.\n\n"
    for each in schema.OWN.tables.values():
        rows = [
            (
                code(column.name) + (" (key)" if column.primary_key else ""),
                column.type.compile(dialect=postgresql.dialect()).lower(),
                "yes" if column.nullable else "no",
            )
            for column in each.columns
        ]
        text += f"#### `{each.fullname}`\n\n{_TABLES[each.name]}\n\n"
        text += table(("column", "type", "may be NULL"), rows)
    return text


def _modules() -> str:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = (c for c in config["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    rows = [
        (str(number), code(name), _purpose(name), ", ".join(_within(name)))
        for number, layer in enumerate(layers["layers"], start=1)
        for name in layer.split(" | ")
    ]
    return table(("layer", "package", "what it is for", "modules"), rows)


def _within(package: str) -> list[str]:
    """The modules of a package, and the packages in it."""
    folder = ROOT / package.replace(".", "/")
    modules = (path.stem for path in folder.glob("*.py") if not path.stem.startswith("__"))
    packages = (path.parent.name + "/" for path in folder.glob("*/__init__.py"))
    within = sorted(modules) + sorted(packages)
    return within if package != "hpo" else []


def _purpose(module: str) -> str:
    """The first line of a module's docstring."""
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


_PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "objectives": objectives,
    "variables": _variables,
    "exit_codes": _exit_codes,
    "tables": _tables,
    "python": python,
    "modules": _modules,
}


def main() -> int:
    """Write the documents, or check that they are up to date."""
    texts = {path: path.read_text() for path in DOCUMENTS}
    stale = {path: new for path, old in texts.items() if (new := filled(old)) != old}
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.name} is not what the code says; write: {COMMAND}", file=sys.stderr)
        return int(bool(stale))
    for path, text in stale.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
