"""What `normalize` returns, beside plain code and known answers."""

import math

import numpy as np
import pytest
import torch
from gradients.layer.plainly import by_logs, by_scaling, weights

import sinkhorn_ot as so
from sinkhorn_ot.gradients.layer import definition, portable, scaled


INF = math.inf
SHAPES = [(4, 4), (70, 4, 4), (2, 3, 5, 3), (3, 40, 30), (1, 1), (1, 6), (6, 1), (5, 2, 17)]
WAYS = pytest.mark.parametrize("log", [False, True], ids=["matrix", "log"])


@pytest.fixture(params=["scaled", "logs", "on a device", "definition"])
def way(request, monkeypatch):
    """Force one of the implementations."""
    if request.param == "on a device":
        # where nobody looks at numbers
        monkeypatch.setattr(portable, "_reach", lambda *_: math.inf)
    if request.param == "logs":
        monkeypatch.setattr(scaled, "REACH", dict.fromkeys(scaled.REACH, -1.0))
        monkeypatch.setattr(portable, "REACH", scaled.REACH)
    if request.param == "definition":
        monkeypatch.setattr(portable, "matrices", definition.matrices)
    return request.param


@WAYS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_iter", [0, 1, 2, 7])
def test_plain_code(way, shape, n_iter, log):
    x = torch.randn(shape, dtype=torch.float64)
    a, b = weights(shape[-2]), weights(*shape[:-2], shape[-1])
    got = so.normalize(x, n_iter, a, b, log=log)
    want = by_logs(x, n_iter, a, b)
    torch.testing.assert_close(got, want if log else want.exp(), rtol=1e-12, atol=1e-13)


@WAYS
def test_columns_first_is_the_transposed_call(way, log):
    x, a, b = torch.randn(3, 4, 5, dtype=torch.float64), weights(4), weights(3, 5)
    got = so.normalize(x, 3, a, b, first="columns", log=log)
    torch.testing.assert_close(got, so.normalize(x.mT, 3, b, a, log=log).mT, rtol=0, atol=0)
    assert got.is_contiguous() or way == "definition"
    rows = got.exp().sum(-1) if log else got.sum(-1)
    torch.testing.assert_close(rows, a.expand(3, 4), rtol=1e-13, atol=0)


def test_the_side_scaled_last_is_exact():
    x = 5 * torch.randn(6, 4, 4, dtype=torch.float64)
    P = so.normalize(x, 2)
    torch.testing.assert_close(P.sum(-2), torch.ones(6, 4, dtype=torch.float64))
    assert (P.sum(-1) - 1).abs().max() > 1e-3
    assert (so.normalize(x, 2000).sum(-1) - 1).abs().max() < 1e-6


def test_what_none_means():
    x = torch.randn(3, 4, dtype=torch.float64)
    one = {"dtype": torch.float64}
    even = so.normalize(x, 300)
    torch.testing.assert_close(even.sum(-1), torch.ones(3, **one))
    torch.testing.assert_close(even.sum(-2), torch.full((4,), 0.75, **one))
    a, b = weights(3), weights(4)
    torch.testing.assert_close(so.normalize(x, 300, a).sum(-2), (a.sum() / 4).expand(4))
    torch.testing.assert_close(so.normalize(x, 300, b=b).sum(-1), (b.sum() / 3).expand(3))


def test_a_scaled_matrix_stays(way):
    P = so.normalize(torch.randn(5, 4, 4, dtype=torch.float64), 500)
    torch.testing.assert_close(so.normalize(P.log(), 1), P, rtol=1e-10, atol=1e-12)


def test_constants_of_rows_are_forgotten(way):
    x = torch.randn(4, 5, dtype=torch.float64)
    moved = x + 1000 * torch.randn(4, 1, dtype=torch.float64)
    torch.testing.assert_close(so.normalize(moved, 3), so.normalize(x, 3), rtol=1e-9, atol=1e-9)


def test_temperature_divides():
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(so.normalize(x, 5, reg=0.3), so.normalize(x / 0.3, 5))


@WAYS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_large_logits_overflow_nothing(way, dtype, log):
    x = torch.tensor([[0.0, -900.0], [0.0, -1000.0]], dtype=dtype)
    want = by_logs(x.double(), 4, *torch.ones(2, 2, dtype=torch.float64))
    got = so.normalize(x, 4, log=log)
    torch.testing.assert_close(got, (want if log else want.exp()).to(dtype))
    assert so.normalize(1e30 * torch.randn(3, 4, 4, dtype=dtype), 9).isfinite().all()


