"""Check the parts of a built task: modules, groups, epoch length, schedule, optimizer.

Border: runs no batch; `hooks` checks the hooks that train and validate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hpo.check.findings import Check, Findings, listed
from hpo.task.parameters import parameter_names
from objectives import Group, Task


def check_modules(findings: Findings, task: Task, device: torch.device) -> bool:
    """Return whether `modules` maps names to modules on the device."""
    with findings.check("modules") as check:
        modules = task.modules
        if not isinstance(modules, Mapping | nn.ModuleDict) or not len(modules):
            check.fail(f"modules is {modules!r}; write a mapping, as {{'net': self.net}}")
            return False
        for name, module in modules.items():
            if not isinstance(module, nn.Module):
                check.fail(f"modules['{name}'] is a {type(module).__name__}, no torch.nn.Module")
                continue
            elsewhere = {str(t.device) for t in _tensors(module) if t.device.type != device.type}
            if elsewhere:
                check.fail(f"'{name}' is on {', '.join(elsewhere)}; move it .to(context.device)")
        check.seen = ", ".join(modules)
    return not check.has_failed


def check_groups(findings: Findings, task: Task) -> None:
    """Check that each parameter trains in one group, with a usable rate, clip and decay."""
    with findings.check("groups") as check:
        groups = list(task.groups)
        if not groups:
            check.fail("groups is empty: nothing would train; write Group(name=..., ...)")
        for group in groups:
            if not isinstance(group, Group):
                check.fail(f"groups holds a {type(group).__name__}; write Group(name=..., ...)")
            else:
                _check_group(check, group)
        if check.has_failed:
            return
        repeated = _repeated([group.name for group in groups])
        if repeated:
            check.fail(f"two groups are called {listed(repeated)}; give each a name of its own")
        _check_parameters(check, task)
        names = [group.name for group in groups]
        # A group may be idle only now and then, which one step would not show.
        unknown = {name for step in range(100) for name in task.idle(step)} - set(names)
        if unknown:
            check.fail(f"idle() names {listed(sorted(unknown))}; the groups are {listed(names)}")
        check.seen = ", ".join(f"{group.name} (lr {group.lr:g})" for group in groups)


def _check_group(check: Check, group: Group) -> None:
    for name, value, is_good in (
        ("lr", group.lr, 0 < group.lr < math.inf),
        ("clip", group.clip, group.clip > 0),
        ("weight_decay", group.weight_decay, 0 <= group.weight_decay < math.inf),
    ):
        if not is_good:
            least = "at least 0" if name == "weight_decay" else "above 0"
            check.fail(f"group '{group.name}' has {name}={value!r}; make it a number {least}")
    if not isinstance(group.parameters, Sequence):
        # A generator is exhausted after its first use.
        check.fail(f"the parameters of group '{group.name}' are no list; write list(...)")
    elif not group.parameters:
        check.fail(f"group '{group.name}' has no parameters")


def _check_parameters(check: Check, task: Task) -> None:
    names = parameter_names(task)
    every = [parameter for group in task.groups for parameter in group.parameters]
    for parameter in every:
        name = names[id(parameter)]
        if parameter.is_complex():
            check.fail(f"parameter '{name}' is complex; keep its real and imaginary parts as two")
        elif parameter.requires_grad and parameter.dtype != torch.float32:
            check.fail(
                f"parameter '{name}' is {parameter.dtype}; leave it float32, autocast does the rest"
            )
    repeated = _repeated([names[id(parameter)] for parameter in every])
    if repeated:
        check.fail(f"in a group twice, or in two groups: {listed(repeated)}; leave one of each")
    inside = {id(p): p for module in task.modules.values() for p in module.parameters()}
    grouped = {id(parameter) for parameter in every}
    idle = [names[key] for key, p in inside.items() if p.requires_grad and key not in grouped]
    if idle:
        check.warn(f"in no group, and would never train: {listed(idle)}")
    unsaved = [names[key] for key in grouped - set(inside)]
    if unsaved:
        check.warn(f"in no module, and would be lost in an interruption: {listed(unsaved)}")


def check_steps(findings: Findings, task: Task) -> None:
    """Check that an epoch has steps, and that the schedule gives finite factors >= 0."""
    with findings.check("steps_per_epoch") as check:
        steps = task.steps_per_epoch
        if not isinstance(steps, int) or steps < 1:
            check.fail(f"steps_per_epoch is {steps!r}; make it a whole number above 0")
        check.seen = str(steps)
    with findings.check("schedule") as check:
        factors = {i / 100: task.schedule(i / 100) for i in range(100)}
        for progress, factor in factors.items():
            if not (math.isfinite(factor) and factor >= 0):
                check.fail(f"schedule({progress}) is {factor!r}; give a finite factor, 0 or more")
                return
        if not any(factors.values()):
            check.fail("schedule() is 0 throughout: nothing would train")
        check.seen = f"{min(factors.values()):.3g} to {max(factors.values()):.3g}"


def check_optimizer(findings: Findings, task: Task) -> None:
    """Check that a custom optimizer has the parameters of the groups, in their order."""
    with findings.check("optimizer") as check:
        own = task.optimizer()
        check.seen = "AdamW" if own is None else type(own).__name__
        if own is None:
            return
        if not isinstance(own, torch.optim.Optimizer):
            check.fail(f"optimizer() gave a {type(own).__name__}, no torch.optim.Optimizer")
            return
        theirs = [{id(p) for p in group["params"]} for group in own.param_groups]
        if theirs != [{id(p) for p in group.parameters} for group in task.groups]:
            check.fail(
                f"optimizer() has {len(theirs)} parameter groups and the task {len(task.groups)}; "
                "give it one for each of `groups`, with its parameters, in their order"
            )


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]
