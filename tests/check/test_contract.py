"""The check of an objective: each breach is found, named, and placed; what is sound passes."""

from __future__ import annotations

import argparse
import copy
import enum
import itertools
import json
import math
import re
import sys

import numpy
import pytest
import torch
from torch import nn

from hpo import cli
from hpo.check.rehearsal import Rehearsed, rehearse
from hpo.errors import ObjectiveError
from hpo.study.declared import OWN_FLAGS, declared
from objectives import (
    Choice,
    Context,
    Float,
    Group,
    Int,
    Objective,
    Option,
    Params,
    Task,
    Term,
    names,
)
from tests.support.program import Command, environment
from tests.support.toys import CPU

COUNT = itertools.count()


class SoundTask(Task):
    """A regression with a running mean, an untrained weight and a state of its own."""

    steps_per_epoch = 4

    def __init__(self, params: Params, context: Context) -> None:
        self.context, self.seen = context, 0
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.modules = {"net": self.net}
        self.groups = [Group(name="all", parameters=list(self.net.parameters()), lr=params["lr"])]

    def draw(self, count, seed):
        x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def batch(self, step):
        return self.draw(16, 1000 * self.context.seed + step)

    def forward(self, batch):
        return self.net(batch["x"])

    def loss(self, outputs, batch):
        return {"misfit": Term((outputs - batch["y"]).square().mean())}

    def validate(self):
        return {"error": self.error(self.context.problem_seed)}

    def error(self, seed):
        batch = self.draw(32, seed)
        return float((self.net(batch["x"]) - batch["y"]).square().mean())


class Sound(Objective):
    """The error of a small regression."""

    name, metric, direction = "sound", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-4, high=1e-1, default=1e-2, log=True),
            "depth": Int(low=1, high=3, default=2),
            "kind": Choice(choices=("a", "b"), default="a"),
        }
    }
    task: type[Task] = SoundTask

    def build(self, params, context):
        return self.task(params, context)


def an_objective(**changes) -> Objective:
    # The module would be abc's: that is where a class of this kind is made.
    return type("Broken", (Sound,), {"__module__": __name__, **changes})()


def a_task(**changes) -> Objective:
    """An objective whose task differs from the sound one in these attributes."""
    return an_objective(task=type("BrokenTask", (SoundTask,), changes))


def built(change) -> Objective:
    """An objective whose task is changed at the end of its construction."""

    def init(self, params, context):
        SoundTask.__init__(self, params, context)
        change(self)

    return a_task(__init__=init)


def one_space(**space) -> Objective:
    return an_objective(spaces={"wide": {**Sound.spaces["wide"], **space}})


def rehearsed(objective: Objective, monkeypatch, **asked) -> Rehearsed:
    name = f"objective_{next(COUNT)}"
    monkeypatch.setattr(sys.modules[__name__], name, objective, raising=False)
    return rehearse(
        f"{__name__}:{name}", epochs=2, **{"precisions": ("fp32",), "device": CPU, **asked}
    )


def not_ok(found: Rehearsed) -> list[tuple[str, str]]:
    return [(finding.name, finding.state) for finding in found.findings if finding.state != "ok"]


def fail(*_, **__):
    raise KeyError("nowhere")


def group(self, **changes) -> list[Group]:
    whole = {"name": "all", "parameters": list(self.net.parameters()), "lr": 1e-2}
    return [Group(**{**whole, **changes})]


def regroup(**changes) -> Objective:
    return built(lambda task: setattr(task, "groups", group(task, **changes)))


def odd_weight(dtype) -> Objective:
    """An objective with one more weight, of this dtype."""

    def add(task):
        task.net.register_parameter("odd", nn.Parameter(torch.zeros(2, dtype=dtype)))
        task.groups = group(task)

    return built(add)


def regroup_computed(task) -> None:
    task.groups = group(task, parameters=[task.net[0].weight * 2])


