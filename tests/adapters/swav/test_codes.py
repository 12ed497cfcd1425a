"""SwAV's codes against the dense float64 oracle, on kind scores and on unkind ones."""

import math
import re

import pytest
import torch
from adapters import oracles
from adapters.oracles import total_variation
from adapters.swav.scores import cosines, half_of, with_entry
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import sinkhorn_ot as so
from sinkhorn_ot import adapters
from sinkhorn_ot.adapters import softmaxes
from sinkhorn_ot.adapters.arguments import checked
from sinkhorn_ot.adapters.swav import assign, codes
from sinkhorn_ot.problem import has_triton
from sinkhorn_ot.sweeps.ranks import ALONE


def unkind() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    normal = torch.randn(70, 33, generator=g)
    dominated = cosines(70, 33)
    dominated[:, 5] += 30
    lonely = cosines(70, 33)
    lonely[3] -= 50
    stepped = cosines(70, 33) + torch.arange(70)[:, None] * 3.0 - torch.arange(33) * 7.0
    near_ties = torch.zeros(70, 33) + torch.randn(70, 33, generator=g) * 1e-6
    return {
        "unnormalised": normal * 5,
        "huge": normal * 1e4,
        "at the ends": torch.where(normal > 0, 1e4, -1e4),
        "one prototype dominates": dominated,
        "one prototype starves": -dominated,
        "one sample far below": lonely,
        "rows and columns shifted": stepped,
        "near ties": near_ties,
        "near ties far from zero": near_ties + 1e4,
        "permutation": 100 * torch.eye(33),
        "peaked": cosines(70, 33) * 40,
        "constant": torch.full((9, 4), 1e4),
        "one prototype": normal[:, :1] * 1e3,
        "one sample": normal[:1] * 1e3,
        "one of each": torch.tensor([[-1e4]]),
        "half the samples far": torch.cat([normal * 1e4, cosines(70, 33)]),
        "heavy tails": torch.exp(normal * 4).clamp(max=1e4) * torch.sign(normal),
    }


SHAPES = [(1, 1), (1, 7), (17, 1), (17, 65), (300, 10), (64, 300), (1000, 301)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_iter", [1, 3, 10])
def test_is_the_oracle(shape, n_iter):
    S = cosines(*shape)
    Q = so.swav_codes(S, n_iter=n_iter)
    assert total_variation(Q, oracles.swav_codes(S, 0.05, n_iter)) < 1e-6


@pytest.mark.parametrize("name", unkind())
@pytest.mark.parametrize("n_iter", [1, 3, 10, 30])
@pytest.mark.parametrize("road", ["by_products", "by_logs"])
def test_is_the_oracle_on_unkind_scores(name, n_iter, road):
    S = unkind()[name]
    Q = getattr(softmaxes, road)(checked(ALONE, S, 0.05, n_iter, None), n_iter)
    assert total_variation(Q, oracles.swav_codes(S, 0.05, n_iter)) < 1e-6


@settings(max_examples=100, deadline=None)
@given(
    N=st.integers(1, 60),
    K=st.integers(1, 40),
    scale=st.floats(-3, 4),
    rows=st.floats(-3, 4),
    columns=st.floats(-3, 4),
    seed=st.integers(0, 999),
)
def test_is_the_oracle_at_every_scale(N, K, scale, rows, columns, seed):
    g = torch.Generator().manual_seed(seed)
    S = torch.randn(N, K, generator=g) * 10**scale
    S += torch.randn(N, 1, generator=g) * 10**rows + torch.randn(K, generator=g) * 10**columns
    assert total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6


@pytest.mark.parametrize("eps", [0.004, 0.05, 1.0, 100.0])
def test_every_temperature(eps):
    S = cosines(200, 31)
    assert total_variation(so.swav_codes(S, eps=eps), oracles.swav_codes(S, eps, 3)) < 1e-6


def test_float64_is_float64():
    S = cosines(200, 31).double() * 3
    assert total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3)) < 1e-13


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2.4e-4), (torch.bfloat16, 1.9e-3)])
def test_half_precision_costs_no_more_than_its_own_rounding(dtype, bound):
    S = cosines(500, 65).to(dtype)
    oracle = oracles.swav_codes(S, 0.05, 3)
    Q = so.swav_codes(S, out_dtype=torch.float32)
    assert Q.dtype == torch.float32
    assert total_variation(Q, oracle) < 1e-6
    assert so.swav_codes(S).dtype == dtype
    assert total_variation(so.swav_codes(S), oracle) < bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_survives_large_scores(dtype):
    S = (unkind()["huge"]).clamp(-6e4, 6e4).to(dtype)
    Q = so.swav_codes(S, out_dtype=torch.float32)
    assert total_variation(Q, oracles.swav_codes(S, 0.05, 3)) < 1e-6


