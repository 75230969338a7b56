"""Check that a trial's value does not depend on the trials before it in its process.

Two configurations are trained in both orders, and in a fresh process. Border: compares outcomes; a
difference is something that `hpo.task.process` cannot restore.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpo.check.findings import Check, Findings, listed, raised
from hpo.check.hooks import figures, state_of
from hpo.check.steps import Stopwatch
from hpo.check.trials import Trials
from hpo.engine.plan import Plan
from hpo.engine.trial import train
from hpo.errors import StopRequested
from hpo.task.build import build, plain
from objectives import Objective

# A trial of some steps, as the first ones show what differs from the start.
_STEPS = 6
# Each of the trials takes no longer, from its second step on.
_TRIAL_S = 2.0
# The import of torch takes 2 to 10 s; two trials follow.
_FRESH_S = 120.0
# A GPU sums in any order, and some steps in half precision multiply the difference.
_GPU_TOLERANCE = 1e-2
_CAUSE = (
    "something outlives a trial, as a module's global, a cache or a patched library: keep it in "
    "the task; --fresh_process gives each trial its own process"
)

Outcome = Mapping[str, Any]


def check_orders(
    findings: Findings,
    trials: Trials,
    *,
    objective: Objective,
    metric: str,
    precision: str,
    step_s: float,
    spec: str | None,
) -> None:
    """Train two configurations in both orders, here and in a fresh process, and compare.

    Args:
        spec: The objective's name for the fresh process; None to train in this one alone.
    """
    with findings.check("independence") as check:
        if trials.other is None:
            check.seen = "not compared: the space gave one configuration"
            return
        steps = max(1, min(_STEPS, int(_TRIAL_S / max(step_s, 1e-6))))
        how: dict[str, Any] = {
            "metric": metric,
            "precision": precision,
            "device": trials.device,
            "steps": steps,
        }
        default, other = (
            {**trials.about(params=params), "params": plain(params)}
            for params in (trials.about()["params"], trials.other)
        )

        def trained(about: Mapping[str, Any]) -> Outcome:
            trials.process.restore()
            return outcome(objective, about, **how)

        first, second, again = trained(default), trained(other), trained(default)
        is_gpu = trials.device.type == "cuda"
        what = "the default configuration differs if it is trained again after another one"
        _compare(check, what, first, again, is_gpu=is_gpu)
        where = "in this process"
        if spec is not None:
            alone = _in_fresh_process(check, spec, [other, default], **how)
            if alone is not None:
                what = "a configuration differs after others from what it is in a fresh process"
                _compare(check, what, alone[0], second, is_gpu=is_gpu)
                what = "the default configuration differs in a fresh process, after another one"
                _compare(check, what, first, alone[1], is_gpu=is_gpu)
            where += " and in a fresh one"
        check.seen = f"two configurations give the same in both orders, {where}"


def outcome(
    objective: Objective,
    about: Mapping[str, Any],
    *,
    metric: str,
    precision: str,
    device: torch.device,
    steps: int,
) -> Outcome:
    """Train a trial for some steps: its figures, and digests of its weights; or what it raised."""
    try:
        task = build(about, device, objective)
        plan = Plan(
            epochs=about["study"]["epochs"],
            precision=precision,
            device=device,
            metric=metric,
            about=about,
        )
        with suppress(StopRequested):
            train(task, plan, Stopwatch(steps, device))
        digests = {name: _digest(tensor) for name, tensor in state_of(task).items()}
        return {"figures": figures(task, device), "digests": digests, "raised": ""}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {"figures": {}, "digests": {}, "raised": raised(error, None)}


def _digest(tensor: Tensor) -> str:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = real.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def _compare(check: Check, what: str, alone: Outcome, after: Outcome, *, is_gpu: bool) -> None:
    """Warn if two trials of a configuration differ; the first such warning is enough."""
    found = _difference(alone, after, is_gpu=is_gpu)
    if found and not check.has_warned:
        check.warn(f"{what} ({found}); {_CAUSE}")


def _difference(alone: Outcome, after: Outcome, *, is_gpu: bool) -> str:
    """The first difference of two outcomes, in words; empty if there is none."""
    if alone["raised"] != after["raised"]:
        return f"{alone['raised'] or 'it trained'}, then {after['raised'] or 'it trained'}"
    tolerance = _GPU_TOLERANCE if is_gpu else 0.0
    for name, value in alone["figures"].items():
        other = after["figures"].get(name, math.nan)
        is_same = value == other or (math.isnan(value) and math.isnan(other))
        if not is_same and not math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance):
            return f"'{name}' is {other!r} in place of {value!r}"
    if is_gpu:
        return ""
    theirs = after["digests"]
    names = [name for name, digest in alone["digests"].items() if theirs.get(name) != digest]
    return f"the weights {listed(names)}" if names else ""


def _in_fresh_process(
    check: Check, spec: str, abouts: list[Mapping[str, Any]], **how: Any
) -> list[Outcome] | None:
    """Train trials one after the other in a process of its own; None if it does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.pt", Path(folder) / "answer.pt"
        # A process that it started may hold its streams open for ever, so they are files.
        paths, log = Path(folder) / "paths", Path(folder) / "log"
        paths.write_text(f"{request}\n{answer}\n")
        threads = torch.get_num_threads()
        how = {**how, "device": str(how["device"])}
        torch.save({"spec": spec, "abouts": abouts, "how": how, "threads": threads}, request)
        with paths.open() as given, log.open("w") as told:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hpo.check.fresh"],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=told,
                start_new_session=True,
            )
        try:
            process.wait(timeout=_FRESH_S)
        except subprocess.TimeoutExpired:
            check.warn(f"a fresh process did not train two short trials within {_FRESH_S:.0f} s")
            return None
        finally:
            # It may have started others.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if answer.exists():
            outcomes: list[Outcome] = torch.load(answer, weights_only=True)
            return outcomes
        said = log.read_text(errors="replace")
    last = (said.strip().splitlines() or [f"it ended with code {process.returncode}"])[-1]
    check.warn(f"a fresh process cannot train what this one can: {last}")
    return None