@WAYS
def test_masked_entries_are_as_if_absent(way, log):
    x = torch.randn(9, 3, 4, dtype=torch.float64)
    x[:, 0, 1] = x[::2, 2, 3] = -INF
    a, b = weights(3), weights(4)
    got, want = so.normalize(x, 6, a, b, log=log), by_scaling(x, 6, a, b)
    torch.testing.assert_close(got, want.log() if log else want)
    # a whole column and a whole row
    x[:, :, 0] = x[:, 1] = -INF
    got, want = so.normalize(x, 6, a, b, log=log), by_scaling(x, 6, a, b)
    torch.testing.assert_close(got, want.log() if log else want)
    assert (got[:, 1] == (-INF if log else 0.0)).all()


@WAYS
def test_points_without_weight_are_left_out(way, log):
    x, a, b = torch.randn(9, 3, 4, dtype=torch.float64), weights(3), weights(4)
    a[1] = b[2] = 0.0
    kept = torch.tensor([0, 2]), torch.tensor([0, 1, 3])
    got = so.normalize(x, 6, a, b, log=log, first="columns")
    want = by_scaling(x.mT, 6, b, a).mT
    torch.testing.assert_close(got, want.log() if log else want)
    assert (got[:, 1] == (-INF if log else 0.0)).all()
    # the first step knows no weights of the other side
    start = x[:, kept[0][:, None], kept[1]]
    torch.testing.assert_close(
        so.normalize(x, 400, a, b)[:, kept[0][:, None], kept[1]],
        so.normalize(start, 400, a[kept[0]], b[kept[1]]),
    )


@pytest.mark.parametrize("scale", [1.0, 12.0, 150.0])
@pytest.mark.parametrize("shape", [(300, 4, 4), (4, 30, 20)], ids=str)
def test_float32_is_as_near_as_plain_code(shape, scale):
    x = scale * torch.randn(shape, dtype=torch.float64)
    a, b = weights(shape[-2]), weights(shape[-1])
    x, a, b = x.float(), a.float(), b.float()
    truth = by_logs(x.double(), 20, a.double(), b.double()).exp()
    allowed = (by_logs(x, 20, a, b).exp() - truth).abs().max()
    assert (so.normalize(x, 20, a, b) - truth).abs().max() <= 2 * allowed


@WAYS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(way, dtype, log):
    x = torch.randn(70, 4, 4).to(dtype)
    got = so.normalize(x, log=log)
    assert got.dtype == dtype
    torch.testing.assert_close(got, so.normalize(x.float(), log=log).to(dtype), rtol=0, atol=0)


def test_parts_are_a_matter_of_memory_alone(monkeypatch):
    x, a = torch.randn(50, 3, 4), weights(50, 3, dtype=torch.float32)
    whole = so.normalize(x, 5, a)
    monkeypatch.setattr(portable, "_PART", 90)
    torch.testing.assert_close(so.normalize(x, 5, a), whole)
    torch.testing.assert_close(so.normalize(x[:3], 5, a[:3]), whole[:3])


def test_arrays_and_strides_are_taken():
    x = np.random.default_rng(0).normal(size=(3, 4))
    got = so.normalize(x, 3, np.ones(3), [1, 1, 0.5, 0.5])
    assert isinstance(got, torch.Tensor)
    assert got.dtype == torch.float64
    wide = torch.randn(4, 3, 8, dtype=torch.float64)
    odd = wide.permute(2, 1, 0)[::3, :, 1:]
    torch.testing.assert_close(so.normalize(odd, 3), so.normalize(odd.contiguous(), 3))
    shared = torch.randn(1, 3, 3).expand(5, 3, 3)
    torch.testing.assert_close(so.normalize(shared)[3], so.normalize(shared[0]))


def test_an_empty_batch_is_an_empty_answer():
    assert so.normalize(torch.empty(0, 4, 4)).shape == (0, 4, 4)


def test_the_input_stays_as_it_was():
    x = torch.randn(9, 4, 4)
    before = x.clone()
    for log in (False, True):
        assert so.normalize(x, log=log).data_ptr() != x.data_ptr()
    assert torch.equal(x, before)


def test_autocast_has_no_say():
    x = torch.randn(9, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = so.normalize(x)
    assert torch.equal(got, so.normalize(x))


@pytest.mark.parametrize(("n", "m"), [(3, 3), (3, 5)])
def test_a_start_makes_it_the_solver_of_a_fixed_number_of_sweeps(n, m):
    C, a, b = torch.rand(n, m, dtype=torch.float64), weights(n), weights(m)
    a, b = a / a.sum(), b / b.sum()
    want = so.solve(C, a, b, 0.1, n_iter=4).plan
    torch.testing.assert_close(so.normalize(-C / 0.1 + b.log(), 4, a, b), want)
