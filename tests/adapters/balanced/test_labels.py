"""Labels in exact counts: the best ones, by force, by linear programming and by their proof."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import sinkhorn_ot as so


def scores(N: int, K: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.log_softmax(scale * torch.randn(N, K, generator=g, dtype=torch.float64), -1)


def allowed(counts: Tensor, wanted: Tensor | None) -> bool:
    N, K = int(counts.sum()), len(counts)
    if wanted is not None:
        return torch.equal(counts, wanted)
    return int(counts.min()) >= N // K and int(counts.max()) <= -(-N // K)


def by_force(S: Tensor, wanted: Tensor | None) -> float:
    """The largest value of all labellings."""
    N, K = S.shape
    every = torch.tensor(list(itertools.product(range(K), repeat=N)))
    fits = [allowed(torch.bincount(row, minlength=K), wanted) for row in every]
    return float(S[torch.arange(N), every[fits]].sum(1).max())


def by_matching(S: Tensor, wanted: Tensor | None) -> float:
    """The largest value, from a matching of samples with places; spare places pay nothing."""
    N, K = S.shape
    if wanted is not None:
        places = S.repeat_interleave(wanted, 1)
        return float(S.new_tensor(places.numpy()[linear_sum_assignment(-places.numpy())]).sum())
    # places beyond the floor may be left to phantoms, the others may not
    sure, dealt = S.repeat_interleave(N // K, 1), S if N % K else S[:, :0]
    phantoms = max(0, sure.shape[1] + dealt.shape[1] - N)
    table = np.block(
        [
            [sure.numpy(), dealt.numpy()],
            [np.full((phantoms, sure.shape[1]), -1e6), np.zeros((phantoms, dealt.shape[1]))],
        ]
    )
    return float(table[linear_sum_assignment(-table)].sum())


def check(found: so.BalancedLabels, S: Tensor, wanted: Tensor | None = None) -> None:
    """The counts are right, and what the answer says of itself is true."""
    S = S.double()
    N, K = S.shape
    assert found.labels.dtype == found.counts.dtype == torch.int64
    assert torch.equal(torch.bincount(found.labels, minlength=K), found.counts)
    assert allowed(found.counts, wanted)
    value = S[torch.arange(N), found.labels].sum()
    assert math.isfinite(value)
    assert abs(float(found.value - value)) <= 1e-12 * float(value.abs())
    # the dual: samples at their best, less the cheapest counts that are allowed
    p = found.potentials
    low = torch.full((K,), N // K) if wanted is None else wanted
    used = low > 0
    dealt = p.sort().values[p.isinf().sum() :][: N - int(low.sum())].sum()
    bound = (S + p).amax(1).sum() - (p[used] * low[used]).sum() - dealt
    terms = S[S.isfinite()].abs().max() + p[p.isfinite()].abs().max()
    assert abs(float(found.bound - bound)) <= 1e-13 * N * float(terms)


def exact(S: Tensor, wanted: Tensor | None = None, **options) -> so.BalancedLabels:
    found = so.balanced_labels(S, wanted, **options)
    check(found, S, wanted)
    scale = float(S[S.isfinite()].abs().max()) if S.isfinite().any() else 0.0
    assert abs(float(found.gap)) <= 1e-14 * len(S) * scale
    return found


@pytest.mark.parametrize(
    ("N", "K"), [(1, 1), (5, 1), (1, 4), (2, 5), (6, 2), (6, 3), (7, 3), (5, 4)]
)
@pytest.mark.parametrize("seed", range(3))
def test_brute_force(N, K, seed):
    S = scores(N, K, 2.0, seed)
    assert float(exact(S).value) == pytest.approx(by_force(S, None), abs=1e-12)


@given(st.data())
def test_small_problems_with_ties_given_counts_and_forbidden_pairs(data):
    N, K = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    entries = st.sampled_from([0.0, 1.0, 2.0, 0.5, -math.inf])
    S = torch.tensor(data.draw(st.lists(entries, min_size=N * K, max_size=N * K))).double()
    S = S.view(N, K)
    wanted = None
    if data.draw(st.booleans()):
        wanted = torch.bincount(
            torch.tensor(data.draw(st.lists(st.integers(0, K - 1), min_size=N, max_size=N))),
            minlength=K,
        )
    best = by_force(S, wanted)
    for mode in ("exact", "fast"):
        if best == -math.inf:
            with pytest.raises(ValueError, match="scores must"):
                so.balanced_labels(S, wanted, mode=mode)
        else:
            found = so.balanced_labels(S, wanted, mode=mode)
            check(found, S, wanted)
            assert float(found.value) <= best + 1e-12 <= float(found.bound) + 1e-9
            assert mode == "fast" or float(found.value) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("N", "K"), [(60, 7), (200, 10), (333, 20), (40, 40), (30, 70)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_is_the_linear_program(N, K, scale):
    S = scores(N, K, scale)
    found = exact(S)
    assert float(found.value) == pytest.approx(by_matching(S, None), rel=1e-12)
    # prices prove it: every sample has its best label
    priced = S + found.potentials
    assert float((priced.amax(1) - priced.gather(1, found.labels[:, None])[:, 0]).max()) <= 1e-12


def test_is_the_transport_of_solve_exact():
    S, wanted = scores(90, 6, 3.0), torch.tensor([40, 0, 1, 19, 25, 5])
    found = exact(S, wanted)
    plan = so.solve_exact(-S, torch.ones(90).double(), wanted.double())
    assert float(found.value) == pytest.approx(-float(plan.value_linear), rel=1e-12)
    assert float(found.potentials[1]) == -math.inf
    assert float(found.value) == pytest.approx(by_matching(S, wanted), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_and_arrays(dtype):
    S = scores(130, 7).to(dtype)
    assert torch.equal(exact(S).labels, exact(S.double()).labels)
    if dtype == torch.float32:
        assert torch.equal(so.balanced_labels(S.numpy()).labels, exact(S).labels)


def test_large_enough_to_sample_first():
    S = scores(5000, 12, 3.0)
    found = exact(S)
    b = torch.full((12,), 5000 / 12, dtype=torch.float64)
    relaxed = -float(so.solve_exact(-S, torch.ones(5000).double(), b).value_linear)
    # equal counts are a mixture of counts with one more or less, the best of which are found
    assert 0 < float(found.value) - relaxed < 12
    fast = so.balanced_labels(S, mode="fast")
    check(fast, S)
    assert float(fast.value) <= float(found.value) <= float(fast.bound)
    assert 0 < float(fast.gap) < 0.1 * float(found.value.abs())


@pytest.mark.parametrize(
    "S",
    [
        torch.zeros(1000, 9),
        scores(1, 9).expand(1000, 9),
        scores(1000, 9).round(),
        scores(1, 9) + scores(1000, 1, 0) + torch.arange(1000.0).double()[:, None],
    ],
    ids=["constant", "one sample", "integers", "offsets"],
)
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_ties(S, mode):
    S = S.contiguous()
    found = so.balanced_labels(S, mode=mode)
    check(found, S)
    if mode == "exact":
        exact(S)
        assert float(found.value) == pytest.approx(by_matching(S, None), rel=1e-12)


def test_offsets_of_samples_and_of_labels_change_nothing():
    S = scores(300, 8, 3.0)
    found = exact(S)
    assert torch.equal(exact(S + 1e4 * torch.rand(300, 1).double()).labels, found.labels)
    assert torch.equal(
        exact(S + 50 * torch.rand(8).double(), torch.tensor([38] * 4 + [37] * 4)).labels,
        exact(S, torch.tensor([38] * 4 + [37] * 4)).labels,
    )


def test_huge_and_tiny_scores():
    S = scores(300, 8, 3.0)
    labels = exact(S).labels
    for scale in (1e-30, 1e30, 1e150):
        assert torch.equal(exact(S * scale).labels, labels)


def test_a_batch_is_solved_one_by_one_and_counts_broadcast():
    S = torch.stack([scores(50, 4, 2.0, seed) for seed in range(6)]).view(2, 3, 50, 4)
    wanted = torch.tensor([10, 20, 15, 5])
    found = so.balanced_labels(S, wanted)
    shapes = [getattr(found, f).shape for f in ("labels", "counts", "value", "gap", "potentials")]
    assert shapes == [(2, 3, 50), (2, 3, 4), (2, 3), (2, 3), (2, 3, 4)]
    assert torch.equal(found.labels[1, 2], so.balanced_labels(S[1, 2], wanted).labels)
    each = torch.stack([wanted, wanted.flip(0)])[:, None]
    assert torch.equal(so.balanced_labels(S, each).counts, each.expand(2, 3, 4))


def test_forbidden_pairs():
    S = scores(200, 6, 2.0)
    S[torch.rand(200, 6, generator=torch.Generator().manual_seed(1)) < 0.5] = -math.inf
    S[S.amax(1) == -math.inf, 0] = 0.0
    assert float(exact(S).value) == pytest.approx(by_matching(S.clamp(min=-1e5), None), rel=1e-12)
    # a label that nobody may have is no error where it may stay empty
    few = scores(3, 5)
    few[:, 2] = -math.inf
    found = exact(few)
    assert int(found.counts[2]) == 0
    assert float(found.potentials[2]) == -math.inf


def test_no_labelling_names_the_reason():
    S = scores(20, 3)
    S[:8, 1:] = -math.inf
    with pytest.raises(ValueError, match=r"leave a labelling, but the samples of labels \[0\]"):
        so.balanced_labels(S)
    S = scores(20, 3)
    S[:, 1] = -math.inf
    with pytest.raises(ValueError, match="label 1 must have 6 samples and none may take it"):
        so.balanced_labels(S)
    # a label that stays empty may be closed
    S[:, 0] = -math.inf
    with pytest.raises(ValueError, match="label 1 must have 6 samples and none may take it"):
        so.balanced_labels(S, [0, 6, 14])
    S = scores(3, 4)
    S[:, :2] = -math.inf
    with pytest.raises(ValueError, match="of problem 1, but only 2 labels"):
        so.balanced_labels(torch.stack([scores(3, 4), S]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(scores=torch.tensor([[0.0, math.nan]])), r"below inf, got nan at index \(0, 1\)"),
        (dict(scores=torch.tensor([[0.0, math.inf]])), r"below inf, got inf at index \(0, 1\)"),
        (dict(scores=torch.full((2, 2), -math.inf)), "allow every sample some label, .* row 0"),
        (dict(scores=torch.zeros(3)), r"shape \(..., N, K\)"),
        (dict(scores=torch.zeros(3, 0)), "not be empty"),
        (dict(scores=torch.zeros(3, 2, dtype=torch.int64)), "floating point"),
        (dict(counts=torch.tensor([1, 2])), "counts must sum to the 4 samples, got a sum of 3"),
        (dict(counts=torch.tensor([5, -1])), "counts must be non-negative, got -1 at index 1"),
        (dict(counts=torch.tensor([2.0, 2.0])), "whole numbers"),
        (dict(counts=[2, 1, 1]), r"counts must have shape \(2,\)"),
        (dict(counts="equal"), "real numbers"),
        (dict(mode="greedy"), "'exact', 'fast'"),
        (dict(init=torch.zeros(3)), r"init must have shape \(2,\)"),
        (dict(init=torch.tensor([0.0, math.nan])), "init must hold potentials below inf"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        so.balanced_labels(**{"scores": torch.zeros(4, 2), **change})


def test_arguments_are_left_alone_and_labels_are_constants():
    S = scores(60, 5).requires_grad_()
    before, start = S.detach().clone(), torch.randn(5).double()
    kept = start.clone()
    found = so.balanced_labels(S, init=start)
    assert torch.equal(S, before)
    assert torch.equal(start, kept)
    assert not found.value.requires_grad


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_warm_start(mode):
    S = scores(4000, 10, 3.0)
    cold = exact(S)
    for init in (cold, cold.potentials, so.sela_labels(S)):
        found = so.balanced_labels(S, init=init, mode=mode)
        check(found, S)
        assert float(cold.value - found.value) <= 1e-3 * float(cold.value.abs())
    assert torch.equal(so.balanced_labels(S, init=cold).labels, cold.labels)
    # prices from nowhere cost time only
    exact(S, init=1e3 * torch.randn(10).double())


def test_progress_is_shown(capsys):
    so.balanced_labels(scores(500, 5, 3.0), progress=True)
    assert "repair" in capsys.readouterr().err


@pytest.mark.parametrize("outlier", [1e9, 1e15, 1e30])
def test_an_outlying_score_is_taken(outlier):
    """The others are dealt as well as digits allow beside it, and the gap says how well."""
    S = torch.randn(600, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = so.balanced_labels(S)
    S[7, 2] = outlier
    found = so.balanced_labels(S)
    assert found.labels[7] == 2
    assert torch.equal(found.counts, plain.counts)
    # the judge matches samples to places, without sample 7 and its place
    cost = -S.repeat_interleave(100, 1).numpy()
    cost[7, 200] = 0.0
    keep = np.delete(np.arange(600), 7), np.delete(np.arange(600), 200)
    rest = cost[np.ix_(*keep)]
    best = -rest[linear_sum_assignment(rest)].sum()
    others = torch.ones(600, dtype=torch.bool)
    others[7] = False
    own = S.gather(1, found.labels[:, None])[:, 0]
    digits = 1e-9 + 100 * outlier * torch.finfo(torch.float64).eps
    assert best - digits <= float(own[others].sum()) <= best + 1e-9
    assert 0 <= float(found.gap) <= digits


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_sample_needs_a_label_that_has_a_count(mode: str):
    text = r"every sample some label with a count, got -inf all along those of row 1"
    S = [[0.0, -math.inf], [-math.inf, 0.0]]
    with pytest.raises(ValueError, match=text + "$"):
        so.balanced_labels(S, [2, 0], mode=mode)
    with pytest.raises(ValueError, match=text + " of problem 1"):
        so.balanced_labels([[[0.0, 1.0], [2.0, 3.0]], S], [[2, 0], [2, 0]], mode=mode)
    # the other label has no count either way, and is not asked
    found = so.balanced_labels([[0.0, -math.inf], [3.0, 0.0]], [2, 0], mode=mode)
    assert (found.labels.tolist(), float(found.value), float(found.gap)) == ([0, 0], 3.0, 0.0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_scores_have_sums_that_float64_holds(mode: str):
    S = scores(20, 4, 1.0).double().clamp(-1, 1)
    message = r"at most 5e\+305 in size for float64 to hold the sum of 20 of them, got .*e\+307 at"
    with pytest.raises(ValueError, match=message):
        so.balanced_labels(1e307 * S, mode=mode)
    found, same = so.balanced_labels(4e305 * S, mode=mode), so.balanced_labels(S, mode=mode)
    assert torch.equal(found.labels, same.labels)
    torch.testing.assert_close(found.value / 4e305, same.value)
    assert bool(torch.isfinite(found.bound))


@pytest.mark.parametrize("scale", [1e290, 1e-300, 1e-7, 1e8])
def test_prices_of_single_precision_prove_labels_of_any_scale(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    S = torch.randn(400, 12, generator=g, dtype=torch.float64)
    S = S + 1e6 * torch.randn(400, 1, generator=g, dtype=torch.float64)
    S[torch.rand(S.shape, generator=g) < 0.2] = -math.inf
    r, plain = (so.balanced_labels(t) for t in (S * scale, S))
    assert (r.counts.sum(), r.counts.max() - r.counts.min()) == (400, 1)
    assert float(r.gap) <= 1e-8 * scale
    assert float(r.value) / scale == pytest.approx(float(plain.value), abs=1e-6)
