import math

import pytest
import torch
from gradients.layer.plainly import by_logs, by_scaling, weights

from sinkhorn_ot.gradients.layer import portable
from sinkhorn_ot.kernels import normalize as kernels
from sinkhorn_ot.kernels.configs import normalize_tile


INF = math.inf
BOTH = pytest.mark.parametrize("work", [torch.float32, torch.float64])
LOG = pytest.mark.parametrize("log", [False, True], ids=["matrix", "log"])


def problem(B, n, m, work=torch.float32, shared=False, scale=1.0):
    x, G = scale * torch.randn(B, n, m, dtype=work), torch.randn(B, n, m, dtype=work)
    one = 1 if shared else B
    return G, x, weights(one, n, dtype=work), weights(one, m, dtype=work)


def launched(G, x, a, b, scale=1.0, n_iter=5, log=False):
    """Both kernels, into memory of nan."""
    out, back = (torch.full_like(x, math.nan) for _ in range(2))
    y = kernels.matrices(x, a, b, scale, n_iter, log, out=out)
    return y, *kernels.derivatives(G, x, a, b, scale, n_iter, log, True, out=back)


def plainly(G, x, a, b, scale=1.0, n_iter=5, log=False):
    at = [t.clone().requires_grad_() for t in (x, a.expand(len(x), -1), b.expand(len(x), -1))]
    y = by_logs(scale * at[0], n_iter, *at[1:])
    y = y if log else y.exp()
    return y.detach(), *torch.autograd.grad(y, at, G)


def verify(args, within_budget, **how):
    truth = plainly(*(t.double() for t in args), **how)
    for name, got, e, t in zip(
        ("matrices", "to x", "to a", "to b"), launched(*args, **how), plainly(*args, **how), truth,
        strict=True,
    ):  # fmt: skip
        # what cancels is made of terms as large as that
        size = 8.0 if how.get("log") else 1.0
        size = max(20.0, args[1].abs().max()) if name.startswith("to ") else size
        within_budget(got, e, t, name, ulps=20, scale=size)


@LOG
@BOTH
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 4, 4), (70, 4, 4), (3, 1, 17), (3, 17, 3), (2, 65, 31)], ids=str
)
def test_plain_code(within_budget, shape, work, log):
    verify(problem(*shape, work=work), within_budget, log=log)


@pytest.mark.parametrize(
    ("shape", "work"), [((2, 100, 127), torch.float32), ((2, 50, 64), torch.float64)], ids=str
)
def test_the_largest(within_budget, shape, work):
    verify(problem(*shape, work=work), within_budget, n_iter=3)
    assert normalize_tile(*shape[1:], work.itemsize, back=True)


@LOG
@BOTH
def test_exponents_that_reach_far(within_budget, work, log):
    args = problem(70, 4, 4, work=work, scale=40.0 if work == torch.float32 else 400.0)
    verify(args, within_budget, log=log)


@BOTH
@pytest.mark.parametrize("n_iter", [1, 2, 20])
def test_any_number_of_steps(within_budget, n_iter, work):
    verify(problem(40, 4, 4, work=work, shared=True), within_budget, n_iter=n_iter)


def test_temperature_has_all_digits():
    args = problem(9, 4, 4, work=torch.float64)
    for got, want in zip(
        launched(*args, scale=1 / 0.3), plainly(*args, scale=1 / 0.3), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [1.0, 400.0])
@LOG
def test_masks_and_weights_of_zero(log, scale):
    G, x, a, b = problem(40, 3, 5, torch.float64, scale=scale)
    x[:, 0, 1] = x[::2, :, 3] = x[::3, 2] = -INF
    a[:, 1] = b[::5, 2] = 0.0
    got = launched(G, x, a, b, log=log)
    want = (
        portable.matrices(x, a, b, 1.0, 5, log),
        *portable.derivatives(G, x, a, b, 1.0, 5, log, True),
    )
    if scale > 1:
        # a little weight would change more there than a number holds
        for results in (got, want):
            assert results[2].isfinite().all()
            assert results[3].isfinite().all()
            results[2][a == 0] = results[3][b == 0] = 0.0
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-9, atol=1e-10)
    if scale == 1.0 and not log:
        torch.testing.assert_close(got[0], by_scaling(x, 5, a, b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_and_written(dtype):
    G, x, a, b = problem(40, 4, 4)
    G, x = G.to(dtype), x.to(dtype)
    want = launched(G.float(), x.float(), a, b)
    for g, w in zip(launched(G, x, a, b)[:2], want, strict=False):
        assert g.dtype == dtype
        # the interpreter cuts digits off
        torch.testing.assert_close(g.float(), w, rtol=1e-2, atol=1e-3)


def test_strides():
    G, x, a, b = problem(9, 5, 4, torch.float64)
    want = launched(G, x, a, b)
    x = x.mT.contiguous().mT
    for g, w in zip(launched(G.mT.contiguous().mT, x, a, b), want, strict=True):
        torch.testing.assert_close(g, w)
    got = launched(torch.ones(1, 1, 1, dtype=torch.float64).expand(9, 5, 4), x, a, b)
    torch.testing.assert_close(got[1], launched(torch.ones_like(G), x, a, b)[1])


def test_programs_take_one_block_after_another(monkeypatch):
    args = problem(300, 4, 4)
    want = launched(*args)
    monkeypatch.setattr(kernels, "multiprocessors", lambda device: 1)
    monkeypatch.setattr(kernels, "_ASIDE", 1)
    for g, w in zip(launched(*args), want, strict=True):
        torch.testing.assert_close(g, w, rtol=0, atol=0)


def test_what_does_not_fit_is_not_served():
    assert kernels.serves(128, 128, torch.float32)
    assert kernels.serves(64, 128, torch.float64)
    assert not kernels.serves(4, 129, torch.float32)
    assert not kernels.serves(128, 128, torch.float64)


@BOTH
def test_without_weights_they_are_equal(work):
    G, x, _, _ = problem(9, 4, 6, work)
    out, back = torch.empty_like(x), torch.empty_like(x)
    got = kernels.matrices(x, None, None, 1.0, 5, False, out=out)
    got = got, kernels.derivatives(G, x, None, None, 1.0, 5, False, False, out=back)[0]
    want = launched(G, x, torch.ones(1, 4, dtype=work), torch.full((1, 6), 4 / 6, dtype=work))
    for g, w in zip(got, want, strict=False):
        torch.testing.assert_close(g, w, rtol=0, atol=0)
