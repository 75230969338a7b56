"""The structure of a built task against the contract: modules, groups, epoch, schedule, optimizer.

Each function yields the faults that it finds, as sentences in the words of an objective. Border:
runs no batch and reports nothing; `check` and the start of a run report all faults, the engine
fails a trial with the first one.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hpo.task.parameters import parameter_names, trained
from objectives import Group, Task

# A message lists at most this many names and counts the others, so that it stays short.
_LISTED = 4
# What the engine needs of an optimizer, besides its param_groups.
_METHODS = ("step", "zero_grad", "state_dict", "load_state_dict")
_Faults = Iterator[str]


def module_faults(task: Task, device: torch.device) -> _Faults:
    """The faults of `modules`, which maps names to initialized networks on the device."""
    modules = getattr(task, "modules", None)
    if not isinstance(modules, Mapping | nn.ModuleDict) or not len(modules):
        yield f"modules is {modules!r}; write a mapping, as {{'net': self.net}}"
        return
    for name, module in modules.items():
        if not isinstance(name, str):
            yield f"modules has the name {name!r}; name each network by a word"
        if not isinstance(module, nn.Module):
            yield f"modules['{name}'] is a {type(module).__name__}, no torch.nn.Module"
            continue
        tensors = dict([*module.named_parameters(), *module.named_buffers()])
        lazy = [f"{name}.{n}" for n, tensor in tensors.items() if is_lazy(tensor)]
        if lazy:
            yield (
                f"{listed(lazy)} has no shape before a first batch; run one through the network "
                "in build(), or write a layer that is not lazy"
            )
        elsewhere = {str(t.device) for t in tensors.values() if t.device.type != device.type}
        if elsewhere and not lazy:
            yield f"'{name}' is on {', '.join(elsewhere)}; move it .to(context.device)"
        sparse = [
            f"{name}.{inner}" if inner else name
            for inner, layer in module.named_modules()
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse
        ]
        if sparse:
            yield (
                f"{listed(sparse)} has sparse gradients, of which no norm is taken; write it "
                "without sparse=True"
            )


def group_faults(task: Task) -> _Faults:
    """The faults of `groups`: each parameter is in one group, with a rate, clip and decay."""
    groups = getattr(task, "groups", None)
    if not isinstance(groups, Sequence):
        # A generator is exhausted after its first use.
        yield f"groups is a {type(groups).__name__} and no list; write [Group(name=..., ...)]"
        return
    if not groups:
        yield "groups is empty: nothing would train; write Group(name=..., ...)"
        return
    faults = [fault for group in groups for fault in _faults_of_group(group)]
    yield from faults
    if faults:
        return
    if not any(_number(group.lr) for group in groups):
        yield "no group has a learning rate above 0: nothing would train"
    twice = _repeated([group.name for group in groups])
    if twice:
        yield f"two groups are called {listed(twice)}; give each a name of its own"
    names = parameter_names(task)
    every = [parameter for group in groups for parameter in group.parameters]
    for parameter in every:
        name = names[id(parameter)]
        if is_lazy(parameter):
            # It is named with its module.
            continue
        if not parameter.is_leaf:
            yield f"'{name}' of a group is computed from others and has no gradient of its own"
        elif parameter.is_complex():
            yield f"parameter '{name}' is complex; keep its real and imaginary parts as two"
    twice = _repeated([names[id(parameter)] for parameter in every])
    if twice:
        yield f"in a group twice, or in two groups: {listed(twice)}; leave one of each"
    inside = {id(p) for m in task.modules.values() for p in m.parameters() if p.requires_grad}
    if inside and not inside & {id(parameter) for parameter in every}:
        yield (
            "the groups hold no parameter of `modules`, so the networks would not train; give them "
            "those of `modules`, not of copies"
        )


def idle_faults(task: Task) -> _Faults:
    """The faults of `idle`: names that are no group's."""
    known = [group.name for group in task.groups]
    # A group may be idle only now and then, which one step would not show.
    unknown = {str(name) for step in range(100) for name in task.idle(step)} - set(known)
    if unknown:
        yield f"idle() names {listed(sorted(unknown))}; the groups are {listed(known)}"


def dtype_faults(task: Task, *, has_scaler: bool) -> _Faults:
    """Half-precision parameters that no step could train; frozen ones are allowed."""
    names = parameter_names(task)
    for parameter in trained(task):
        is_bf16 = parameter.dtype == torch.bfloat16
        if parameter.dtype == torch.float16 or (is_bf16 and has_scaler):
            dtype = str(parameter.dtype).removeprefix("torch.")
            why = (
                "a loss scaler does not unscale its gradient"
                if has_scaler
                else "small updates round to nothing"
            )
            yield (
                f"parameter '{names[id(parameter)]}' is {dtype} and trained, where {why}; keep it "
                "in float32 (autocast does the rest), or freeze it"
            )


def _faults_of_group(group: Any) -> _Faults:
    if not isinstance(group, Group):
        yield f"groups holds a {type(group).__name__}; write Group(name=..., ...)"
        return
    if not isinstance(group.name, str) or not group.name:
        yield f"a group has the name {group.name!r}; name it by a word"
    for name, value in (
        ("lr", group.lr),
        ("clip", group.clip),
        ("weight_decay", group.weight_decay),
    ):
        if not _is_good(name, value):
            least = "above 0" if name == "clip" else "at least 0"
            yield f"group '{group.name}' has {name}={value!r}; make it a number {least}"
    if not (group.schedule is None or callable(group.schedule)):
        yield f"group '{group.name}' has schedule={group.schedule!r}; give a function of progress"
    if isinstance(group.parameters, Tensor) or not isinstance(group.parameters, Sequence):
        yield f"the parameters of group '{group.name}' are no list; write list(...)"
        return
    if not group.parameters:
        yield f"group '{group.name}' has no parameters"
    strange = [p for p in group.parameters if not isinstance(p, Tensor)]
    if strange:
        kind = type(strange[0]).__name__
        yield f"group '{group.name}' holds a {kind}; its parameters are tensors of its modules"


