"""sliced_distance beside POT's, line by line; blocks, derivatives and refusals."""

import math
import warnings

import numpy as np
import ot
import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.derived.line import sliced


def problem(k: int):
    rng = np.random.default_rng(k)
    n, m, d = *rng.integers(1, 15, 2), int(rng.integers(1, 5))
    x, y, a, b = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.random(n), rng.random(m)
    return x, y, a / a.sum(), b / b.sum(), rng.normal(size=(20, d))


def test_a_hundred_problems_are_those_of_pot() -> None:
    for k in range(100):
        x, y, a, b, lines = problem(k)
        p = (1, 2, 3)[k % 3]
        unit = (lines / np.linalg.norm(lines, axis=1, keepdims=True)).T
        r = so.sliced_distance(x, y, a, b, directions=lines, p=p)
        mean = ot.sliced_wasserstein_distance(x, y, a, b, projections=unit, p=p)
        most = ot.max_sliced_wasserstein_distance(x, y, a, b, projections=unit, p=p)
        assert float(r.distance) == pytest.approx(float(mean), abs=1e-12)
        assert float(r.largest) == pytest.approx(float(most), abs=1e-12)


def test_each_line_is_a_problem_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, a, b, lines = problem(3)
    r = so.sliced_distance(x, y, a, b, directions=lines, p=3)
    unit = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    torch.testing.assert_close(r.directions, torch.from_numpy(unit))
    for k, line in enumerate(unit):
        one = so.solve_1d(x @ line, y @ line, a, b, p=3)
        assert float(r.each[k]) == pytest.approx(float(one.value), abs=1e-14)
    monkeypatch.setattr(sliced, "_TOGETHER", 1)
    again = so.sliced_distance(x, y, a, b, directions=lines, p=3)
    torch.testing.assert_close(again.each, r.each, atol=1e-15, rtol=0)


def test_a_count_draws_lines_again_and_tells_how_sure_their_mean_is() -> None:
    x, y, *_ = problem(5)
    first, second = (
        so.sliced_distance(x, y, directions=7, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert first.each.shape == (7,)
    assert torch.equal(first.each, second.each)
    torch.testing.assert_close(first.directions.norm(dim=-1), torch.ones(7).double())
    assert float(first.error) == pytest.approx(float(first.each.std()) / math.sqrt(7))
    assert so.sliced_distance(x, y).each.shape == (128,)


def test_the_mean_over_all_lines_of_two_points() -> None:
    # the mean square of a coordinate of a unit vector is one of d
    r = so.sliced_distance([[0.0, 0.0, 0.0]], [[3.0, 0.0, 0.0]], directions=20_000)
    assert abs(float(r.value) - 3.0) < 4 * float(r.error) < 0.1


def test_batches_broadcast() -> None:
    x, y = torch.rand(3, 1, 9, 2), torch.rand(4, 8, 2)
    lines = torch.randn(5, 2)
    r = so.sliced_distance(x, y, directions=lines)
    assert r.each.shape == (3, 4, 5)
    assert r.distance.shape == r.error.shape == (3, 4)
    assert r.value.dtype == torch.float32
    one = so.sliced_distance(x[1, 0], y[2], directions=lines)
    torch.testing.assert_close(r.each[1, 2], one.each)


def test_derivatives_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "_TOGETHER", 14)
    x, y = torch.rand(4, 2, dtype=torch.float64, requires_grad=True), torch.rand(3, 2).double()
    w = torch.rand(4, dtype=torch.float64, requires_grad=True)
    lines = torch.randn(3, 2, dtype=torch.float64)

    def value(x, w):
        return so.sliced_distance(x, y, w.softmax(0), directions=lines).value

    assert torch.autograd.gradcheck(value, (x, w))


BAD = [
    ({"directions": 0}, "directions must be a whole number of at least 1, got 0"),
    ({"directions": 2.5}, "directions must be a whole number"),
    ({"directions": [[1.0, 0.0], [0.0, 0.0]]}, "length above zero, got zeros at index 1"),
    ({"directions": [[1.0, math.nan]]}, "directions must be finite, got nan"),
    ({"directions": [[1.0, 0.0, 0.0]]}, r"directions must have shape \(k, 2\) to fit x"),
    ({"directions": [1.0, 0.0]}, r"directions must have shape \(k, d\)"),
    ({"p": 0.9}, "p must be a finite number of at least 1"),
    ({"y": [[0.0]]}, "points of one dimension, got 2 and 1"),
    ({"y": [[0.0, math.inf]]}, "y must be finite"),
    ({"y": [[0.0, 1e200]]}, "x and y must have costs below"),
    ({"x": torch.zeros(0, 2)}, "x must not be empty"),
    ({"a": [1.0, 2.0]}, "same total mass"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_input_is_told(given, message) -> None:
    held = {"x": [[0.0, 1.0], [2.0, 3.0]], "y": [[1.0, 1.0]]} | given
    with pytest.raises(ValueError, match=message):
        so.sliced_distance(**held)


def test_tiny_and_huge_directions_are_as_good_as_others() -> None:
    for size in (1e-200, 1e200):
        r = so.sliced_distance([[0.0, 0.0]], [[3.0, 4.0]], directions=[[0.0, size]], p=1)
        assert float(r.value) == 4


def test_one_line_has_no_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = so.sliced_distance(torch.rand(2, 5, 2), torch.rand(4, 2), directions=1)
        assert r.error.shape == (2,)
        assert r.error.isnan().all()
