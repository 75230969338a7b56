"""Check the parts of a built task: modules, groups, epoch length, schedule, optimizer.

Border: runs no batch; `hpo.task.contract` finds the faults, `hooks` checks the hooks that train and
validate.
"""

from __future__ import annotations

import torch

from hpo.check.findings import Findings, listed
from hpo.task import contract
from hpo.task.parameters import parameter_names, trained
from objectives import Task


def check_modules(findings: Findings, task: Task, device: torch.device) -> bool:
    """Return whether `modules` maps names to modules on the device."""
    with findings.check("modules") as check:
        for fault in contract.module_faults(task, device):
            check.fail(fault)
        if not check.has_failed:
            check.seen = ", ".join(task.modules)
    return not check.has_failed


def check_groups(findings: Findings, task: Task) -> None:
    """Check that each parameter trains in one group, with a usable rate, clip and decay."""
    with findings.check("groups") as check:
        for fault in contract.group_faults(task):
            check.fail(fault)
        if check.has_failed:
            return
        for fault in contract.dtype_faults(task, has_scaler=False):
            check.fail(fault)
        names = parameter_names(task)
        inside = {id(p): p for module in task.modules.values() for p in module.parameters()}
        grouped = {id(parameter) for group in task.groups for parameter in group.parameters}
        idle = [names[key] for key, p in inside.items() if p.requires_grad and key not in grouped]
        if idle:
            check.warn(f"in no group, and would never train: {listed(idle)}")
        odd = {
            names[id(p)]: p.dtype
            for p in trained(task)
            if p.dtype not in (torch.float16, torch.float32)
        }
        if odd:
            dtypes = ", ".join(sorted({str(dtype) for dtype in odd.values()}))
            check.warn(f"{listed(list(odd))} is {dtypes}; leave it float32, autocast does the rest")
        unsaved = [names[key] for key in grouped - set(inside)]
        if unsaved:
            check.warn(f"in no module, and would be lost in an interruption: {listed(unsaved)}")
        for fault in contract.idle_faults(task):
            check.fail(fault)
        check.seen = ", ".join(f"{group.name} (lr {group.lr:g})" for group in task.groups)


def check_steps(findings: Findings, task: Task) -> None:
    """Check that an epoch has steps, and that the schedule gives finite factors >= 0."""
    with findings.check("steps_per_epoch") as check:
        for fault in contract.step_faults(task):
            check.fail(fault)
        check.seen = str(getattr(task, "steps_per_epoch", None))
    with findings.check("schedule") as check:
        factors = {i / 100: task.schedule(i / 100) for i in range(100)}
        own = [g for g in task.groups if getattr(g, "schedule", None) is not None]
        for fault in (*contract.schedule_faults(factors), *contract.group_schedule_faults(own)):
            check.fail(fault)
        if not check.has_failed:
            check.seen = f"{min(factors.values()):.3g} to {max(factors.values()):.3g}"


def check_optimizer(findings: Findings, task: Task) -> None:
    """Check that a custom optimizer has the parameters of the groups, in their order."""
    with findings.check("optimizer") as check:
        own = task.optimizer()
        check.seen = "AdamW" if own is None else type(own).__name__
        for fault in contract.optimizer_faults(own, task):
            check.fail(fault)