class Raising(torch.optim.SGD):
    """An optimizer that cannot step."""

    def __init__(self, net):
        super().__init__(net.parameters(), lr=0.1)

    def step(self, closure=None):
        raise ValueError("no step")


def share(task) -> None:
    task.groups = [*group(task), *group(task, name="again")]


def forget(task) -> None:
    task.groups = group(task, parameters=list(task.net[0].parameters()))


def draw_anew(self, step):
    return {"x": torch.randn(4, 3), "y": torch.zeros(4, 1)}


def remember(self, step):
    # As a curriculum does.
    self.seen += 1
    return self.draw(16, 0 if step == 0 else self.seen)


def train_again(self):
    self.net.train()
    return SoundTask.validate(self)


def validate_from_the_first_step(task):
    with torch.random.fork_rng():
        torch.manual_seed(task.context.seed)
        first = SoundTask({"lr": 1e-2}, task.context).net[2].bias
    is_untrained = torch.equal(first, task.net[2].bias)
    return {"error": math.inf} if is_untrained else SoundTask.validate(task)


def validate_noisily(self):
    return {"error": float(torch.rand(()))}


def validate_on_own_seed(self):
    return {"error": self.error(self.context.seed)}


def validate_state(self):
    self.seen = self.seen or self.context.seed + next(COUNT)
    return {"error": float(self.seen)}


class Kind(str, enum.Enum):  # noqa: UP042
    A = "a"


DECLARED = {
    "no name": (an_objective(name=None), "name", "letters, digits"),
    "a name of two words": (an_objective(name="my objective"), "name", "'my objective'"),
    "no metric": (an_objective(metric=""), "metric", "key of what validate"),
    "no direction": (an_objective(direction="down"), "direction", "'minimize' or 'maximize'"),
    "no space": (an_objective(spaces={}), "spaces", "declare at least"),
    "an empty space": (an_objective(spaces={"wide": {}}), "spaces", "at least one parameter"),
    "a bare number": (one_space(lr=0.1), "spaces", "'lr' of space 'wide' is 0.1"),
    "low above high": (one_space(lr=Float(low=2, high=1, default=1)), "spaces", "above high=1"),
    "log from 0": (one_space(lr=Float(low=0, high=1, default=1, log=True)), "spaces", "log scale"),
    "a default outside": (one_space(n=Int(low=1, high=2, default=3)), "spaces", "default=3"),
    "an infinite bound": (one_space(n=Float(low=1, high=math.inf, default=3)), "spaces", "finite"),
    "half an integer": (one_space(n=Int(low=1.5, high=2, default=2)), "spaces", "is no int"),
    "no choice": (one_space(n=Choice(choices=(), default=1)), "spaces", "at least one value"),
    "a text as choices": (one_space(n=Choice(choices="ab", default="a")), "spaces", "a tuple"),
    "a choice of a class": (
        one_space(n=Choice(choices=(nn.GELU,), default=nn.GELU)),
        "spaces",
        "look the rest up",
    ),
    "a strange default": (one_space(n=Choice(choices=(1,), default=2)), "spaces", "none of its"),
    "equal choices": (
        one_space(n=Choice(choices=(False, 0, 2), default=2)),
        "spaces",
        r"False and 0, which are equal",
    ),
    "a 1 and a 1.0": (
        one_space(n=Choice(choices=(1, 1.0), default=1)),
        "spaces",
        r"1 and 1.0, which are equal",
    ),
    "NaN among choices": (
        one_space(n=Choice(choices=(1.0, math.nan), default=1.0)),
        "spaces",
        r"the choice nan",
    ),
    "a default of another type": (
        one_space(n=Choice(choices=(0, 1), default=False)),
        "spaces",
        r"default False",
    ),
    "an enumeration": (
        one_space(n=Choice(choices=tuple(Kind), default=Kind.A)),
        "spaces",
        r"choice <Kind.A: 'a'>",
    ),
    "a tuple as choice": (
        one_space(n=Choice(choices=((3, 3),), default=(3, 3))),
        "spaces",
        r"choice \(3, 3\)",
    ),
    "a bound beyond a double": (
        one_space(n=Int(low=1, high=2**62, default=1)),
        "spaces",
        r"high=4611686018427387904, beyond 9007199254740992",
    ),
    "a range beyond a float": (
        one_space(n=Float(low=-1e308, high=1e308, default=0)),
        "spaces",
        r"further than a float",
    ),
    "a bool as bound": (
        one_space(n=Int(low=0, high=1, default=True)),
        "spaces",
        r"default=True, which is no int",
    ),
    "a parameter without a name": (
        one_space(**{"": Float(low=0, high=1, default=0)}),
        "spaces",
        r"printable",
    ),
    "an option with a flag's name": (
        an_objective(options={"workers": Option(default="")}),
        "options",
        r"flag of the service, --workers",
    ),
    "a text as sizes": (an_objective(sizes="tiny"), "sizes", r"\('tiny',\)"),
    "no sizes": (an_objective(sizes=()), "sizes", "at least one"),
    "a bare option": (an_objective(options={"wall": "fixed"}), "options", "Option"),
    "an option of two words": (
        an_objective(options={"a b": Option(default="")}),
        "options",
        "flag",
    ),
    "a number as option": (an_objective(options={"n": Option(default=1)}), "options", "text"),
    "an option's default": (
        an_objective(options={"wall": Option(default="no", choices=("yes",))}),
        "options",
        "none of its choices yes",
    ),
}