def test_rows_sum_to_one_and_codes_are_not_negative():
    for S in unkind().values():
        Q = so.swav_codes(S)
        assert float((Q.sum(-1) - 1).abs().max()) < 1e-6
        assert float(Q.min()) >= 0


def test_a_batch_is_its_problems():
    S = torch.stack([cosines(40, 12, seed) for seed in range(6)]).reshape(2, 3, 40, 12)
    Q = so.swav_codes(S)
    assert Q.shape == S.shape
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(Q[i, j], so.swav_codes(S[i, j]), rtol=1e-5, atol=1e-7)


def test_a_batch_may_hold_one_unkind_problem():
    S = torch.stack([cosines(70, 33), unkind()["huge"], unkind()["one sample far below"]])
    assert total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6


def test_large_enough_for_several_blocks(monkeypatch):
    monkeypatch.setattr("sinkhorn_ot.adapters.softmaxes.TILE", 100)
    for S in (cosines(70, 33), *unkind().values()):
        assert total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6


def test_a_constant_per_prototype_changes_nothing():
    S = cosines(50, 20)
    shifted = so.swav_codes(S.double() + 1000 * torch.arange(20), n_iter=3)
    torch.testing.assert_close(shifted, so.swav_codes(S.double()), rtol=1e-8, atol=1e-10)


def test_permuted_samples_get_permuted_codes():
    S, order = cosines(50, 20), torch.randperm(50, generator=torch.Generator().manual_seed(0))
    Q = so.swav_codes(S)[order]
    torch.testing.assert_close(so.swav_codes(S[order]), Q, rtol=1e-5, atol=1e-7)


def test_scores_are_left_alone_in_any_layout():
    S = cosines(40, 24).requires_grad_()
    before = S.detach().clone()
    Q = so.swav_codes(S)
    assert not Q.requires_grad
    assert torch.equal(S.detach(), before)
    mirrored = S.detach().numpy()[:, ::-1].copy()[:, ::-1]
    for other in (S.t().contiguous().t(), S.repeat(1, 2)[:, :24], mirrored):
        torch.testing.assert_close(so.swav_codes(other), Q, rtol=1e-5, atol=1e-7)


def test_autocast_and_matmul_settings_change_nothing():
    S = cosines(300, 100)
    Q = so.swav_codes(S)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(so.swav_codes(S), Q)
        half = (torch.randn(64, 16) @ torch.randn(16, 32)).detach()
        assert so.swav_codes(half).dtype == half.dtype == torch.bfloat16
    torch.set_float32_matmul_precision("medium")
    try:
        assert total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6
    finally:
        torch.set_float32_matmul_precision("highest")


def test_hard_codes_are_one_hot():
    S = cosines(50, 20)
    hard, soft = so.swav_codes(S, hard=True), so.swav_codes(S)
    assert torch.equal(hard.argmax(-1), soft.argmax(-1))
    assert torch.equal(hard.sum(-1), torch.ones(50))
    assert set(hard.unique().tolist()) == {0.0, 1.0}


def test_converged_codes_balance_the_prototypes():
    S = cosines(210, 21).double()
    Q = so.swav_codes(S, n_iter=None)
    torch.testing.assert_close(Q.sum(0), torch.full((21,), 10.0).double(), rtol=1e-7, atol=0)
    torch.testing.assert_close(Q, oracles.swav_codes(S, 0.05, 3000), rtol=1e-6, atol=1e-9)
    three = so.swav_codes(S)
    assert float((three.sum(0) - 10).abs().max()) > 1e-2


