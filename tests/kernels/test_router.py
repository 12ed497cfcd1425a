"""The router's kernel against the dense float64 iterations: by programs that share the tokens."""

import math

import numpy as np
import pytest
import torch
from adapters import oracles

import sinkhorn_ot as so
from bench.host.pretend import on_card, plain, watched
from sinkhorn_ot.adapters import moe_router
from sinkhorn_ot.kernels import router


def logits(T, E, scale=1.0, seed=0):
    return torch.randn(T, E, generator=torch.Generator().manual_seed(seed)) * scale


def variation(log_plan, oracle):
    """Largest over tokens, relative to a token's mass, or to what one token holds if it is more."""
    mass = max(1.0, len(oracle) * float(oracle.exp().sum(-1).max()))
    off = (log_plan.double().exp() - oracle.exp()).abs().sum(-1).max()
    return len(oracle) * float(off) / (2 * mass)


def run(L, n_iter=None, tol=1e-4, keep=None, max_iter=40):
    many = max_iter if n_iter is None else n_iter
    keep = None if keep is None else keep[None]
    return [t[0] for t in router.route(L[None], keep, many, tol, n_iter is not None)]


def called(x, mask=None, **how):
    """Return what a call on a card answers, in one launch that nothing waits for."""
    there = None if mask is None else on_card(mask)
    with np.errstate(all="ignore"), watched() as seen:
        found = moe_router(on_card(x), mask=there, **how)
    assert seen.kernels == {"_route": 1}
    assert seen.waits == 0
    return plain((found.log_plan, found.n_iter, found.converged))


SHAPES = [(1, 1), (17, 2), (70, 65), (300, 8), pytest.param((90, 256), marks=pytest.mark.slow(1))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_iter", [1, 2, 5])
def test_is_the_oracle(shape, n_iter):
    L = logits(*shape)
    found, taken, _ = run(L, n_iter)
    assert found.dtype == torch.float32
    assert int(taken) == n_iter
    assert variation(found, oracles.router(L, n_iter)[0]) < 1e-6


def unkind():
    x = logits(60, 7)
    return {
        "huge": x * 1e4,
        "expert nobody wants": x - 1e4 * (torch.arange(7) == 2),
        "expert all want": x + 1e4 * (torch.arange(7) == 2),
        "token far below": x - 1e4 * (torch.arange(60) == 2)[:, None],
        "constant": torch.full((9, 4), 1e4),
    }


@pytest.mark.parametrize("name", unkind())
def test_is_the_oracle_on_unkind_logits(name):
    x = unkind()[name]
    found, *_ = run(x, 3)
    assert bool(torch.isfinite(found).all())
    assert variation(found, oracles.router(x, 3)[0]) < 1e-6


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float64, 3.0), (torch.float16, 3.0), (torch.bfloat16, 100.0)]
)
def test_every_dtype(dtype, scale):
    x = logits(70, 8, scale).to(dtype)
    found, *_ = run(x, 4)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    budget = 1e-13 if dtype == torch.float64 else 1e-6
    assert variation(found, oracles.router(x, 4)[0]) < budget


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_stops_where_the_scalings_do(scale):
    x = logits(130, 8, scale)
    found, taken, change = run(x)
    plan, made = oracles.router(x, None)
    assert float(change) <= 1e-4
    assert int(taken) == made
    assert variation(found, plan) < 1e-6
    short = run(x, max_iter=made - 1)
    assert int(short[1]) == made - 1
    assert float(short[2]) > 1e-4


def test_problems_of_a_batch_stop_by_themselves():
    x = torch.stack([logits(50, 6, s, k) for k, s in enumerate((1.0, 3.0, 0.1))])
    found = router.route(x, None, 40, 1e-4, False)
    for k in range(3):
        alone = run(x[k])
        assert int(found[1][k]) == int(alone[1])
        torch.testing.assert_close(found[0][k], alone[0])
    assert len(set(found[1].tolist())) == 3


def test_programs_share_the_tokens(monkeypatch):
    x = logits(200, 40)
    monkeypatch.setattr(router, "multiprocessors", lambda _: 1)
    alone, *_ = run(x, 3)
    monkeypatch.setattr(router, "multiprocessors", lambda _: 40)
    torch.testing.assert_close(run(x, 3)[0], alone)


def test_strides_do_not_matter():
    x = logits(70, 12)
    for other in (x.t().contiguous().t(), logits(70, 24).copy_(x.repeat(1, 2))[:, :12]):
        assert torch.equal(run(other, 3)[0], run(x, 3)[0])
    spread = torch.zeros(70, 24)
    spread[:, ::2] = x
    torch.testing.assert_close(run(spread[:, ::2], 3)[0], run(x, 3)[0])


JUNK = torch.tensor([math.nan, math.inf, -math.inf, 1e30])


@pytest.mark.parametrize("n_iter", [1, 3, None])
def test_tokens_left_out_count_for_nothing(n_iter):
    x, mask = logits(3 * 40, 6).reshape(3, 40, 6), torch.rand(3, 40) < 0.6
    mask[2] = False
    x[~mask] = JUNK[torch.arange(int((~mask).sum())) % 4, None]
    found, taken, ended = called(x, mask, n_iter=n_iter)
    for k in (0, 1):
        oracle, made = oracles.router(x[k, mask[k]], n_iter)
        assert int(taken[k]) == made
        assert variation(found[k, mask[k]], oracle) < 1e-6
    assert bool((found[~mask] == -math.inf).all())
    assert bool(ended[2])
    assert int(taken[2]) == (n_iter or 1)


def test_experts_that_a_token_may_not_use():
    x = logits(90, 6)
    closed = torch.rand(90, 6, generator=torch.Generator().manual_seed(1)) < 0.3
    closed[:, 0] = False
    x = x.masked_fill(closed, -math.inf)
    found, *_ = run(x, 5)
    assert bool((found[closed] == -math.inf).all())
    assert variation(found, oracles.router(x, 5)[0]) < 1e-6


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_shows(bad):
    x = logits(20, 4)
    x[2, 3] = bad
    found, taken, change = run(x, max_iter=3)
    assert bool(found.isnan().any())
    assert int(taken) == 3
    assert not float(change) <= 1e-4


@pytest.mark.parametrize("n_iter", [4, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_card_answers_as_a_cpu_does(n_iter, dtype):
    x = logits(2 * 70, 9).reshape(2, 70, 9).to(dtype)
    found, taken, ended = called(x, n_iter=n_iter)
    want = moe_router(x, n_iter=n_iter)
    assert torch.equal(taken, want.n_iter)
    assert torch.equal(ended, want.converged)
    torch.testing.assert_close(found, want.log_plan)


def test_a_card_is_waited_for_only_by_who_asks():
    x = logits(70, 9, 3.0)
    with np.errstate(all="ignore"), watched() as seen:
        found = moe_router(on_card(x), tol=1e-12, max_iter=2)
    assert seen.waits == 0
    with pytest.raises(so.ConvergenceError, match="moe_router: the experts' scalings still"):
        found.check()
    with np.errstate(all="ignore"), watched(), pytest.raises(so.ConvergenceError):
        moe_router(on_card(x), tol=1e-12, max_iter=2, on_fail="raise")


def test_more_experts_than_fit_take_the_portable_path():
    x = on_card(logits(2, router._HELD + 1))
    with np.errstate(all="ignore"), watched() as seen:
        moe_router(x, n_iter=1)
    assert not seen.kernels