FAILED = {
    "suggest raises": (an_objective(suggest=fail), "suggest", "KeyError: 'nowhere', at test_con"),
    "suggest gives a list": (an_objective(suggest=lambda *_: [1]), "suggest", "list"),
    "build raises": (an_objective(build=fail), "build", "test_contract.py:[0-9]+ in fail"),
    "build ends the process": (
        an_objective(build=lambda *_: sys.exit(2)),
        "build",
        r"^SystemExit: 2, at test_contract.py",
    ),
    "batch parses arguments": (
        a_task(batch=lambda *_: argparse.ArgumentParser().parse_args(["--nope"])),
        "batch",
        r"SystemExit: 2 \(unrecognized arguments: --nope\), at",
    ),
    "build gives None": (an_objective(build=lambda *_: None), "build", "NoneType"),
    "modules a list": (built(lambda t: setattr(t, "modules", [t.net])), "modules", "mapping"),
    "a function as module": (built(lambda t: setattr(t, "modules", {"f": fail})), "modules", "'f'"),
    "modules elsewhere": (built(lambda t: t.net.to("meta")), "modules", "context.device"),
    "no groups": (built(lambda t: setattr(t, "groups", [])), "groups", "empty"),
    "a bare parameter": (built(lambda t: setattr(t, "groups", [t.net])), "groups", "write Group"),
    "one name twice": (
        built(lambda t: setattr(t, "groups", [*group(t), *group(t)])),
        "groups",
        "'all'",
    ),
    "a parameter twice": (built(share), "groups", "two groups: 'net.0.weight'"),
    "groups of a generator": (
        built(lambda t: setattr(t, "groups", (one for one in group(t)))),
        "groups",
        "groups is a generator and no list",
    ),
    "modules as parameters": (
        regroup(parameters=[nn.Linear(1, 1)]),
        "groups",
        "holds a Linear; its parameters are tensors",
    ),
    "a computed parameter": (
        built(lambda t: regroup_computed(t)),
        "groups",
        "computed from others",
    ),
    "a rate of text": (regroup(lr="0.1"), "groups", "lr='0.1'"),
    "a lazy layer": (built(lambda t: t.net.append(nn.LazyLinear(1))), "modules", "'net.3.weight'"),
    "a sparse embedding": (
        built(lambda t: t.net.add_module("code", nn.Embedding(3, 2, sparse=True))),
        "modules",
        "'net.code' has sparse gradients",
    ),
    "fp16 parameters": (odd_weight(torch.float16), "groups", "'net.odd' is float16 and trained"),
    "complex parameters": (odd_weight(torch.complex64), "groups", "real and imaginary"),
    "a generator": (
        built(lambda t: setattr(t, "groups", group(t, parameters=t.net.parameters()))),
        "groups",
        "list",
    ),
    "no parameters": (regroup(parameters=[]), "groups", "no parameters"),
    "lr 0": (regroup(lr=0.0), "groups", "no group has a learning rate above 0"),
    "clip 0": (regroup(clip=0.0), "groups", "clip=0.0"),
    "half a step": (a_task(steps_per_epoch=1.5), "steps_per_epoch", "1.5"),
    "a NaN schedule": (a_task(schedule=lambda *_: math.nan), "schedule", "nan"),
    "a negative schedule": (a_task(schedule=lambda _, p: 0.5 - p), "schedule", "schedule.0.51"),
    "an idle schedule": (a_task(schedule=lambda *_: 0.0), "schedule", "nothing would train"),
    "another's optimizer": (
        a_task(optimizer=lambda t: torch.optim.SGD(t.net[0].parameters(), lr=0.1)),
        "optimizer",
        "leaves out 'net.1.weight'",
    ),
    "an optimizer over copies": (
        a_task(optimizer=lambda t: torch.optim.SGD(copy.deepcopy(t.net).parameters(), lr=0.1)),
        "optimizer",
        "steps other parameters than the groups'",
    ),
    "an optimizer over more": (
        a_task(
            optimizer=lambda t: torch.optim.SGD(
                [*t.net.parameters(), nn.Parameter(torch.zeros(1))], lr=0.1
            )
        ),
        "optimizer",
        "steps parameters of no group: 'a tensor of no module'",
    ),
    "an optimizer of sparse gradients": (
        a_task(optimizer=lambda t: torch.optim.SparseAdam(t.net.parameters())),
        "optimizer",
        "SparseAdam, which steps sparse gradients",
    ),
    "groups of another network": (
        built(
            lambda t: setattr(t, "groups", group(t, parameters=list(nn.Linear(1, 1).parameters())))
        ),
        "groups",
        "hold no parameter of `modules`",
    ),
    "no number of steps to accumulate": (
        a_task(accumulate=0),
        "steps_per_epoch",
        "accumulate is 0; make it a whole number above 0",
    ),
    "a group's schedule that is no factor": (
        built(lambda t: setattr(t, "groups", group(t, schedule=lambda p: float("nan")))),
        "schedule",
        "group '.*': schedule.0.0. is nan",
    ),
    "an optimizer that is a list": (
        a_task(optimizer=lambda t: [torch.optim.SGD(t.net.parameters())]),
        "optimizer",
        "gave a list, no torch.optim.Optimizer, and without step, ",
    ),
    "an optimizer with a closure": (
        a_task(optimizer=lambda t: torch.optim.LBFGS(t.groups[0].parameters)),
        "optimizer",
        "LBFGS, whose step.. computes the loss again by a closure",
    ),
    "an optimizer of another kind": (
        a_task(optimizer=lambda t: object()),
        "optimizer",
        "no torch.optim.Optimizer",
    ),
    "two groups of an optimizer": (
        a_task(optimizer=lambda t: torch.optim.SGD([{"params": [p]} for p in t.net.parameters()])),
        "optimizer",
        "6 parameter groups and the task 1",
    ),
    "batch raises": (a_task(batch=fail), "batch", "KeyError"),
    "a batch elsewhere": (
        a_task(batch=lambda *_: torch.zeros(1, device="meta")),
        "batch",
        "not on cpu",
    ),
    "forward raises": (a_task(forward=fail), "loss", "in fail"),
    "a bare loss": (a_task(loss=lambda _, o, b: o.mean()), "loss", "gave a Tensor; write"),
    "no term": (a_task(loss=lambda *_: {}), "loss", "no term"),
    "a bare term": (a_task(loss=lambda _, o, b: {"a": o.mean()}), "loss", r"Term\(value\)"),
    "a number as term": (a_task(loss=lambda *_: {"a": Term(1.0)}), "loss", "no tensor"),
    "a term of many": (a_task(loss=lambda _, o, b: {"a": Term(o)}), "loss", r"shape \[16, 1\]"),
    "a weight of NaN": (
        a_task(loss=lambda _, o, b: {"a": Term(o.mean(), math.nan)}),
        "loss",
        "weight",
    ),
    "a detached loss": (
        a_task(loss=lambda _, o, b: {"a": Term(o.mean().detach())}),
        "loss",
        "detached",
    ),
    "NaN in the loss": (
        a_task(loss=lambda _, o, b: {"root": Term((o.square().sum() * 0 - 1).sqrt())}),
        "step in fp32",
        "'root' is NaN, first in sqrt at test_contract.py",
    ),
    "NaN in a gradient": (
        a_task(loss=lambda _, o, b: {"root": Term((o * 0).square().sum().sqrt())}),
        "step in fp32",
        "gradient of 'root' is NaN .* first in the backward of sqrt at test_contract.py",
    ),
    "idle names a stranger": (a_task(idle=lambda _, step: ("nobody",)), "groups", "'nobody'"),
    "a monitor of many": (
        a_task(monitor=lambda _: {"share": torch.ones(2)}),
        "loss",
        "'share' as tensor",
    ),
    "options that do not work": (
        an_objective(settle=lambda *_: fail()),
        "settle",
        "KeyError: 'nowhere'",
    ),
    "options that are lost": (
        an_objective(options={"wall": Option(default="")}, settle=lambda *_: {}),
        "settle",
        "give them all back",
    ),
    "validate raises": (a_task(validate=fail), "validate", "KeyError: 'nowhere', at test_contract"),
    "no metric in validate": (a_task(validate=lambda _: {"loss": 1.0}), "validate", "without the"),
    "NaN in validate": (
        a_task(validate=lambda _: {"error": math.nan}),
        "training",
        "'error' is nan after step",
    ),
    "two numbers": (
        a_task(validate=lambda _: {"error": torch.ones(2)}),
        "validate",
        "only one element",
    ),
    "validate trains": (a_task(validate=train_again), "validate", "changed 'net.1.running_mean'"),
    "a function as state": (
        a_task(state_dict=lambda t: {"f": lambda: 0}),
        "state_dict",
        "cannot be saved",
    ),
    "numpy as state": (a_task(state_dict=lambda t: {"n": numpy.float64(1)}), "state_dict", "numpy"),
    "a state that is lost": (a_task(validate=validate_state), "state_dict", r"'error' \("),
    "an optimizer that raises": (a_task(optimizer=lambda t: Raising(t.net)), "training", "no step"),
}