@pytest.mark.slow(2)
def test_compiles_whole_and_looks_at_no_value():
    seen = torch.compile(so.swav_codes, fullgraph=True, backend="eager")
    S = unkind()["huge"]
    assert total_variation(seen(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6
    half = cosines(9, 5).half().requires_grad_()
    assert seen(half).dtype == torch.float16


def test_where_values_are_not_looked_at_nan_stays_nan():
    S = cosines(8, 5)
    S[2, 3] = math.nan
    assert bool(softmaxes.by_logs(checked(ALONE, S, 0.05, 3, None), 3).isnan().all())


@pytest.mark.slow(1)
@pytest.mark.parametrize("shape", [(17, 65), (3, 20, 10)], ids=str)
def test_scores_go_through_the_operator_where_kernels_serve(shape, monkeypatch):
    # on a CPU the operator is eager code, which means the same
    monkeypatch.setattr(codes, "has_kernels", lambda S: True)
    S = cosines(math.prod(shape[:-1]), shape[-1]).reshape(shape)
    seen = torch.compile(so.swav_codes, fullgraph=True, backend="aot_eager")
    assert total_variation(seen(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        assert seen(S.half()).dtype == torch.float16


@pytest.mark.skipif(not has_triton(), reason="triton is not installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_all_but_double_precision_is_served_by_kernels_on_cuda(dtype):
    with FakeTensorMode():
        S = torch.empty(3, 8, 5, device="cuda", dtype=dtype)
    assert codes.has_kernels(S) == (dtype != torch.float64)


@pytest.mark.gpu
def test_on_a_gpu_without_waiting():
    S = cosines(300, 301).cuda()
    so.swav_codes(S)
    torch.cuda.set_sync_debug_mode("error")
    try:
        Q = so.swav_codes(S)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total_variation(Q.cpu(), oracles.swav_codes(S.cpu(), 0.05, 3)) < 1e-6


@pytest.mark.parametrize("name", unkind())
@pytest.mark.parametrize("road", ["by_products", "by_logs"])
def test_samples_left_out_count_for_nothing(name, road):
    S = unkind()[name].clone()
    mask = half_of(len(S))
    mask[0] = True
    junk = torch.tensor([math.nan, math.inf, -math.inf, 1e30])
    S[~mask] = junk[torch.arange(int((~mask).sum())) % 4, None]
    Q = getattr(softmaxes, road)(checked(ALONE, S, 0.05, 3, mask), 3)
    assert total_variation(Q, oracles.swav_codes(S, 0.05, 3, mask)) < 1e-6
    assert bool((Q[~mask] == 0).all())


@pytest.mark.parametrize("road", ["by_products", "by_logs"])
@pytest.mark.parametrize("tile", [100, 1 << 18])
def test_every_problem_has_its_mask(road, tile, monkeypatch):
    monkeypatch.setattr("sinkhorn_ot.adapters.softmaxes.TILE", tile)
    S = torch.stack([cosines(40, 12, seed) for seed in range(6)]).reshape(2, 3, 40, 12)
    mask = half_of(240).reshape(2, 3, 40)
    mask[1, 1] = False
    Q = getattr(softmaxes, road)(checked(ALONE, S, 0.05, 3, mask), 3)
    for i in range(2):
        for j in range(3):
            oracle = oracles.swav_codes(S[i, j], 0.05, 3, mask[i, j])
            assert total_variation(Q[i, j], oracle) < 1e-6
    one = mask[0, 0]
    shared = so.swav_codes(S, mask=one)
    torch.testing.assert_close(shared, so.swav_codes(S, mask=one.expand(2, 3, 40)))


@pytest.mark.parametrize("n_iter", [1, 3, None])
@pytest.mark.parametrize("hard", [False, True])
def test_where_no_sample_counts_codes_are_zero(n_iter, hard):
    nothing = torch.zeros(8, dtype=torch.bool)
    for mask in (nothing, nothing.numpy()):
        Q = so.swav_codes(with_entry(math.nan), mask=mask, n_iter=n_iter, hard=hard)
        assert bool((Q == 0).all())
    found = assign(cosines(8, 5), mask=nothing)
    assert bool((found.labels == -1).all())
    assert bool((found.prototype_mass == 0).all())


def test_a_mask_and_convergence():
    S, mask = torch.stack([cosines(60, 6), cosines(60, 6, 1)]).double(), half_of(60)
    S[:, ~mask] = math.nan
    Q = so.swav_codes(S, n_iter=None, mask=mask)
    assert float((Q.sum(-2) - float(mask.sum()) / 6).abs().max()) < 1e-6
    assert total_variation(Q, oracles.swav_codes(S, 0.05, 3000, mask)) < 1e-6


@pytest.mark.parametrize("road", ["by_products", "by_logs"])
@pytest.mark.parametrize("last", [0, 1, 7, 70])
def test_only_the_last_codes(road, last):
    S, mask = torch.stack([cosines(70, 33), unkind()["huge"]]), half_of(70)
    for keep in (None, mask):
        every = getattr(softmaxes, road)(checked(ALONE, S, 0.05, 3, keep), 3)
        some = getattr(softmaxes, road)(checked(ALONE, S, 0.05, 3, keep, last), 3)
        assert some.shape == (2, last, 33)
        torch.testing.assert_close(some, every[:, 70 - last :], rtol=1e-5, atol=1e-7)
    assert so.swav_codes(S[0], last=last, n_iter=None).shape == (last, 33)


def test_the_last_codes_do_not_hold_on_to_the_others():
    Q = so.swav_codes(cosines(1000, 20), last=3)
    assert Q.untyped_storage().nbytes() == Q.numel() * 4


@pytest.mark.parametrize("n_iter", [1, 3, None])
@pytest.mark.parametrize(("size", "eps"), [(1e307, 0.05), (1e285, 1e-29), (1.7e308, 10.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_scores_over_eps_that_no_float64_holds_are_refused(size, eps, n_iter, masked):
    S, mask = cosines(9, 5).double(), torch.arange(9) > 0
    S = size * S / S[mask].abs().max()
    if masked:
        S[0] = math.nan
    message = rf"eps must be at least {size / 1e307:.3g} for float64 to hold scores over it, got "
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        so.swav_codes(S, eps=eps, n_iter=n_iter, mask=mask if masked else None)


@pytest.mark.parametrize("size", [1e300, 4.9e305])
@pytest.mark.parametrize("road", ["by_products", "by_logs"])
def test_scores_that_float64_just_holds_have_codes(size, road):
    # whoever is best for one prototype is best for no other: rounding ties nobody
    S = size * (2 * torch.eye(33).double() - 1)
    Q = getattr(softmaxes, road)(checked(ALONE, S, 0.05, 3, None), 3)
    torch.testing.assert_close(Q, torch.eye(33).double(), atol=1e-20, rtol=1e-15)


def test_what_cannot_be_resolved_is_told_in_the_words_of_the_call():
    S = 1e10 * cosines(9, 5)
    for call, name, scores in (
        (lambda: so.swav_codes(S, eps=1e-9, n_iter=None), "eps", "scores"),
        (lambda: adapters.dino_codes(S, 1e-9, n_iter=None), "temperature", "logits"),
        (lambda: adapters.capi_codes(S[:, None], 1e-9, n_iter=None), "temperature", "logits"),
        (lambda: adapters.msn_codes(1e20 * S, n_iter=None), r"tau \* sharpening", "scores"),
    ):
        message = f"^{name} must be at least .* to resolve {scores} over it, got .*: raise it, or"
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert not re.search(r"\b(reg|cost)\b", str(error.value))
    with pytest.raises(ValueError, match=r"^lamb must be at most .* lamb \* log_probs") as error:
        adapters.clot_labels(S, lamb=1e9)
    assert "-inf" not in str(error.value)


def test_one_prototype_is_everyones():
    assert torch.equal(so.swav_codes(cosines(9, 1) * 1e4), torch.ones(9, 1))


BAD = {
    "nan": ({"scores": with_entry(math.nan)}, r"must be finite, got nan at index \(2, 3\)"),
    "inf": ({"scores": with_entry(math.inf)}, r"must be finite, got inf at index \(2, 3\)"),
    "-inf": ({"scores": with_entry(-math.inf)}, r"must be finite, got -inf at index \(2, 3\)"),
    "-inf row": ({"scores": torch.full((3, 4), -math.inf)}, r"got -inf at index \(0, 0\)"),
    "nan to tolerance": ({"scores": with_entry(math.nan), "n_iter": None}, "must be finite"),
    "vector": ({"scores": torch.ones(3)}, r"must have shape \(..., N, K\), got \(3,\)"),
    "no samples": ({"scores": torch.ones(0, 3)}, r"must not be empty, got shape \(0, 3\)"),
    "no prototypes": ({"scores": torch.ones(3, 0)}, r"must not be empty, got shape \(3, 0\)"),
    "integers": ({"scores": torch.ones(3, 3).long()}, "must be floating point, got int64"),
    "words": ({"scores": "scores"}, "must hold real numbers"),
    "eps zero": ({"eps": 0.0}, "eps must be a finite number above zero, got 0.0"),
    "eps negative": ({"eps": -1.0}, "eps must be a finite number above zero, got -1.0"),
    "eps nan": ({"eps": math.nan}, "eps must be a finite number above zero, got nan"),
    "eps tiny": ({"eps": 1e-40}, "eps must be at least 1e-30, got 1e-40"),
    "no iterations": ({"n_iter": 0}, "n_iter must be a whole number of at least 1, got 0"),
    "half of one": ({"n_iter": 2.5}, "n_iter must be a whole number of at least 1, got 2.5"),
    "mask of numbers": ({"mask": torch.ones(8)}, "mask must be bool.*got float32"),
    "short mask": ({"mask": torch.ones(7) > 0}, r"mask must have shape \(8,\).*got \(7,\)"),
    "mask of scores": ({"mask": torch.ones(8, 5) > 0}, r"mask must have shape .*got \(8, 5\)"),
    "mask elsewhere": (
        {"mask": torch.ones(8, dtype=torch.bool, device="meta")},
        r"mask must be on the device of the scores \(cpu\), got meta",
    ),
    "nan that counts": (
        {"scores": with_entry(math.nan), "mask": torch.arange(8) > 1},
        r"must be finite, got nan at index \(2, 3\)",
    ),
    "last of nine": ({"last": 9}, "last must be at most the number of samples, 8, got 9"),
    "last negative": ({"last": -1}, "last must be a whole number of at least 0, got -1"),
    "group by name": ({"group": "world"}, "group must be a torch.distributed process.*'world'"),
    "integer codes": ({"out_dtype": torch.int64}, "out_dtype must be a floating-point dtype"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        so.swav_codes(**{"scores": cosines(8, 5)} | arguments)


def test_what_one_mass_per_rank_costs():
    """The figure of docs/adapters.md: ranks of 64 and 32 samples, each given half of the mass."""
    generator = torch.Generator().manual_seed(0)
    z, c = (
        torch.nn.functional.normalize(torch.randn(k, 128, generator=generator).double(), dim=1)
        for k in (96, 300)
    )
    S = z @ c.T
    share = torch.cat([torch.full((64,), 1 / 128), torch.full((32,), 1 / 64)]).double()[:, None]
    Q = torch.exp(S / 0.05)
    for _ in range(3):
        Q = Q / Q.sum(0) / 300
        Q = Q / Q.sum(1, keepdim=True) * share
    off = (Q / share - so.swav_codes(S)).abs().sum(1) / 2
    assert float(off.mean()) == pytest.approx(0.04, abs=0.005)


@pytest.mark.parametrize("n_iter", [3, 10, 30])
def test_float64_scores_far_apart_stay_in_their_place(n_iter):
    """Rows thousands of eps below the others, which float64 cannot hold together either."""
    S = cosines(12, 5).double() + torch.linspace(-90, 90, 12, dtype=torch.float64)[:, None]
    found = so.swav_codes(S, eps=0.01, n_iter=n_iter)
    assert total_variation(found, oracles.swav_codes(S, 0.01, n_iter)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [None, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_where_float32_fades_codes_go_on_in_float64(dtype, last, masked, monkeypatch):
    """At a small eps nearly all rows are faint: taken by their logs they were the whole cost."""
    S, mask = cosines(90, 40).to(dtype), half_of(90) if masked else None
    widened, widen = [], softmaxes.ScaledScores.widen
    monkeypatch.setattr(
        softmaxes.ScaledScores, "widen", lambda self: widened.append(0) or widen(self)
    )
    found = softmaxes.by_products(checked(ALONE, S, 0.003, 20, mask, last), 20)
    assert bool(widened) == (dtype == torch.float32)
    assert found.dtype == dtype
    want = oracles.swav_codes(S if mask is None else S[mask], 0.003, 20)
    if mask is not None:
        want = torch.zeros(90, 40, dtype=want.dtype).index_put((mask.nonzero()[:, 0],), want)
    want = want if last is None else want[-last:]
    assert total_variation(found, want) < (1e-6 if dtype == torch.float32 else 1e-12)
