"""The verdict on non-finite steps: a scaler that searches its scale, or a trial that diverged.

Overflows of the loss scaler are normal. What tells them from a true divergence is the same batch
once more in fp32: counters on the device note runs of non-finite steps, they are read every
`READ_EVERY` steps, and a run leads to a probe, which decides and names term and parameter.
Border: raises `Divergence`; does not know what becomes of the trial then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo.errors import Divergence
from hpo.precision import loss_terms
from objectives import Task

# One host synchronisation in 8 steps is invisible beside training; a NaN lives 16 steps at most.
READ_EVERY = 8
# Two bad steps in a row at a read, or four anywhere since the last, are worth a probe; a scaler
# that starts too high skips about six (65,536 / 2**6 = 1,024).
_RUN_AT_READ = 2
_RUN_BETWEEN_READS = 4
# Backstops, for what no probe explains.
_STALL_AFTER = 100
_STALL_SHARE = 0.9


class Counters:
    """Bad steps, counted on the device without a word to the host.

    A step is bad when its loss or a gradient is not finite, and is withheld from the weights
    when a gradient is not.
    """

    def __init__(self, device: torch.device) -> None:
        # run of bad steps, longest run since the last read, withheld, taken, withheld early
        self._counts = torch.zeros(5, dtype=torch.int64, device=device)

    def observe(self, loss: Tensor, norms_G: Tensor) -> Tensor:
        """Note a step's loss and its groups' gradient norms; whether to withhold it, as 0 or 1."""
        run, longest, withheld, taken, early = self._counts.unbind()
        withhold = ~torch.isfinite(norms_G).all()
        bad = withhold | ~torch.isfinite(loss)
        run = (run + 1) * bad
        early = early + (withhold & (withheld + taken < _STALL_AFTER))
        longest = torch.maximum(longest, run)
        counts = (run, longest, withheld + withhold, taken + ~withhold, early)
        self._counts = torch.stack(counts)
        return withhold.float()

    @property
    def taken(self) -> Tensor:
        """Optimizer steps that reached the weights, on the device, shape (1,)."""
        return self._counts[3:4]

    def read(self) -> Reading:
        """The counts, at the price of one synchronisation; the longest run starts anew."""
        reading = Reading(*(int(n) for n in self._counts.tolist()))
        self._counts[1] = 0
        return reading

    def withheld(self) -> int:
        """Steps that did not reach the weights; one synchronisation, the runs are left alone."""
        return int(self._counts[2])

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._counts.copy_(state["counts"])


class Reading(NamedTuple):
    """Bad steps in a row up to now, the longest run since the last read, withheld, taken.

    The last two are since the trial began; `early` is what was withheld of the first 100 steps,
    in which the scaler may search.
    """

    run: int
    longest: int
    withheld: int
    taken: int
    early: int

    @property
    def is_suspect(self) -> bool:
        return self.run >= _RUN_AT_READ or self.longest >= _RUN_BETWEEN_READS

    @property
    def is_stalled(self) -> bool:
        late = self.withheld + self.taken - _STALL_AFTER
        # A few steps are no share yet: as many as two reads.
        return late >= 2 * READ_EVERY and self.late_share < _STALL_SHARE

    @property
    def late_share(self) -> float:
        """The share of the steps after the first 100 that reached the weights."""
        late = self.withheld + self.taken - _STALL_AFTER
        return 1 - (self.withheld - self.early) / max(1, late)


class Finding(NamedTuple):
    """What a probe found: the reason, and a clause that names term, parameter and kind."""

    reason: str
    clause: str


def judge(
    reading: Reading, *, step: int, scale: float, probe: Callable[[], Finding | None]
) -> None:
    """Raise `Divergence` if the trial is not worth going on with.

    Args:
        step: The step just done, counted from 1.
        scale: The loss scale, 1 where there is no scaler.
        probe: Looks at the very batch in fp32; called only when the reading is suspect.
    """
    where = f"{reading.run} steps in a row, last {step}, scale {scale:g}"
    if reading.is_suspect:
        finding = probe()
        if finding is not None:
            raise Divergence(finding.reason, f"{finding.clause} ({where})")
    if reading.is_stalled:
        raise Divergence(
            "stalled",
            f"only {reading.late_share:.0%} of the steps after the first {_STALL_AFTER} reached "
            f"the weights ({where})",
        )


def probe(
    task: Task, batch: Any, *, device: torch.device, precision: str, rng: Mapping[str, Tensor]
) -> Finding | None:
    """Judge a batch by fp32, and where that is clean by the precision trained in, unscaled.

    Leaves weights, gradients, buffers and random state as they were.

    Args:
        rng: The random state that the step started from, as `random_state` gives it.
    """
    buffers = {name: copy.deepcopy(dict(m.named_buffers())) for name, m in task.modules.items()}
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            set_random_state(rng, device)
            finding = _look(task, batch, device=device, precision="fp32")
            if finding is not None:
                return Finding(finding.reason, f"{finding.clause}; fp32 probe agrees")
            set_random_state(rng, device)
            finding = _look(task, batch, device=device, precision=precision)
            if finding is not None:
                clause = f"{finding.clause} in {precision} without scaling, finite in fp32"
                return Finding("precision_range", clause)
            return None
    finally:
        with torch.no_grad():
            for name, module in task.modules.items():
                for key, buffer in module.named_buffers():
                    buffer.copy_(buffers[name][key])


def _look(task: Task, batch: Any, *, device: torch.device, precision: str) -> Finding | None:
    """The first non-finite term or gradient in one forward and backward."""
    terms = loss_terms(task, batch, device=device, precision=precision)
    for name, term in terms.items():
        if not torch.isfinite(term.weight * term.value):
            return Finding("loss_nonfinite", f"loss term '{name}' is {_kind(term.value)}")
    named = parameter_names(task)
    parameters = [p for group in task.groups for p in group.parameters]
    for name, term in terms.items():
        if not term.value.requires_grad:
            continue
        gradients = torch.autograd.grad(
            term.weight * term.value, parameters, retain_graph=True, allow_unused=True
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and not torch.isfinite(gradient).all():
                clause = f"gradient of '{name}' is {_kind(gradient)} in '{named[id(parameter)]}'"
                return Finding("grad_nonfinite", clause)
    return None


def parameter_names(task: Task) -> dict[int, str]:
    """`module.parameter` by the parameter's identity; its group's name where no module has it."""
    names = {id(p): f"{g.name}[{i}]" for g in task.groups for i, p in enumerate(g.parameters)}
    for module_name, module in task.modules.items():
        names |= {id(p): f"{module_name}.{name}" for name, p in module.named_parameters()}
    return names


def _kind(tensor: Tensor) -> str:
    return "NaN" if torch.isnan(tensor).any() else "infinite"


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's own generators for this device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's own generators back to a state."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