WARNED = {
    "defaults lack one": (
        an_objective(defaults=lambda *_: {"lr": 0.1}),
        "suggest",
        "'depth', 'kind'",
    ),
    "a parameter in no group": (built(forget), "groups", "never train: 'net.1.weight'"),
    "a batch that differs": (a_task(batch=draw_anew), "batch", "another 'x' the second time"),
    "a term without a layer": (
        a_task(forward=lambda t, b: t.net[0](b["x"]).sum(1, keepdim=True)),
        "loss",
        "never train: 'net.1.weight', 'net.1.bias', 'net.2.weight', 'net.2.bias'",
    ),
    "predict raises": (
        a_task(predict=fail),
        "predict",
        "sample 0 would be kept as its error: KeyError: 'nowhere'",
    ),
    "a noisy metric": (a_task(validate=validate_noisily), "validate", "asked twice"),
    "an infinite figure": (
        a_task(validate=lambda t: {**SoundTask.validate(t), "ratio": math.inf}),
        "validate",
        "'ratio'",
    ),
    "an infinite metric before the first step": (
        a_task(validate=validate_from_the_first_step),
        "validate",
        "the metric 'error' of the untrained network is inf",
    ),
    "another beginning each time": (
        built(lambda t: nn.init.constant_(t.net[2].bias, next(COUNT))),
        "training",
        "two trials with the same seed differ in 'net.",
    ),
    "validation by the trial's seed": (
        a_task(validate=validate_on_own_seed),
        "state_dict",
        "problem",
    ),
}


