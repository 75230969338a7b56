"""The guard on trial: every planted situation, in every precision, gets the verdict it deserves.

`python benchmarks/planted.py` prints the same as a table.
"""

from __future__ import annotations

import dataclasses

import planted
import planted_ris
import pytest
import situations
import torch

from hpo.task.forward import PRECISIONS
from tests.support.toys import CPU

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@every_precision
@pytest.mark.parametrize("name", situations.SITUATIONS)
def test_a_planted_situation_gets_the_verdict_it_deserves(name, precision):
    row = planted.run(situations.SITUATIONS[name], precision, CPU, seed=1)

    assert row.wrong == ()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@every_precision
def test_planted_situations_get_the_same_verdicts_on_a_gpu(precision):
    device = torch.device("cuda")

    rows = [planted.run(s, precision, device, seed=1) for s in situations.SITUATIONS.values()]

    assert {row.situation.name: row.wrong for row in rows if row.wrong} == {}


def test_a_verdict_says_the_names_that_the_parts_were_given_and_no_others():
    rows = [planted.run(situations.SITUATIONS["SqrtZero"], "fp32", CPU, seed=s) for s in (1, 2)]

    terms, parameters = zip(
        *[(row.ended.evidence.term, row.ended.evidence.parameter) for row in rows], strict=True
    )
    assert [row.wrong for row in rows] == [(), ()]
    assert terms[0] != terms[1] and parameters[0] != parameters[1]
    assert all(t in row.ended.detail for t, row in zip(terms, rows, strict=True))


def test_a_fault_that_does_not_come_about_is_no_success():
    class Absent(situations.numerics.SqrtZero):
        bad = ()

    absent = dataclasses.replace(situations.SITUATIONS["SqrtZero"], build=Absent)

    row = planted.run(absent, "fp32", CPU)

    assert row.wrong == ("0 bad steps instead of 1 to 16", "healthy instead of grad_nonfinite")


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "loss_nonfinite"},
        {"term": "fit"},
        {"kind": "infinite"},
        {"direction": "forward"},
        {"parameter": "head.bias"},
        {"parameters": ("trunk.weight",)},
        {"operation": "log"},
        {"within": 4},
        {"reason": None},
    ],
    ids=lambda change: "-".join(change),
)
def test_every_part_of_an_expectation_is_compared(change):
    sound = situations.SITUATIONS["SqrtZero"]
    outcome = dataclasses.replace(sound.expected["fp32"], **change)

    row = planted.run(dataclasses.replace(sound, expected={"fp32": outcome}), "fp32", CPU)

    assert len(row.wrong) >= 1


def test_healthy_trials_of_the_wide_space_raise_no_alarm(capsys):
    # Of the first 40 seeds the one with the smallest network: the wide space has ones of 16 times
    # the work, which `python benchmarks/planted.py --healthy_steps 10000` trains.
    alarms = planted_ris.table(CPU, planted_ris.STEPS, seed=21)

    printed = capsys.readouterr().out
    assert alarms == 0
    assert f"{planted_ris.STEPS} steps: 0 false alarms" in printed
