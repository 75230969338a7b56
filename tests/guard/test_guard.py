"""The verdict: healthy trials live, true divergences die within 16 steps and are named."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpo.engine import trial as engine
from hpo.engine.plan import Plan, Result
from hpo.guard import forensics
from hpo.guard import verdict as guard
from hpo.guard.counters import Counters
from hpo.guard.evidence import Divergence
from hpo.guard.verdict import Found, Probed, Reading
from hpo.task.random_state import random_state
from objectives import Term
from tests.support.toys import CPU, Log, ToyTask, weights


def train(task: ToyTask, *, precision: str = "fp32", epochs: int = 6) -> tuple[object, Log]:
    log = Log()
    plan = Plan(epochs=epochs, precision=precision, device=CPU, metric="error")
    try:
        return engine.train(task, plan, log), log
    except Divergence as verdict:
        return verdict, log


def from_step(first: int, spoil, last: int = 10**9):
    def sabotage(step, terms, outputs):
        if not first <= step <= last:
            return terms
        return {**terms, "zeta": Term(spoil(outputs))}

    return sabotage


def nan_by_sqrt(outputs):
    # Finite forward, and 1/0 · 0 = NaN backward.
    return (outputs * 0.0).square().sum().sqrt()


def infinite(outputs):
    return outputs.sum() * 0 + math.inf


def steep(outputs):
    # The gradient of each output is 1e37; in the sum over the body it exceeds fp32.
    return (outputs * 1e30).square().sum()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("spoil", "reason", "clause"),
    [
        (nan_by_sqrt, "grad_nonfinite", "gradient of 'zeta' is NaN in 'body.0.weight'"),
        (infinite, "loss_nonfinite", "loss term 'zeta' is infinite"),
        (steep, "loss_nonfinite", "loss term 'zeta' is infinite"),
    ],
)
@pytest.mark.parametrize("first", [0, 5, 22])
def test_a_true_divergence_is_pruned_within_16_steps_and_named(
    precision, spoil, reason, clause, first
):
    task = ToyTask(sabotage=from_step(first, spoil))

    verdict, _ = train(task, precision=precision)

    assert isinstance(verdict, Divergence)
    assert verdict.reason == reason
    assert clause in verdict.detail
    assert task.step + 1 - first <= 16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_non_finite_step_never_reaches_the_weights(precision):
    spoiled, clean = ToyTask(sabotage=from_step(4, nan_by_sqrt, 4)), ToyTask()

    result, log = train(spoiled, precision=precision, epochs=2)
    train(clean, precision=precision, epochs=2)

    assert result.skipped == 1
    assert log.epochs[-1].skipped == 1
    assert torch.isfinite(weights(spoiled)).all()
    # One step of 20 was left out, and one only.
    assert not torch.equal(weights(spoiled), weights(clean))


def test_overflows_of_a_scaler_that_searches_prune_nobody():
    # A loss of this size overflows fp16's largest number until the scale has come down.
    big = from_step(0, lambda outputs: 3000 * outputs.square().mean())

    result, log = train(ToyTask(sabotage=big), precision="fp16")

    assert isinstance(result, Result)
    assert 2 <= result.skipped <= 16
    assert log.epochs[-1].scale < 65536
    assert log.epochs[-1].metrics["error"] < log.epochs[0].metrics["error"]


def test_what_only_fp16_cannot_represent_is_told_from_bad_mathematics():
    # 1e5 is beyond fp16 and well within fp32.
    task = ToyTask()
    with torch.no_grad():
        task.head.weight.mul_(1e6)

    verdict, _ = train(task, precision="fp16")

    assert isinstance(verdict, Divergence)
    assert verdict.reason == "precision_range"
    assert "finite in fp32" in verdict.detail


def test_a_metric_that_is_not_finite_is_a_verdict_of_its_own():
    task = ToyTask()
    task.validate = lambda: {"error": math.nan}

    verdict, _ = train(task)

    assert verdict.reason == "metric_nonfinite"


def test_steps_that_keep_failing_one_at_a_time_are_a_stall():
    # Every fourth step alone: no run is ever long enough for a probe.
    def sabotage(step, terms, outputs):
        return {**terms, "zeta": Term(nan_by_sqrt(outputs))} if step % 4 == 0 else terms

    verdict, _ = train(ToyTask(sabotage=sabotage), epochs=20)

    assert verdict.reason == "stalled"


def reading(**figures) -> Reading:
    calm = {
        "step": 200,
        "run": 0,
        "withheld": 0,
        "early": 0,
        "spikes": 0,
        "scale": 1024.0,
        "is_bad_loss": False,
    }
    return Reading(**{**calm, **figures})


CLEAN = Probed(Found.CLEAN, Found.CLEAN)


@pytest.mark.parametrize(
    ("figures", "probed", "reason"),
    [
        ({}, None, None),
        ({"run": 3}, None, None),
        ({"run": 4}, CLEAN, None),
        ({"run": 4}, Probed(Found.LOSS, Found.CLEAN), "loss_nonfinite"),
        ({"run": 4}, Probed(Found.GRADIENT, Found.CLEAN), "grad_nonfinite"),
        ({"run": 4}, Probed(Found.CLEAN, Found.LOSS), "precision_range"),
        ({"run": 4}, Probed(Found.CLEAN, Found.GRADIENT), "precision_range"),
        # The batch is finite, yet its step is not: nothing that a scale would mend.
        ({"run": 4, "scale": None}, CLEAN, "stalled"),
        ({"run": 4, "scale": guard.SCALE_FLOOR / 2}, CLEAN, "stalled"),
        ({"run": 4, "scale": guard.SCALE_FLOOR}, CLEAN, None),
        ({"run": 4, "is_bad_loss": True}, CLEAN, "stalled"),
        # 30 of the first 104 steps, in which the scaler came down to its floor, are forgiven.
        ({"step": 112, "withheld": 30, "early": 30}, None, None),
        ({"withheld": 32, "early": 12}, None, "stalled"),
        ({"withheld": 22, "early": 12}, None, None),
        # 7 of the first 8 steps and so on: no scaler searches for so long.
        ({"step": 72, "withheld": 45, "early": 45}, None, "stalled"),
        ({"step": 96, "withheld": 44, "early": 44}, None, None),
        # One bad batch in 12, twice in the first 20 steps: no share yet.
        ({"step": 120, "withheld": 12, "early": 9}, None, None),
    ],
)
def test_the_state_machine_judges_figures_alone(figures, probed, reason):
    assert guard.verdict(reading(**figures), probed) == reason


def test_a_probe_is_asked_for_from_four_bad_steps_in_a_row():
    assert [reading(run=run).is_suspect for run in (0, 1, 3, 4, 8)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("first", range(3, 11))
def test_three_bad_steps_that_end_by_themselves_are_a_spike_wherever_they_fall(precision, first):
    # A loss that is not finite is no fault of the scale, so it counts under a scaler, too.
    task = ToyTask(sabotage=from_step(first, infinite, first + 2))

    result, log = train(task, precision=precision, epochs=3)

    assert isinstance(result, Result)
    assert result.spikes == 1
    assert log.epochs[-1].spikes == 1


def test_a_loss_that_is_not_finite_does_not_lower_the_scale():
    # One poisoned batch in 12; a scaler on its own would halve its scale at each.
    def sabotage(step, terms, outputs):
        return {**terms, "zeta": Term(infinite(outputs))} if step % 12 == 5 else terms

    result, log = train(ToyTask(sabotage=sabotage), precision="fp16", epochs=10)
    _, clean = train(ToyTask(), precision="fp16", epochs=10)

    assert result.spikes == 8
    assert log.epochs[-1].scale == clean.epochs[-1].scale


def test_a_decomposition_that_refuses_its_matrix_is_a_divergence_and_no_failure():
    # On a CPU eigh refuses a NaN from 3x3 on.
    def refused(outputs):
        matrix = (outputs[:3].T @ outputs[:3]).log()
        return torch.linalg.eigvalsh(torch.block_diag(matrix, matrix)).sum()

    verdict, _ = train(ToyTask(sabotage=from_step(4, refused)))

    assert verdict.reason == "loss_nonfinite"
    assert verdict.evidence.operation in ("log", "linalg_eigvalsh")


def test_what_one_bad_batch_did_to_a_running_mean_is_undone():
    def build(sabotage=None):
        task = ToyTask(sabotage=sabotage)
        task.body.append(torch.nn.BatchNorm1d(8))
        return task

    def poison(batch_of):
        def batch(step):
            batch = batch_of(step)
            if step == 4:
                batch["x"][0, 0] = math.nan
            return batch

        return batch

    task = build()
    task.batch = poison(task.batch)

    result, _ = train(task, epochs=2)

    assert isinstance(result, Result)
    assert (result.skipped, result.spikes) == (1, 1)
    norm = task.body[-1]
    assert torch.isfinite(norm.running_mean).all()
    # Of 20 forwards in training that of the bad step did not happen.
    assert norm.num_batches_tracked == 19


def test_a_buffer_that_a_forward_replaces_is_put_back_by_a_look():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x):
            self.n = self.n + 1
            return x

    task = ToyTask()
    task.body.append(Counting())
    with torch.no_grad():
        task.body(task.batch(0)["x"])

    forensics.probe(task, task.batch(0), device=CPU, precision="fp16", rng=random_state(CPU))

    assert task.body[-1].n == 1


def test_a_complex_eigh_trains_under_a_scaler_whose_gradients_it_refuses_at_first():
    # torch's eigh checks its gradient's phase by an absolute tolerance, 65,536 times too strict.
    def aligned(outputs):
        factor = torch.complex(outputs[:, 0], outputs[:, 1]).view(4, 4)
        matrix = factor @ factor.mH + torch.diag(torch.arange(4.0))
        return 0.1 * torch.linalg.eigh(matrix)[1][:, -1].abs().square()[0]

    result, log = train(ToyTask(sabotage=from_step(0, aligned)), precision="fp16")

    assert isinstance(result, Result)
    assert log.epochs[-1].metrics["error"] < log.epochs[0].metrics["error"]


def test_a_complex_eigh_that_refuses_its_gradient_in_fp32_is_a_divergence():
    def phased(outputs):
        factor = torch.complex(outputs[:, 0], outputs[:, 1]).view(4, 4)
        vectors = torch.linalg.eigh(factor @ factor.mH)[1]
        return (vectors.real * 0).square().sum().sqrt()

    verdict, _ = train(ToyTask(sabotage=from_step(0, phased)))

    assert verdict.reason == "grad_nonfinite"
    assert (verdict.evidence.term, verdict.evidence.operation) == ("zeta", "linalg_eigh")


def test_a_search_of_the_scale_outlives_a_probe_that_fails(monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("no room for fp32")

    monkeypatch.setattr(forensics, "probe", fail)
    big = from_step(0, lambda outputs: 3000 * outputs.square().mean())

    result, _ = train(ToyTask(sabotage=big), precision="fp16")

    assert isinstance(result, Result)
    assert result.skipped >= 4


def test_a_decomposition_that_refuses_in_validation_is_a_verdict_on_the_metric():
    task = ToyTask()
    task.validate = lambda: {"error": float(torch.linalg.cholesky(-torch.eye(2)).sum())}

    verdict, _ = train(task)

    assert verdict.reason == "metric_nonfinite"
    assert verdict.evidence.operation == "linalg_cholesky"


def test_a_verdict_stands_where_its_explanation_fails(monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room for a second graph")

    monkeypatch.setattr(forensics, "examine", fail)

    verdict, _ = train(ToyTask(sabotage=from_step(0, nan_by_sqrt)))

    assert verdict.reason == "grad_nonfinite"
    assert verdict.evidence.term is None
    assert verdict.detail.startswith("a gradient is not finite (8 steps in a row, last 8")
    assert verdict.saved is not None


def test_looking_leaves_weights_gradients_buffers_and_random_state_alone():
    task = ToyTask(sabotage=from_step(0, nan_by_sqrt))
    task.modules["norm"] = torch.nn.BatchNorm1d(2)
    forward = task.forward
    task.forward = lambda batch: task.modules["norm"](forward(batch))
    batch, rng = task.batch(0), random_state(CPU)
    before = (weights(task), torch.get_rng_state(), task.modules["norm"].running_mean.clone())

    probed = forensics.probe(task, batch, device=CPU, precision="fp16", rng=rng)
    forensics.examine(task, batch, device=CPU, precision="fp16", rng=rng)

    after = (weights(task), torch.get_rng_state(), task.modules["norm"].running_mean)
    assert probed.fp32 is Found.GRADIENT
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for g in task.groups for p in g.parameters)


class HostReads(TorchDispatchMode):
    """Counts what would make a host wait for a device: a tensor's value asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_host_waits_once_in_8_steps_at_most(precision, monkeypatch):
    plan = Plan(epochs=8, precision=precision, device=CPU, metric="error")
    trial = engine._Trial(ToyTask(), plan)
    reads = []
    read = Counters.read
    monkeypatch.setattr(Counters, "read", lambda *args: reads.append(1) or read(*args))

    with HostReads() as host:
        for step in range(80):
            is_read_due, batch = trial.is_read_due, trial.task.batch(step)
            trial.train_step(batch)
            if is_read_due:
                trial.judge(batch, {})

    # 80 steps: every 8th, and one more at the end of each of the 8 epochs between two of those.
    assert len(reads) <= 80 / 8 + 8
    # A read is one transfer of all counts; beside it nobody asks for a value.
    assert host.count == 0