@pytest.mark.parametrize("case", DECLARED)
def test_what_an_objective_declares_wrongly_is_told_before_it_is_built(case):
    objective, name, told = DECLARED[case]

    failed = [finding for finding in declared(objective) if finding.state == "failed"]

    assert [finding.name for finding in failed] == [name]
    assert_told(failed, told)


@pytest.mark.parametrize("case", FAILED)
def test_a_breach_fails_its_check_and_no_other(case, monkeypatch):
    objective, name, told = FAILED[case]

    found = rehearsed(objective, monkeypatch)

    failed = [finding for finding in found.findings if finding.state == "failed"]
    assert {finding.name for finding in failed} == {name}
    assert_told(failed, told)
    assert found.has_failed
    assert found.pace is None


@pytest.mark.parametrize("case", WARNED)
def test_what_works_but_is_hardly_meant_is_warned_of(case, monkeypatch):
    objective, name, told = WARNED[case]

    found = rehearsed(objective, monkeypatch)

    assert not found.has_failed
    assert_told([f for f in found.findings if f.name == name and f.state == "warning"], told)
    assert found.pace is not None


def assert_told(findings, pattern: str) -> None:
    assert any(re.search(pattern, finding.detail) for finding in findings), findings


def test_a_trial_that_an_interruption_changes_is_warned_of(monkeypatch):
    found = rehearsed(a_task(batch=remember), monkeypatch)

    assert not_ok(found) == [("resumption", "warning")]


