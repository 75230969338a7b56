"""Optimizers without torch's compiler: the same numbers, and torch's own once it is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.program import ROOT

# A process of its own: the one that tests has the compiler already.
SCRIPT = """
import json, sys
import torch
from hpo.task import compiler

def trained(optimizer, **own):
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    steps = optimizer(net.parameters(), lr=0.1, **own)
    for _ in range(3):
        steps.zero_grad()
        net(torch.ones(4, 3)).square().mean().backward()
        steps.step()
    steps.load_state_dict(steps.state_dict())
    assert torch.is_grad_enabled()
    return [float(value) for p in net.parameters() for value in p.flatten()]

def is_marked():
    return hasattr(torch.optim.Optimizer.add_param_group.__wrapped__, "__dynamo_disable")

if sys.argv[1] == "deferred":
    compiler.defer()
kinds = {"SGD": {}, "AdamW": {"fused": True}, "Adam": {}, "RMSprop": {}, "Adagrad": {}}
found = {kind: trained(getattr(torch.optim, kind), **own) for kind, own in kinds.items()}
has_compiler = "torch._dynamo" in sys.modules
was_marked = is_marked()
net = torch.nn.Linear(1, 1)
steps = torch.optim.SGD(net.parameters(), lr=0.1)
net(torch.ones(1, 1)).sum().backward()
torch.compile(lambda: steps.step(), backend="eager")()
marked_anew = not was_marked or not is_marked() or sys.argv[1] != "deferred"
torch.optim.SGD(net.parameters(), lr=0.1)
json.dump([found, has_compiler, marked_anew and is_marked(), float(net.weight)], sys.stdout)
"""


def ran(how: str) -> list[object]:
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.acceptance
def test_optimizers_do_without_the_compiler_and_train_the_same_bits():
    torchs, has_compiler, is_marked, compiled = ran("as torch has it")
    ours, has_ours, is_ours_marked, compiled_ours = ran("deferred")

    assert (has_compiler, has_ours) == (True, False)
    assert ours == torchs
    # Whoever compiles gets torch's own marks, and a compiled step does the same.
    assert is_marked and is_ours_marked
    assert compiled_ours == compiled