def _is_good(name: str, value: Any) -> bool:
    number = _number(value)
    if name == "clip":
        return number > 0
    return number >= 0 and math.isfinite(number)


def _number(value: Any) -> float:
    """A number of Python, numpy or torch as a float; NaN for anything else."""
    if isinstance(value, bool | str):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def step_faults(task: Task) -> _Faults:
    """The faults of `steps_per_epoch` and `accumulate`, which are whole numbers above 0."""
    for name in ("steps_per_epoch", "accumulate"):
        steps = getattr(task, name, None)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            yield f"{name} is {steps!r}; make it a whole number above 0"


def schedule_faults(factors: Mapping[float, float]) -> _Faults:
    """The faults of a schedule's factors, given by the progress at which it returned them."""
    for progress, factor in factors.items():
        number = _number(factor)
        if not (math.isfinite(number) and number >= 0):
            yield f"schedule({progress}) is {factor!r}; give a finite factor, 0 or more"
            return
    if not any(factors.values()):
        yield "schedule() is 0 throughout: nothing would train"


def group_schedule_faults(groups: Sequence[Group], steps: int = 100) -> _Faults:
    """The faults of the schedules that groups have of their own."""
    for group in groups:
        if group.schedule is not None:
            factors = {i / steps: group.schedule(i / steps) for i in range(steps)}
            for fault in schedule_faults(factors):
                yield f"group '{group.name}': {fault}"


def optimizer_faults(own: Any, task: Task) -> _Faults:
    """The faults of the task's own optimizer, which steps the parameters of the groups."""
    if own is None:
        return
    kind = type(own).__name__
    # One that combines two others need not be a torch.optim.Optimizer.
    missing = [name for name in _METHODS if not callable(getattr(own, name, None))]
    if not isinstance(getattr(own, "param_groups", None), Sequence):
        missing.append("param_groups")
    if missing:
        yield (
            f"optimizer() gave a {kind}, no torch.optim.Optimizer, and without "
            f"{', '.join(missing)}; to combine several optimizers, give one object with these, "
            "whose param_groups are theirs in the order of `groups`"
        )
        return
    if _wants_closure(own):
        yield (
            f"optimizer() gave {kind}, whose step() computes the loss again by a closure; a step "
            "has one batch and one gradient here: take one that steps without"
        )
        return
    if isinstance(own, torch.optim.SparseAdam):
        yield f"optimizer() gave {kind}, which steps sparse gradients, and all are dense here"
        return
    names = parameter_names(task)
    theirs = [[id(p) for p in group["params"]] for group in own.param_groups]
    ours = [[id(p) for p in group.parameters] for group in task.groups]
    stepped, grouped = {i for ids in theirs for i in ids}, {i for ids in ours for i in ids}
    if not stepped & grouped:
        yield (
            "the optimizer steps other parameters than the groups', so the networks would not "
            "train; give it the parameters of `groups`, not of copies"
        )
        return
    left = [names[i] for i in dict.fromkeys(i for ids in ours for i in ids) if i not in stepped]
    if left:
        yield f"the optimizer leaves out {listed(left)} of the groups: it would never train"
    if stepped - grouped:
        more = [names.get(i, "a tensor of no module") for i in stepped - grouped]
        yield f"the optimizer steps parameters of no group: {listed(more)}; add them to a group"
    if stepped == grouped and [set(ids) for ids in theirs] != [set(ids) for ids in ours]:
        yield (
            f"optimizer() has {len(theirs)} parameter groups and the task {len(ours)}; "
            "give it one for each of `groups`, with its parameters, in their order"
        )


def _wants_closure(optimizer: Any) -> bool:
    if isinstance(optimizer, torch.optim.LBFGS):
        return True
    try:
        # A scheduler of torch puts a function before the step of the object itself.
        of_class = getattr(type(optimizer), "step", None)
        step = optimizer.step if of_class is None else of_class.__get__(optimizer)
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is p.empty for p in parameters)


def first_fault(task: Task, device: torch.device) -> str | None:
    """The first fault of modules, groups and epoch; None if there is none."""
    for faults in (module_faults(task, device), group_faults(task), step_faults(task)):
        for fault in faults:
            return fault
    return None


def grouped(task: Task) -> dict[int, str]:
    """The names of the parameters that the groups share with the networks, by `id`."""
    names = parameter_names(task)
    return {key: names[key] for key in _inside(task) & _in_groups(task)}


def replaced(task: Task, before: Mapping[int, str]) -> str | None:
    """The fault that networks were replaced in training; None if they were not.

    Args:
        before: What `grouped` returned before the first step.
    """
    inside = _inside(task)
    lost = [name for key, name in before.items() if key not in inside]
    if not lost:
        return None
    return (
        f"{listed(lost)} of the groups left `modules` in training, so what is validated no longer "
        "trains; change parameters in place, as by .data or load_state_dict()"
    )


def _inside(task: Task) -> set[int]:
    return {id(p) for module in task.modules.values() for p in module.parameters()}


def _in_groups(task: Task) -> set[int]:
    return {id(p) for group in task.groups for p in group.parameters}


def listed(names: Sequence[str]) -> str:
    """The first few names in quotes, for a sentence."""
    more = len(names) - _LISTED
    shown = ", ".join(f"'{name}'" for name in names[:_LISTED])
    return shown + (f" and {more} more" if more > 0 else "")


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