def test_a_sound_objective_passes_in_every_precision(monkeypatch):
    found = rehearsed(an_objective(), monkeypatch, precisions=("fp32", "bf16", "fp16"))

    assert not_ok(found) == []
    assert found.pace.steps == 8
    assert found.pace.trial_s > 0


def test_an_optimizer_with_a_scheduler_of_torch_passes(monkeypatch):
    def optimizer(task):
        own = torch.optim.SGD(task.net.parameters(), lr=1e-2)
        # It puts a function of its own before the optimizer's step.
        task.scheduler = torch.optim.lr_scheduler.StepLR(own, 10)
        return own

    found = rehearsed(a_task(optimizer=optimizer, accumulate=2), monkeypatch)

    assert not_ok(found) == []


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("name", "size"), [("quadratic", "tiny"), ("ris_covariance", "unit"), ("arc_prompt", "unit")]
)
def test_the_projects_own_objectives_pass(name, size):
    found = rehearse(name, epochs=12, size=size, device=CPU)

    assert not_ok(found) == []


def test_a_precision_that_alone_is_too_narrow_fails_alone(monkeypatch):
    # Above 65,504 fp16 overflows; bf16 and fp32 do not.
    large = a_task(forward=lambda t, b: t.net[2](t.net[1](t.net[0](b["x"])) * 1e6) / 1e6)

    found = rehearsed(large, monkeypatch, precisions=("fp32", "bf16", "fp16"))

    assert not_ok(found) == [("step in fp16", "failed")]
    assert_told(found.findings, "fp32 holds it, fp16 does not")


