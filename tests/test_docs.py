"""The documents: generated parts are the code's, messages exist, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import click
import optuna
import pytest

from hpo import cli
from hpo.cli.config_file import read_config
from hpo.cli.run import run
from hpo.guard import verdict
from hpo.search import configurations
from hpo.search.narrowing import Narrowing
from objectives import load
from tests.support.program import ROOT, Program

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("make_reference")


def rows(text: str) -> Iterator[list[str]]:
    """The rows of all tables of a document, as cells."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def column(text: str) -> list[str]:
    """The first cells of all tables, without backticks."""
    return [row[0].strip("`") for row in rows(text)]


def page(name: str) -> str:
    return (DOCS / name).read_text()


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of its rank."""
    rank = heading.partition(" ")[0]
    return text.split(f"\n{heading}\n")[1].split(f"\n{rank} ")[0]


@pytest.mark.parametrize("name", ["reference.md", "architecture.md"])
def test_generated_parts_are_what_the_code_says(generator: ModuleType, name: str):
    text = page(name)

    assert generator.filled(text) == text, f"docs/{name} is out of date; write: {generator.COMMAND}"


def test_the_generator_writes_nothing_of_the_terminal_or_the_machine(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    here = generator.filled(page("reference.md"))
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("HPO_HOME", "/elsewhere")
    monkeypatch.setenv("HPO_STORAGE", "postgresql+psycopg2://me:secret@db/hpo")

    assert generator.filled(page("reference.md")) == here


def test_every_part_of_the_generator_is_in_one_document(generator: ModuleType):
    named = re.findall(r"<!-- generated: (\w+) -->", "".join(p.read_text() for p in PAGES))

    assert sorted(named) == sorted(generator._PARTS)


def test_the_default_that_a_flags_help_tells_is_the_one_it_has():
    for command in cli.commands.commands.values():
        for option in command.params:
            given = option.default
            if isinstance(option, click.Option) and isinstance(given, str | int | float):
                if option.is_flag:
                    continue
                told = f"{given:g}" if isinstance(given, float) else str(given)
                assert f"default: {told}" in (option.help or ""), f"{command.name} --{option.name}"


def test_every_module_of_the_service_is_named_once_and_the_layers_are_in_their_order():
    part = page("architecture.md").split("<!-- generated: modules -->")[1].split("<!-- end -->")[0]
    named = [(row[0], row[1].strip("`"), row[3]) for row in list(rows(part))[1:]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    found = {}
    for _, package, modules in named:
        folder = ROOT / package.replace(".", "/")
        stems = [p.stem for p in folder.glob("*.py") if not p.stem.startswith("__")]
        found[package] = (stems, [m for m in modules.split(", ") if not m.endswith("/")])
    inside = {p.stem if p.suffix else p.name for p in (ROOT / "hpo").iterdir()}
    inside -= {"__init__", "__main__", "__pycache__"}

    assert sorted(f"hpo.{name}" for name in inside) == sorted(
        name for name in found if name.startswith("hpo.")
    )
    assert all(sorted(there) == said or said == ["-"] for there, said in found.values())
    for number, layer in enumerate(layers, start=1):
        assert " | ".join(name for at, name, _ in named if at == str(number)) == layer


@cache
def said() -> list[str]:
    """Every text of the code but docstrings, its variable parts as '…'."""
    found = []
    for path in (p for top in ("hpo", "objectives", "models") for p in (ROOT / top).rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(_part, node.values)))
            elif isinstance(node, ast.Constant) and id(node) not in docs:
                value = node.value.decode() if isinstance(node.value, bytes) else node.value
                found.append(str(value))
    # As logging fills in its arguments.
    return [re.sub(r"(%(\.\d)?[sdf]|…)+", "…", " ".join(text.split())) for text in found]


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def test_every_message_of_the_troubleshooting_is_one_of_the_programs():
    first = [row[0] for row in rows(page("troubleshooting.md"))]
    fragments = [cell[1:-1] for cell in first if cell.startswith("`") and cell.endswith("`")]

    assert len(fragments) > 100
    unknown = [f for f in fragments if not any(f in text for text in said())]
    assert not unknown


def test_every_prune_reason_and_every_check_of_the_doctor_is_explained():
    told = column(page("troubleshooting.md"))
    listed = column(section(page("reference.md"), "## What a trial holds"))
    reasons = {"pruner", "oom", *verdict.NONFINITE}
    checks = {name for path in (ROOT / "hpo" / "doctor").glob("*.py") for name in _findings(path)}

    assert len(checks) > 15
    assert reasons <= set(listed)
    assert checks | reasons <= set(told)


def _findings(path: Path) -> Iterator[str]:
    """The names of what a part of the doctor finds."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            is_finding = node.func.id in ("ok", "warning", "failed")
            if is_finding and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


