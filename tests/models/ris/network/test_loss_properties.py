"""Every loss term in fp32 against its N×N formula in float64, wherever hypothesis can take it.

Shapes: B scenes, N elements, R rank, K sources, P positions on the ring.
"""

from math import pi
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from torch import Tensor

from tests.support.loss_bounds import Answer, bounds
from tests.support.loss_reference import TERMS, Batch, loss, reference

N, P, SCENES = 16, 8, 5
# Columns of ±1 are orthogonal and of equal norm without rounding: their eigenvalues tie exactly.
HADAMARD_NN = torch.from_numpy(hadamard(N)).double()


class Scene(NamedTuple):
    """The parameters of a drawn scene, besides its seed."""

    factor: str = "free"
    is_present: tuple[bool, ...] = (True,) * 5
    is_coincident: bool = False
    spread_db: float = 10.0
    noise_db: float = -10.0
    label_noise_db: float = -10.0
    ring_rad: float = 2.0
    scales: tuple[float, float] = (0.0, 0.0)


def factor_of(kind: str, rank: int, label_NK: Tensor, spread_db: float, normal: Tensor) -> Tensor:
    """F of a scene, float64; `normal` is N×8."""
    columns = HADAMARD_NN[:, 1 : rank + 1] * 1j ** torch.arange(N)[:, None]
    level_R = 10 ** (-torch.linspace(0, spread_db, rank, dtype=torch.float64) / 20)
    steps_R = torch.tensor([4.0, 2, 1, 1, 1, 1, 1, 1])[:rank]
    last_R = torch.nn.functional.one_hot(torch.tensor(rank - 1), rank)
    padded = torch.nn.functional.pad(label_NK, (0, rank))[:, :rank]
    return {
        "free": normal[:, :rank] * level_R,
        "tied": columns,
        "tied_below": columns * steps_R,
        "equal_columns": normal[:, :1].expand(N, rank),
        "lone_column": normal[:, :rank] * last_R,
        "zero": torch.zeros_like(columns),
        "label": padded,
    }[kind]


KINDS = ("free", "tied", "tied_below", "equal_columns", "lone_column", "zero", "label")


def batch_of(scenes: list[Scene], *, rank: int, most: int, seed: int) -> Batch:
    """Scenes as the objective's: unit-modulus steering, powers of sum 1; rounded to fp32."""
    generator = torch.Generator().manual_seed(seed)

    def phases(*shape: int, width: float) -> Tensor:
        angle = width * torch.rand(*shape, dtype=torch.float64, generator=generator)
        return torch.complex(angle.cos(), angle.sin())

    rows = []
    for scene in scenes:
        mask = torch.tensor(scene.is_present[:most], dtype=torch.bool)
        steering = phases(N, most, width=2 * pi)
        if scene.is_coincident and most > 1:
            steering[:, 1] = steering[:, 0]
        ring = steering[..., None] * phases(N, most, P, width=scene.ring_rad)
        power = 10 ** (-torch.linspace(0, scene.spread_db, most, dtype=torch.float64) / 10) * mask
        label = steering * (power / power.sum().clamp(min=1e-30)).sqrt()
        normal = torch.randn(N, 8, dtype=torch.complex128, generator=generator)
        factor = factor_of(scene.factor, rank, label, scene.spread_db, normal)
        own, common = (10**scale for scale in scene.scales)
        noise, label_noise = (
            torch.tensor(common**2 * 10 ** (db / 10))
            for db in (scene.noise_db, scene.label_noise_db)
        )
        rows.append(
            (own * common * factor, noise, common * label, label_noise, steering * mask, ring, mask)
        )
    parts = [torch.stack(part) for part in zip(*rows, strict=True)]
    single = {torch.complex128: torch.complex64, torch.float64: torch.float32}
    return Batch(*(part.to(single.get(part.dtype, part.dtype)) for part in parts))


