"""A problem is validated once, flat, and frozen; nothing is copied that need not be."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from sinkhorn_ot import testing
from sinkhorn_ot.problem import checks, make, making
from sinkhorn_ot.problem.marginals import equal_mass, mass_rtol, total


P = testing.random(4, 5)


def test_it_is_flat_and_frozen():
    p = make(P.cost.expand(2, 3, 4, 5), reg=0.1)
    assert p.shape == (6, 4, 5)
    assert p.batch_shape == (2, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.reg = p.reg  # type: ignore[misc]


def test_work_is_double_on_a_cpu_and_answers_keep_the_callers_dtype():
    for given, got in ((torch.float64, torch.float64), (torch.float16, torch.float32)):
        p = make(P.cost.to(given), reg=0.1)
        assert p.work == torch.float64
        assert p.dtype == got
        # the cost stays as it is stored
        assert p.cost.dtype == given


def test_rounded_masses_are_made_equal():
    """Weights normalised in float32 miss each other by rounding, which is forgiven and removed."""
    a, b = torch.rand(4000), torch.rand(5000)
    a, b = a / a.sum(), b / b.sum() * (1 + 5e-6)
    p = make(torch.rand(4000, 5000), a, b, 0.1)
    assert float(p.a.sum()) == pytest.approx(float(p.b.sum()), rel=1e-15)
    with pytest.raises(ValueError, match="same total mass"):
        make(torch.rand(4000, 5000), a, b * 1.001, 0.1)


@pytest.mark.parametrize("unbalanced", [None, 1.0])
def test_weights_are_copied(unbalanced):
    """Who changes them later changes no result."""
    a, b = P.a.clone(), P.b.clone()
    p = make(P.cost, a, b, 0.1, unbalanced)
    a.fill_(7.0)
    b.fill_(7.0)
    torch.testing.assert_close(p.a[0], P.a)
    torch.testing.assert_close(p.b[0], P.b)


def test_relaxed_masses_may_differ():
    p = make(P.cost, P.a, 7 * P.b, 0.1, unbalanced=(None, 1.0))
    assert float(p.b.sum()) == pytest.approx(7)
    assert p.relax == (math.inf, 1.0)
    assert not p.exact
    assert make(P.cost, reg=0.1).exact


@pytest.mark.parametrize(
    ("unbalanced", "relax"),
    [
        (None, (math.inf, math.inf)),
        (2, (2.0, 2.0)),
        ((0, None), (0.0, math.inf)),
        ([1.5, 3], (1.5, 3.0)),
        (np.float32(0.5), (0.5, 0.5)),
        (torch.tensor(0.25), (0.25, 0.25)),
    ],
    ids=str,
)
def test_penalties(unbalanced, relax):
    assert make(P.cost, reg=0.1, unbalanced=unbalanced).relax == relax


@pytest.mark.parametrize(
    "reg",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor([0.5, 0.5]), [0.5] * 2],
)
def test_reg(reg):
    p = make(P.cost.expand(2, 4, 5), reg=reg)
    assert torch.equal(p.reg, torch.tensor([0.5, 0.5], dtype=torch.float64))


def test_selection():
    C = torch.stack([testing.random(4, 5, seed=k).cost for k in range(3)])
    p = make(C, reg=torch.tensor([1.0, 2.0, 3.0])).select(torch.tensor([2, 0]))
    assert p.reg.tolist() == [3.0, 1.0]
    assert torch.equal(p.cost.rows(0, 4), C[[2, 0]])


def test_a_transposed_problem_is_the_same_problem():
    p = make(P.cost, P.a, P.b, 0.1, (None, 2.0))
    t = p.transposed()
    assert t.shape == (1, 5, 4)
    assert t.relax == (2.0, math.inf)
    assert torch.equal(t.cost.rows(0, 5), p.cost.rows(0, 4).mT)
    assert torch.equal(t.a, p.b)


@pytest.mark.parametrize("n", [33_333, 100_000])
def test_many_float32_weights_have_one_mass(n):
    """On a GPU weights are float32, and so their sum would be: .99999976 here."""
    a, b = torch.full((1, n), 1 / n), torch.full((1, 10), 0.1)
    scaled = equal_mass(total(a, b), b, mass_rtol(a.double(), b.double()))
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, b, rtol=2e-7, atol=0)


def test_uniform_weights_are_never_compared(monkeypatch):
    seen = []
    monkeypatch.setattr(making, "equal_mass", lambda masses, b, rtol: seen.append(rtol) or b)
    # a short look would see that these are one mass
    monkeypatch.setattr(making, "_plain_pair", lambda *_: None)
    for weights in ((None, None), (P.a, None), (None, P.b)):
        make(P.cost, *weights, reg=0.1)
    assert len(seen) == 2
    assert seen[0] == seen[1] < 1e-6


def test_room_for_rounding_grows_with_the_number_of_weights():
    few, many = torch.zeros(1, 8, dtype=torch.float64), torch.zeros(1, 1 << 20).double()
    assert mass_rtol(few, few) < 5e-7
    assert mass_rtol(few, many) == pytest.approx(20 * 2.0**-23, rel=1e-3)


@pytest.mark.parametrize("relax", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("off", [0.0, 3e-8])
@pytest.mark.parametrize("zeros", [False, True])
def test_plain_weights_are_posed_as_any_are(monkeypatch, relax, dtype, off, zeros):
    b = testing.random(4, 5, zeros=zeros).b
    given = P.cost.to(dtype), 3 * P.a, 3 * (1 + off) * b, 0.1, relax
    short = make(*given)
    monkeypatch.setattr(making, "_plain_pair", lambda *_: None)
    long = make(*given)
    for side in ("a", "b"):
        torch.testing.assert_close(getattr(short, side), getattr(long, side), rtol=1e-15, atol=0)
    assert (short.rounded, short.relax, short.shape) == (long.rounded, long.relax, long.shape)
    # who changes weights in place later changes no problem
    assert short.a.data_ptr() != given[1].data_ptr()


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (P.a, 1.001 * P.b, "same total mass"),
        (P.a[:-1], P.b, "shape"),
        (-P.a, P.b, "non-negative"),
        (P.a * math.nan, P.b, "finite"),
        (P.a * 1e300, P.b * 1e300, "below 1e154"),
        (0 * P.a, P.b, "positive"),
        (P.a.to(torch.complex128), P.b, "floating point"),
        (P.a.clone().requires_grad_(), P.b, "requires grad"),
    ],
)
def test_what_is_not_plain_is_told_as_ever(monkeypatch, a, b, words):
    with pytest.raises(ValueError, match=words) as short:
        make(P.cost, a, b, 0.1)
    monkeypatch.setattr(making, "_plain_pair", lambda *_: None)
    with pytest.raises(ValueError, match=words) as long:
        make(P.cost, a, b, 0.1)
    assert str(short.value) == str(long.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 100, 20_000])
@pytest.mark.parametrize("odd", [0.0, math.inf, -math.inf, math.nan])
def test_extremes_are_those_of_torch_at_any_size(dtype, size, odd):
    x = torch.linspace(-3.0, 5.0, size).to(dtype).repeat(2, 1)
    x[1, size // 2] = odd
    want = [float(end) for end in torch.aminmax(x)]
    assert checks.extremes(x.mT) == pytest.approx(want, nan_ok=True, abs=0)
