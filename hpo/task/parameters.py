"""The parameters that a task trains, and their names."""

from __future__ import annotations

from torch import Tensor

from objectives import Task


def trained(task: Task) -> list[Tensor]:
    """The parameters of all groups that are not frozen, in order."""
    return [p for group in task.groups for p in group.parameters if p.requires_grad]


def parameter_names(task: Task) -> dict[int, str]:
    """Names `module.parameter` by the parameter's `id`; `group[i]` if no module has it."""
    names = {id(p): f"{g.name}[{i}]" for g in task.groups for i, p in enumerate(g.parameters)}
    for module_name, module in task.modules.items():
        names |= {
            id(p): plain_name(f"{module_name}.{name}") for name, p in module.named_parameters()
        }
    return names


def plain_name(name: str) -> str:
    """A parameter's or module's name as the objective has it, without the wrapper of a compiler."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
