"""An objective by its description is compared and configured as the objective itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import ObjectiveError
from hpo.search import finite
from hpo.study.declared import declared
from hpo.study.described import Described, as_data, raise_again, written
from hpo.study.objective import changed_files, declarations, load_objective, source_hash
from hpo.study.request import DEFAULTS, usual
from hpo.study.resolve import settled
from objectives import Objective, bound, names

OWN = """
from typing import Any
import torch
from objectives import Choice, Float, Int, Option
from objectives.quadratic import Quadratic

class Wide(Float):
    def suggest(self, trial, name): return 1.0

class Own(Quadratic):
    name = "own"
    sizes = ["one", "tiny"]
    options = {
        "kind": Option(default="a", choices=("a", "b"), help="of what"),
        "file": Option(default=""),
    }
    spaces = {"wide": {
        "lr": Wide(low=1e-3, high=1, default=0.1, log=True),
        "layers": Int(low=1, high=4, default=2),
        "act": Choice(choices=("relu", 1, 2.5, True, None), default=None),
    }}
    def suggest(self, trial, space): return {"lr": 1.0}
    def defaults(self, space): return {"lr": 0.5, "layers": 1, "act": True}
    def problem_seed(self, size): return torch.tensor(7) if size == "tiny" else 8
    def settle(self, options, size, precision):
        if options["file"] == "none":
            raise FileNotFoundError(2, "No such file or directory", "none")
        return {**options, "file": f"/data/{options['file']}"}

objective = Own()
"""


def of_another_process(objective: Objective) -> Described:
    """The objective as a run knows it: through JSON, its hooks called where it is."""

    def ask(hook: str, *arguments: Any, under: Mapping[str, str] | None = None) -> Any:
        there = objective if under is None else bound(objective, under)
        found = getattr(there, hook)(*json.loads(json.dumps(arguments)))
        if hook == "spaces_for":
            found = written(found)
        found = dict(found) if isinstance(found, Mapping) else int(found)
        return json.loads(json.dumps(found))

    return Described.of(json.loads(json.dumps(declarations(objective))), ask)


@pytest.fixture
def own(tmp_path: Path) -> Objective:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return load_objective(str(path))


@pytest.mark.parametrize("name", names())
def test_a_study_of_a_description_has_the_objectives_own_settings(name: str):
    objective = load_objective(name)
    described = of_another_process(objective)

    for space in objective.spaces:
        wanted = {**DEFAULTS, **usual(on_gpu=False), "space": space}
        assert settled(described, name, wanted, n_trials=9) == settled(
            objective, name, wanted, n_trials=9
        )
        # A parameter of the contract's is equal only to one of the same class and values.
        assert described.spaces[space] == dict(objective.spaces[space])
        assert finite.configurations(described, described.spaces[space]) == finite.configurations(
            objective, objective.spaces[space]
        )
        assert dict(described.defaults(space)) == dict(objective.defaults(space))
    assert described.options == dict(objective.options)
    assert list(described.spaces) == list(objective.spaces)
    assert not changed_files(described, source_hash(objective))
    assert all(one.state != "failed" for one in declared(described))


def test_a_description_keeps_each_value_and_leaves_the_hooks_to_the_objective(own: Objective):
    described = of_another_process(own)

    act = described.spaces["wide"]["act"]

    assert [(type(one), one) for one in act.choices] == [
        (type(one), one) for one in ("relu", 1, 2.5, True, None)
    ]
    assert vars(described.spaces["wide"]["lr"]) == vars(own.spaces["wide"]["lr"])
    assert described.sizes == ("one", "tiny")
    # Its own suggest may ask for anything, so its configurations cannot be counted.
    assert finite.configurations(described, {"act": act}) is None
    assert [described.problem_seed(size) for size in described.sizes] == [8, 7]
    assert described.defaults("wide") == {"lr": 0.5, "layers": 1, "act": True}
    assert described.settle({"kind": "b", "file": "x"}, "one", "fp32")["file"] == "/data/x"


def test_an_exception_of_another_process_is_raised_as_the_nearest_of_this_one(own: Objective):
    def raised(error: BaseException) -> Exception:
        try:
            raise_again(json.loads(json.dumps(as_data(error))))
        except Exception as found:
            return found

    class OwnError(ValueError):
        pass

    with pytest.raises(FileNotFoundError) as missing:
        own.settle({"file": "none"}, "one", "fp32")
    again = raised(missing.value)

    assert (type(again), str(again)) == (FileNotFoundError, str(missing.value))
    assert (type(raised(OwnError("no"))), str(raised(OwnError("no")))) == (ValueError, "no")
    assert type(raised(ObjectiveError("no"))) is ObjectiveError
    assert type(raised(UnicodeDecodeError("utf-8", b"a", 0, 1, "no"))) is UnicodeError
    # What would end this process is an error of the other.
    assert str(raised(SystemExit(3))) == "SystemExit: 3"