SCALES = st.one_of(
    st.just((0.0, 0.0)),
    # F alone by 1e-6…1e6; or F and the label together, by 1e-6…1e6 in power.
    st.tuples(st.floats(-6, 6), st.just(0.0)),
    st.tuples(st.just(0.0), st.floats(-3, 3)),
)
SCENE = st.builds(
    Scene,
    factor=st.sampled_from(KINDS),
    is_present=st.tuples(*[st.booleans()] * 5),
    is_coincident=st.booleans(),
    spread_db=st.one_of(st.just(0.0), st.floats(0, 40)),
    noise_db=st.floats(-30, 5),
    label_noise_db=st.floats(-30, 0),
    # At 0 the ring is the peak itself: as deep a null, which a difference must not lose.
    ring_rad=st.sampled_from((2.0, 2.0, 0.0)),
    scales=SCALES,
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    scenes = draw(st.lists(SCENE, min_size=SCENES, max_size=SCENES))
    rank, most = draw(st.integers(1, 8)), draw(st.integers(0, 5))
    note(f"rank {rank}, most {most}, {scenes}")
    return batch_of(scenes, rank=rank, most=most, seed=draw(st.integers(0, 2**31)))


def answer(formula, term: str, batch: Batch) -> Answer:
    """The value of each scene with its gradient by F, the real and the imaginary part, and by s."""
    factor, noise = (part.clone().requires_grad_() for part in (batch.factor_BNR, batch.noise_B))
    value_B = formula(term, batch, factor, noise)
    found = torch.autograd.grad(value_B.sum(), (factor, noise), allow_unused=True)
    return Answer(
        value_B.detach(), found[0], torch.zeros_like(noise) if found[1] is None else found[1]
    )


def errors(found: Answer, exact: Answer) -> Answer:
    factor = (found.factor - exact.factor).abs().square().sum((-2, -1)).sqrt()
    return Answer(
        (found.value_B - exact.value_B).abs(), factor, (found.noise_B - exact.noise_B).abs()
    )


@pytest.mark.parametrize("term", TERMS)
@settings(max_examples=120, derandomize=True, deadline=None, database=None)
@given(batch=batches())
def test_fp32_is_finite_and_within_the_derived_bound_of_the_n_by_n_formula(
    term: str, batch: Batch
) -> None:
    found = answer(loss, term, batch)
    exact = answer(reference, term, batch.double())

    allowed = bounds(term, batch.double())
    for part in found:
        assert torch.view_as_real(part + 0j).isfinite().all()
    if term == "peak":
        assert ((found.value_B >= 0) & (found.value_B < 1)).all()
    for name, error, bound in zip(Answer._fields, errors(found, exact), allowed, strict=True):
        assert (error <= bound).all(), f"{name}: {error.tolist()} > {bound.tolist()}"


@pytest.mark.parametrize("term", TERMS)
def test_the_bounds_are_tight_enough_to_notice_one_part_in_a_thousand(term: str) -> None:
    everyday = Scene(factor="tied_below", is_present=(True, True, False, False, False), noise_db=5)
    batch = batch_of([everyday] * SCENES, rank=3, most=2, seed=0).double()

    allowed, exact = bounds(term, batch), answer(reference, term, batch)

    sizes = errors(exact, Answer(*(torch.zeros_like(part) for part in exact)))
    for bound, size in zip(allowed, sizes, strict=True):
        # Not in all five: the contrast's gradient by s changes its sign.
        assert (bound <= 1e-3 * size).sum() >= 2


def test_the_label_is_a_constant_of_the_subspace_term() -> None:
    batch = batch_of([Scene()], rank=4, most=3, seed=0)
    factor, label = batch.factor_BNR.requires_grad_(), batch.label_BNK.requires_grad_()

    value_B = loss("subspace", batch, factor, batch.noise_B)

    assert torch.autograd.grad(value_B.sum(), (factor, label), allow_unused=True)[1] is None
