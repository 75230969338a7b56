"""Half precision: the forward alone is computed in it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import pytest
import torch

from hpo.task.forward import is_matrix_refused, loss_terms, to_full, total
from tests.support.toys import CPU, ToyTask


class Pair(NamedTuple):
    a: torch.Tensor
    b: list[torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Labels:
    value: torch.Tensor
    nested: dict[str, Pair]
    count: int


def test_every_floating_tensor_becomes_fp32_and_every_complex_one_complex64():
    half, whole = torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.int64)
    pair = Pair(half.to(torch.bfloat16), [half.to(torch.float64), whole])
    labels = Labels(torch.ones(2, dtype=torch.complex32), {"pair": pair}, 3)

    full = to_full((labels, half))

    assert full[0].value.dtype == torch.complex64
    assert full[0].nested["pair"].a.dtype == torch.float32
    assert full[0].nested["pair"].b[0].dtype == torch.float32
    assert full[0].nested["pair"].b[1].dtype == torch.int64
    assert (type(full[0]), full[0].count, full[1].dtype) == (Labels, 3, torch.float32)
    # The caller's own are left alone.
    assert labels.value.dtype == torch.complex32


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)],
)
def test_the_forward_runs_in_the_precision_asked_for_and_the_loss_in_fp32(precision, dtype):
    task = ToyTask(label=lambda y: y.to(torch.float16))

    loss_terms(task, task.batch(0), device=CPU, precision=precision)

    assert task.forward_dtypes == [dtype]
    assert set(task.loss_dtypes) == {torch.float32}


def test_a_callers_autocast_does_not_reach_the_loss():
    task = ToyTask(
        sabotage=lambda _, terms, out: {"m": terms["fit"]._replace(value=(out @ out.T).sum())}
    )

    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss_terms(task, task.batch(0), device=CPU, precision="fp16")

    assert terms["m"].value.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.complex32, torch.float64])
def test_labels_in_another_dtype_give_the_fp32_result(dtype):
    # Labels that fp16 holds exactly, so that only the arithmetic could differ.
    plain = ToyTask(dropout=0.0, label=lambda y: y.half().float())
    other = ToyTask(dropout=0.0, label=lambda y: y.half().to(dtype))

    losses = [
        total(loss_terms(task, task.batch(0), device=CPU, precision="fp32"))
        for task in (plain, other)
    ]

    assert losses[0].dtype == losses[1].dtype == torch.float32
    assert losses[0].item() == losses[1].item()


@pytest.mark.parametrize(
    ("message", "is_refused"),
    [
        ("linalg_eigh_backward: The eigenvectors in the complex case are specified up to", True),
        ("svd_backward: The singular vectors in the complex case are specified up to", True),
        ("my_backward: wrong shape", False),
        ("to_dense_backward: Unsupported input layout", False),
    ],
)
def test_only_a_decompositions_backward_refuses_a_matrix(message, is_refused):
    assert is_matrix_refused(RuntimeError(message)) is is_refused