FILES = {
    "missing": (None, "does not exist"),
    "no Python": ("objective = (", r"SyntaxError: .*, at mine.py:1"),
    "raises": ("tree = {}\ntree['x']", r"KeyError: 'x', at mine.py:2 in <module>"),
    "nothing": ("x = 1", "objective = MyObjective()"),
    "a class": (
        "from objectives.quadratic import Quadratic\nobjective = Quadratic",
        "objective = MyObjective()",
    ),
    "half a class": (
        "from objectives import Objective\nclass Mine(Objective): ...\nobjective = Mine()",
        r"TypeError: .*abstract method '?build'?, at mine.py:3",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_holds_no_objective_fails_the_import(case, tmp_path):
    text, told = FILES[case]
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)

    found = rehearse(str(path), epochs=2, device=CPU)

    assert not_ok(found) == [("import", "failed")]
    assert_told(found.findings, told)


def test_a_size_or_space_that_there_is_not_is_refused(monkeypatch):
    with pytest.raises(ObjectiveError, match="no size 'huge'; use one of tiny, base, full"):
        rehearsed(an_objective(), monkeypatch, size="huge")
    with pytest.raises(ObjectiveError, match="no space 'odd'; use one of wide"):
        rehearsed(an_objective(), monkeypatch, space="odd")


def test_the_next_command_names_what_a_run_would_not_take_by_itself(monkeypatch):
    narrow = an_objective(spaces={"short": Sound.spaces["wide"]}, sizes=("small",))

    command = rehearsed(narrow, monkeypatch).next_command

    assert command.endswith(" --space short --size small --n_trials 20")


def test_a_check_needs_no_database_and_exits_2_where_something_failed(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from objectives.quadratic import Quadratic\n"
        "class Mine(Quadratic):\n    direction = 'up'\n"
        "    def build(self, params, context):\n        return params['width']\n"
        "objective = Mine()\n"
    )

    checked = Command(environment(None, tmp_path / "home"), capsys)("check", str(path))

    assert checked.returncode == 2, checked.stderr
    assert "FAILED   direction  direction is 'up'; write 'minimize'" in checked.stdout
    assert "KeyError: 'width', at mine.py:5 in build" in checked.stdout
    assert not (tmp_path / "home").exists()


def test_all_objectives_are_listed_with_what_they_are(capsys):
    code = cli.main(["objectives"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1:]] == names()
    (quadratic,) = (line for line in lines if "quadratic" in line)
    assert "distance, minimize" in quadratic
    assert "Fit one weight to a constant" in quadratic


def test_one_objective_is_shown_with_its_spaces_options_and_sizes(capsys):
    assert cli.main(["objectives", "ris_covariance"]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["objectives", "ris_covariance", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)

    assert re.search(r"lr +float, log +0.0002 to 0.005 +0.001", shown)
    assert "--installation fixed|random" in shown
    assert told["spaces"]["narrow"]["lr"] == {
        **{"kind": "float", "log": True},
        **{"low": 2e-4, "high": 5e-3, "default": 1e-3},
    }
    assert told["sizes"] == ["unit", "tiny", "base", "full"]


def test_an_objective_whose_declarations_are_broken_is_not_shown(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from objectives.quadratic import Quadratic\n"
        "class Mine(Quadratic):\n    spaces = {'wide': {'lr': 0.1}}\nobjective = Mine()\n"
    )

    assert cli.main(["objectives", str(path)]) == 2

    assert "'lr' of space 'wide' is 0.1; write Float(...)" in capsys.readouterr().err


def test_no_option_of_an_objective_can_hide_a_flag_of_a_command():
    commands = (cli.commands.commands[name] for name in ("run", "train", "scenes"))
    params = [param for command in commands for param in command.params]
    flags = {name[2:] for param in params for name in param.opts if name.startswith("--")}

    assert flags | {"help", "verbose"} == OWN_FLAGS


def test_no_option_of_an_objective_can_be_taken_for_one_of_slurm(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from objectives import Option\nfrom objectives.quadratic import Quadratic\n"
        "class Mine(Quadratic):\n    options = {'slurm_time': Option(default='1')}\n"
        "objective = Mine()\n"
    )

    assert cli.main(["objectives", str(path)]) == 2

    assert "'slurm_time' has the name of a flag of the service" in capsys.readouterr().err
