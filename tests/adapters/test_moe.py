"""The router against the dense float64 iterations, token first and expert last."""

import math

import pytest
import torch
from adapters import oracles
from torch import Tensor

from sinkhorn_ot import ConvergenceError, ConvergenceWarning
from sinkhorn_ot.adapters import moe_router


MAY_MISS = pytest.mark.filterwarnings("ignore::sinkhorn_ot.ConvergenceWarning")


def logits(T: int, E: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(T, E, generator=torch.Generator().manual_seed(seed)) * scale


def unkind() -> dict[str, Tensor]:
    x = logits(60, 7)
    return {
        "huge": x * 1e4,
        "at the ends": torch.where(x > 0, 1e4, -1e4),
        "expert nobody wants": x - 1e4 * (torch.arange(7) == 2),
        "expert all want": x + 1e4 * (torch.arange(7) == 2),
        "token far below": x - 1e4 * (torch.arange(60) == 2)[:, None],
        "constant": torch.full((9, 4), 1e4),
        "one expert": x[:, :1] * 1e4,
        "one token": x[:1] * 1e4,
        "one of each": torch.tensor([[-1e4]]),
        "peaked": x * 40,
    }


def total_variation(log_plan: Tensor, oracle: Tensor) -> float:
    """Largest over tokens, relative to a token's mass."""
    return len(oracle) * float((log_plan.double().exp() - oracle.exp()).abs().sum(-1).max() / 2)


@pytest.mark.parametrize("shape", [(1, 1), (17, 65), (300, 8), (1000, 64)], ids=str)
@pytest.mark.parametrize("n_iter", [1, 2, 10])
def test_is_the_oracle(shape, n_iter):
    x = logits(*shape)
    found = moe_router(x, n_iter=n_iter)
    assert int(found.n_iter) == n_iter
    assert found.log_plan.dtype == torch.float32
    assert total_variation(found.log_plan, oracles.router(x, n_iter)[0]) < 1e-6


@pytest.mark.parametrize("name", unkind())
@pytest.mark.parametrize("n_iter", [1, 3, 30])
def test_is_the_oracle_on_unkind_logits(name, n_iter):
    x = unkind()[name]
    found = moe_router(x, n_iter=n_iter)
    oracle = oracles.router(x, n_iter)[0]
    assert bool(torch.isfinite(found.log_plan).all())
    # a token may hold all mass: relative to what it holds
    budget = 1e-6 * max(1.0, len(x) * float(oracle.exp().sum(-1).max()))
    assert total_variation(found.log_plan, oracle) < budget


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_stops_where_the_scalings_do(scale, tol):
    x = logits(400, 8, scale)
    found = moe_router(x, tol=tol)
    plan, taken = oracles.router(x, None, tol)
    assert bool(found.converged)
    assert int(found.n_iter) == taken
    assert total_variation(found.log_plan, plan) < 1e-6
    torch.testing.assert_close(found.plan.sum(-2), torch.full((8,), 1 / 8), rtol=1e-5, atol=0)


@MAY_MISS
def test_a_router_cut_short_says_so():
    found = moe_router(unkind()["huge"], max_iter=5)
    assert int(found.n_iter) == 5
    assert not bool(found.converged)
    assert not bool(moe_router(logits(400, 8, 3.0), n_iter=1).converged)


@MAY_MISS
def test_scalings_beyond_float64_are_not_converged():
    for x in unkind().values():
        found = moe_router(x, max_iter=50)
        assert bool(torch.isfinite(found.log_plan).all())
    far = unkind()["expert nobody wants"]
    assert not bool(moe_router(far, max_iter=50).converged)


def test_a_batch_is_its_problems():
    x = torch.stack([logits(50, 6), logits(50, 6, 3.0, 1), logits(50, 6, 0.1, 2)])[None]
    found = moe_router(x)
    assert found.n_iter.shape == found.converged.shape == (1, 3)
    for k in range(3):
        alone = moe_router(x[0, k])
        assert int(found.n_iter[0, k]) == int(alone.n_iter)
        torch.testing.assert_close(found.log_plan[0, k], alone.log_plan)


@MAY_MISS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    x = logits(100, 8, 100.0).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = moe_router(x, n_iter=5)
    assert found.log_plan.dtype == torch.float32
    assert not found.log_plan.requires_grad
    oracle = oracles.router(x.detach(), 5)[0]
    budget = 1e-6 * max(1.0, 100 * float(oracle.exp().sum(-1).max()))
    assert total_variation(found.log_plan, oracle) < budget
    assert moe_router(x.detach().double()).log_plan.dtype == torch.float64


def test_top_k_spreads_the_tokens():
    x = logits(2000, 8) + torch.arange(8) * 0.5
    chosen, greedy = moe_router(x).top_k(1), x.topk(1).indices
    loads = [torch.bincount(c.flatten(), minlength=8) for c in (chosen, greedy)]
    assert int(loads[0].max() - loads[0].min()) < 80
    assert int(loads[1].max() - loads[1].min()) > 400


def test_top_k_is_in_order_where_shares_underflow():
    x = logits(40, 6, 1e3)
    found = moe_router(x, n_iter=3)
    assert float((found.plan == 0).double().mean()) > 0.5
    assert torch.equal(found.top_k(6), oracles.router(x, 3)[0].topk(6).indices)
    assert found.top_k(2).dtype == torch.int64


def test_logits_are_left_alone():
    x = logits(30, 4)
    before = x.clone()
    moe_router(x.numpy())
    moe_router(x)
    assert torch.equal(x, before)


def with_entry(value: float) -> Tensor:
    x = logits(9, 4)
    x[2, 3] = value
    return x


BAD = {
    "nan": (
        {"logits": with_entry(math.nan)},
        r"below inf, got nan at index \(2, 3\)",
    ),
    "inf": (
        {"logits": with_entry(math.inf)},
        r"below inf, got inf at index \(2, 3\)",
    ),
    "vector": ({"logits": torch.ones(3)}, r"logits must have shape \(..., T, E\), got \(3,\)"),
    "no tokens": ({"logits": torch.ones(0, 3)}, r"logits must not be empty, got shape \(0, 3\)"),
    "no experts": ({"logits": torch.ones(3, 0)}, r"logits must not be empty, got shape \(3, 0\)"),
    "no iterations": ({"n_iter": 0}, "n_iter must be a whole number of at least 1, got 0"),
    "no tolerance": ({"tol": 0}, "tol must be a finite number above zero, got 0"),
    "no cap": ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        moe_router(**{"logits": logits(9, 4)} | arguments)


def test_more_experts_chosen_than_there_are():
    with pytest.raises(ValueError, match="k must be at most the number of experts, 4, got 5"):
        moe_router(logits(9, 4)).top_k(5)


def test_a_routing_that_misses_its_tolerance_says_so():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    said = r"moe_router: .* by 0\.00897, above tol = 1e-12, after 2 iterations: raise max_iter"
    with pytest.warns(ConvergenceWarning, match=said):
        assert not moe_router(x, tol=1e-12, max_iter=2).converged
    with pytest.warns(ConvergenceWarning, match=r"3 of 3 problems"):
        moe_router(x.expand(3, -1, -1), tol=1e-12, max_iter=2)
    # without a word: nobody asked for a tolerance, or silence was asked for
    moe_router(x, n_iter=2)
    moe_router(x, tol=1e-12, max_iter=2, on_fail="ignore")
    with pytest.raises(ValueError, match="on_fail must be one of"):
        moe_router(x, on_fail="print")
    with pytest.raises(ConvergenceError, match=said) as caught:
        moe_router(x, tol=1e-12, max_iter=2, on_fail="raise")
    assert torch.equal(caught.value.result.n_iter, torch.tensor(2))
    arrived = moe_router(x, on_fail="raise")
    assert arrived.check() is arrived
    assert "changed by no more than tol" in arrived.message
    with pytest.raises(ConvergenceError, match=r"moe_router: 1 of 2 problems: .* by 0.122, above"):
        moe_router(torch.stack([x, x * 1e5]), n_iter=3, tol=0.1).check()


def test_experts_that_a_token_may_not_use():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    closed = torch.rand(200, 6, generator=torch.Generator().manual_seed(1)) < 0.3
    closed[:, 0] = False
    found = moe_router(x.masked_fill(closed, -math.inf), tol=1e-7)
    assert bool((found.plan[closed] == 0).all())
    torch.testing.assert_close(found.plan.sum(0), torch.full((6,), 1 / 6))
    torch.testing.assert_close(found.plan.sum(1), torch.full((200,), 1 / 200), rtol=1e-4, atol=0)
    truth = oracles.router(x.masked_fill(closed, -math.inf), None, 1e-7)[0].exp()
    assert 200 * oracles.total_variation(found.plan, truth) < 1e-6
    for at, message in (((7, slice(None)), "token.*row 7"), ((slice(None), 2), "expert.*column 2")):
        bad = x.clone()
        bad[at] = -math.inf
        with pytest.raises(ValueError, match=message):
            moe_router(bad)


JUNK = torch.tensor([math.nan, math.inf, -math.inf, 1e30])


@pytest.mark.parametrize("n_iter", [1, 3, None])
def test_tokens_left_out_count_for_nothing(n_iter):
    x, mask = logits(3 * 40, 6).reshape(3, 40, 6), torch.rand(3, 40) < 0.6
    mask[2] = False
    x[~mask] = JUNK[torch.arange(int((~mask).sum())) % 4, None]
    before = x.clone()
    found = moe_router(x, n_iter=n_iter, mask=mask)
    assert torch.equal(x.nan_to_num(7.0), before.nan_to_num(7.0))
    for k in (0, 1):
        oracle, taken = oracles.router(x[k, mask[k]], n_iter)
        assert int(found.n_iter[k]) == taken
        assert total_variation(found.log_plan[k, mask[k]], oracle) < 1e-6
    assert bool((found.log_plan[~mask] == -math.inf).all())
    assert bool((found.top_k(2)[~mask] == -1).all())
    assert bool((found.top_k(2)[mask] >= 0).all())
    # where no token counts nothing moves
    assert bool(found.converged[2])
    assert int(found.n_iter[2]) == (n_iter or 1)
    one = moe_router(logits(40, 6), n_iter=n_iter, mask=mask[0].numpy())
    assert torch.equal(
        one.log_plan[~mask[0]] == -math.inf, torch.ones(40 - int(mask[0].sum()), 6) > 0
    )


def test_a_mask_of_all_changes_nothing():
    x = logits(40, 6)
    plain, masked = moe_router(x), moe_router(x, mask=torch.ones(40) > 0)
    torch.testing.assert_close(masked.log_plan, plain.log_plan)
    assert int(masked.n_iter) == int(plain.n_iter)


def test_tokens_left_out_open_no_expert():
    x, mask = logits(9, 4), torch.arange(9) > 2
    x[:, 1] = -math.inf
    x[:3, 1] = 0.0
    with pytest.raises(ValueError, match="every expert some token, got -inf all along column 1"):
        moe_router(x, mask=mask)
    x[5:8, 1] = 0.0
    x[0] = -math.inf
    found = moe_router(x, mask=mask, tol=1e-7)
    assert bool((found.log_plan[[3, 4, 8], 1] == -math.inf).all())
    torch.testing.assert_close(found.plan.sum(0), torch.full((4,), 0.25), rtol=1e-4, atol=0)


def test_a_token_has_no_more_experts_than_it_may_use():
    x = logits(9, 4)
    x[2, 1:] = -math.inf
    assert moe_router(x, n_iter=3).top_k(3)[2].tolist() == [0, -1, -1]


MASKS = {
    "numbers": (torch.ones(9), "mask must be bool, true where a sample counts, got float32"),
    "short": (torch.ones(8) > 0, r"mask must have shape \(9,\) or \(9,\) to fit \(9, 4\), got"),
    "of pairs": (torch.ones(9, 4) > 0, r"mask must have shape .* got \(9, 4\)"),
    "elsewhere": (
        torch.ones(9, dtype=torch.bool, device="meta"),
        r"mask must be on the device of the scores \(cpu\), got meta",
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_bad_mask_is_refused(name):
    mask, message = MASKS[name]
    with pytest.raises(ValueError, match=message):
        moe_router(logits(9, 4), mask=mask)
    with pytest.raises(ValueError, match=r"got nan at index \(2, 3\)"):
        moe_router(with_entry(math.nan), mask=torch.arange(9) > 1)


@pytest.mark.gpu
def test_a_mask_on_a_gpu_without_waiting():
    x, mask = logits(300, 8).cuda(), (torch.arange(300) % 3 > 0).cuda()
    moe_router(x, n_iter=3, mask=mask)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = moe_router(x, n_iter=3, mask=mask)
        chosen = found.top_k(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    want = moe_router(x.cpu(), n_iter=3, mask=mask.cpu())
    torch.testing.assert_close(found.log_plan.cpu(), want.log_plan)
    assert bool((chosen[~mask] == -1).all())