HOSTILE = ROOT / "benchmarks" / "hostile"


def test_every_line_of_code_that_an_example_names_has_the_operation():
    text = "".join(path.read_text() for path in PAGES)
    named = re.findall(r"first in (\w+) at (\w+\.py):(\d+)", text)

    assert named
    for operation, file, number in named:
        folders = (ROOT / "objectives", HOSTILE, HOSTILE / "fresh")
        path = next(folder / file for folder in folders if (folder / file).exists())
        lines = path.read_text().splitlines()
        assert operation in lines[int(number) - 1], f"{file}:{number}"


def test_every_link_leads_to_a_file_and_a_heading():
    for here in PAGES:
        prose = re.sub(r"^```.*?^```", "", here.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)]+)\)", prose):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            there = here.parent / name if name else here
            assert there.exists(), f"{here.name}: {target}"
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.M) if anchor else []
            assert not anchor or anchor in map(_anchor, headings), f"{here.name}: {target}"


def _anchor(heading: str) -> str:
    """As the pages are shown: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_test_that_the_architecture_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)`", page("architecture.md"))

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_example_of_a_config_file_is_taken(tmp_path: Path):
    example = re.findall(r"```toml\n(.*?)```", page("reference.md"), re.DOTALL)[0]
    path = tmp_path / "study.toml"
    path.write_text(example)

    context = run.make_context("run", ["--config", str(path), "--workers", "2"])

    assert context.params["objective"] == "quadratic"
    assert context.params["range"] == ("lr=0.001,1.0,log",)
    assert context.params["set"] == ("curvature=1.0",)
    assert context.params["workers"] == "2"
    assert list(read_config(path)) == [
        *("objective", "n_trials", "workers", "epochs_per_trial", "set", "range")
    ]


def test_the_example_of_an_enqueue_file_is_taken(tmp_path: Path):
    example = re.findall(r"```json\n(.*?)```", page("reference.md"), re.DOTALL)[0]
    path = tmp_path / "params.json"
    path.write_text(example)
    space = Narrowing().apply(load("quadratic").spaces["wide"])

    assert configurations.checked(configurations.read(path), space) == json.loads(example)


@pytest.mark.acceptance
def test_a_run_leaves_the_attributes_columns_and_events_that_the_reference_lists(
    program: Program, url: str, tmp_path: Path
):
    text = page("reference.md")
    table = tmp_path / "trials.csv"
    flags = ("--objective", "quadratic", "--n_trials", "1", "--epochs_per_trial", "1")

    ran = program(*flags, "--workers", "1", "--log_json", "--export_csv", str(table))

    assert ran.returncode == 0, ran.stderr
    columns = table.read_text().splitlines()[0].split(",")
    prefix = "user_attrs_"
    attributes = [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]
    listed = column(section(text, "## What a trial holds"))
    assert listed[listed.index("prune_reason") :][: len(attributes)] == attributes
    families = ("params_", prefix)
    others = column(section(text, "## `--export_csv` files"))[1:]
    assert [name for name in others if not name.startswith(families)] == [
        name for name in columns if not name.startswith(families)
    ]
    keys = {row[0].strip("`"): row[2] for row in rows(section(text, "## `--log_json` lines"))}
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert {line["event"] for line in lines} == {"look", "start", "progress", "trial", "end"}
    for line in lines[:-1]:
        told = keys[line["event"]]
        assert [key for key in line if f"`{key}`" not in told] == ["at", "event"]
    held = optuna.load_study(study_name="quadratic-wide-tiny", storage=url).user_attrs
    assert {"config", "study_uid", "last_run"} <= set(held)
    assert set(held) <= set(column(section(text, "## What a study holds")))
