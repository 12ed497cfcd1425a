"""SeLa's labels against the dense float64 fixed point, and what they promise."""

import math

import pytest
import torch
from adapters import oracles
from torch import Tensor

import sinkhorn_ot as so


def log_probs(N: int, K: int, scale: float = 1.0, heads: int | None = None) -> Tensor:
    g = torch.Generator().manual_seed(0)
    shape = (N, K) if heads is None else (heads, N, K)
    return torch.log_softmax(scale * torch.randn(shape, generator=g, dtype=torch.float64), -1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def uniform(K: int) -> Tensor:
    return torch.full((K,), 1.0 / K, dtype=torch.float64)


def check(found: so.SelaLabels, S: Tensor, lamb: float, marginal: Tensor, slack: float) -> None:
    """Labels are the oracle's, except where its two best labels lie within `slack`."""
    score = lamb * S.double() + oracles.sela(S, lamb, marginal)[..., None, :]
    best = score.topk(2, -1)
    clear = best.values[..., 0] - best.values[..., 1] > slack
    assert float(clear.double().mean()) > 0.95
    assert torch.equal(found.labels[clear], best.indices[..., 0][clear])


@pytest.mark.parametrize("shape", [(40, 2), (65, 17), (130, 7), (900, 10)], ids=str)
@pytest.mark.parametrize(("scale", "lamb"), [(0.1, 25), (1, 25), (1, 10), (4, 25)])
def test_is_the_oracle(shape, scale, lamb):
    S = log_probs(*shape, scale)
    found = so.sela_labels(S, lamb=lamb, tol=1e-10, max_iter=20_000)
    assert bool(found.converged)
    check(found, S, lamb, uniform(shape[1]), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_single_and_half_precision(dtype):
    S = log_probs(900, 10).to(dtype)
    found = so.sela_labels(S)
    assert bool(found.converged)
    assert found.labels.dtype == torch.int64
    check(found, S, 25.0, uniform(10), 1e-3)


@pytest.mark.slow(1)
def test_peaked_logits_where_the_power_of_p_underflows():
    S = log_probs(400, 12, scale=10).float()
    assert float((S.exp() ** 25 == 0).double().mean()) > 0.5
    found = so.sela_labels(S, max_iter=20_000)
    assert bool(found.converged)
    check(found, S, 25.0, uniform(12), 1e-2)


def test_a_given_marginal_may_close_a_label():
    S, marginal = log_probs(600, 6), torch.tensor([5.0, 0.0, 1.0, 2.0, 1.0, 1.0]).double()
    found = so.sela_labels(S, marginal=marginal, tol=1e-10)
    check(found, S, 25.0, marginal / 10, 1e-5)
    assert int(found.counts[1]) == 0
    assert float(found.potentials[1]) == -math.inf
    assert float((found.counts / 600 - marginal / 10).abs().max()) < 0.02


@pytest.mark.slow(1)
def test_heads_are_solved_as_one_and_as_many():
    S = log_probs(300, 8, heads=3)
    marginal = torch.rand(3, 8, dtype=torch.float64) + 0.5
    found = so.sela_labels(S, marginal=marginal, tol=1e-10)
    shapes = [getattr(found, f).shape for f in ("labels", "potentials", "counts", "converged")]
    assert shapes == [(3, 300), (3, 8), (3, 8), (3,)]
    assert found.n_iter.shape == found.marginal_error.shape == (3,)
    for h in range(3):
        alone = so.sela_labels(S[h], marginal=marginal[h], tol=1e-10)
        assert torch.equal(found.labels[h], alone.labels)
        torch.testing.assert_close(found.potentials[h], alone.potentials, rtol=0, atol=1e-6)


def test_counts_count_the_labels_and_are_nearly_even():
    found = so.sela_labels(log_probs(1000, 10))
    assert torch.equal(found.counts, torch.bincount(found.labels, minlength=10))
    assert 90 <= int(found.counts.min()) <= int(found.counts.max()) <= 110


@pytest.mark.parametrize("heads", [None, 2])
def test_balanced_rounding_makes_counts_exact(heads):
    S = log_probs(1003, 10, heads=heads)
    found, plain = so.sela_labels(S, rounding="balanced"), so.sela_labels(S)
    assert bool(((found.counts - 100.3).abs() < 1).all())
    assert float((found.labels == plain.labels).double().mean()) > 0.9
    # no labelling in such counts is better
    assert torch.equal(found.labels, so.balanced_labels(S).labels)
    marginal = torch.arange(1.0, 11).double()
    found = so.sela_labels(S, marginal=marginal, rounding="balanced")
    want = marginal / marginal.sum() * 1003
    assert bool(((found.counts - want).abs() < 1).all())
    assert int(found.counts.sum()) == 1003 * (heads or 1)


def test_equal_samples_have_one_label_unless_rounding_splits_them():
    # the plan shares them; no K numbers can tell equal rows apart
    S = torch.cat([log_probs(60, 4), torch.zeros(40, 4).double().log_softmax(-1)])
    found, split = so.sela_labels(S), so.sela_labels(S, rounding="balanced")
    assert bool(found.converged)
    assert len(found.labels[60:].unique()) == 1
    assert int(found.counts.max()) >= 40
    assert split.counts.tolist() == [25] * 4
    assert len(split.labels[60:].unique()) > 1
    same = so.sela_labels(torch.zeros(100, 4))
    assert bool(same.converged)
    assert same.counts.tolist() == [100, 0, 0, 0]
    assert so.sela_labels(torch.zeros(100, 4), rounding="balanced").counts.tolist() == [25] * 4


def test_potentials_label_as_the_labels_do():
    S = log_probs(300, 8)
    found = so.sela_labels(S)
    assert torch.equal((S + found.potentials).argmax(-1), found.labels)


def test_logits_are_as_good_as_log_probabilities():
    logits = torch.randn(400, 7, dtype=torch.float64)
    found = so.sela_labels(logits, tol=1e-10)
    assert torch.equal(found.labels, so.sela_labels(logits.log_softmax(-1), tol=1e-10).labels)


def test_a_warm_start_is_shorter_and_comes_to_the_same():
    S = log_probs(3000, 20, scale=3)
    cold = so.sela_labels(S, tol=1e-9)
    for init in (cold, cold.potentials):
        again = so.sela_labels(S, tol=1e-9, init=init)
        assert int(again.n_iter) < int(cold.n_iter) / 2
        assert torch.equal(again.labels, cold.labels)
    moved = S + 0.01 * torch.randn(S.shape, dtype=torch.float64)
    warm = so.sela_labels(moved, tol=1e-9, init=cold, lamb=20.0)
    assert torch.equal(warm.labels, so.sela_labels(moved, tol=1e-9, lamb=20.0).labels)


def test_a_warm_start_may_open_a_closed_label():
    S = log_probs(300, 4)
    closed = so.sela_labels(S, marginal=torch.tensor([1.0, 1.0, 1.0, 0.0]))
    opened = so.sela_labels(S, init=closed)
    assert torch.equal(opened.labels, so.sela_labels(S).labels)


def test_a_start_is_where_the_last_solve_ended():
    """Also where labels have shares that differ, or none."""
    S = log_probs(300, 4)
    for marginal in ([6.0, 2.0, 1.0, 1.0], [6.0, 3.0, 0.0, 1.0]):
        cold = so.sela_labels(S, marginal=marginal)
        again = so.sela_labels(S, marginal=marginal, init=cold)
        assert int(again.n_iter) == 1 < int(cold.n_iter)
        assert torch.equal(again.potentials, cold.potentials)


def test_a_label_without_potential_starts_from_its_share():
    S, marginal = log_probs(300, 4), torch.tensor([1.0, 2.0, 1.0, 4.0]).double() / 8
    start = torch.tensor([0.1, -0.2, 0.0, 0.0]).double()
    told, silent = start.clone(), start.clone()
    told[3], silent[3] = marginal[3].log() / 25, -math.inf
    found = [so.sela_labels(S, marginal=marginal, init=init) for init in (told, silent)]
    assert int(found[0].n_iter) == int(found[1].n_iter)
    torch.testing.assert_close(found[0].potentials, found[1].potentials, rtol=0, atol=1e-12)


def test_a_solve_cut_short_says_so():
    found = so.sela_labels(log_probs(500, 20, scale=8), tol=1e-12, max_iter=3, on_fail="ignore")
    assert not bool(found.converged)
    assert float(found.marginal_error) > 1e-12
    assert found.status is so.Status.MAX_ITER
    with pytest.raises(so.ConvergenceError, match="sela_labels: ran out of iterations"):
        found.check()


def test_more_labels_than_samples_leaves_some_empty():
    found = so.sela_labels(log_probs(5, 30))
    assert bool(found.converged)
    assert int(found.counts.sum()) == 5


def test_one_label_and_one_sample():
    assert torch.equal(so.sela_labels(log_probs(7, 1)).labels, torch.zeros(7, dtype=torch.int64))
    assert so.sela_labels(log_probs(1, 4)).labels.shape == (1,)


def test_a_forbidden_label_is_not_given():
    S = log_probs(200, 5)
    S[:50, 2] = -math.inf
    found = so.sela_labels(S)
    assert not bool((found.labels[:50] == 2).any())
    assert bool(found.converged)


def test_arrays_gradients_and_arguments():
    S = log_probs(100, 5).requires_grad_()
    before = S.detach().clone()
    found = so.sela_labels(S)
    assert not found.potentials.requires_grad
    assert torch.equal(S.detach(), before)
    assert torch.equal(so.sela_labels(S.detach().numpy()).labels, found.labels)


def test_read_out_in_blocks(monkeypatch):
    S = log_probs(300, 8, heads=2)
    whole = so.sela_labels(S)
    monkeypatch.setattr("sinkhorn_ot.adapters.sela.data._TILE", 50)
    assert torch.equal(so.sela_labels(S).labels, whole.labels)


def test_progress_is_shown(capsys):
    so.sela_labels(log_probs(100, 5), progress=True)
    assert "sinkhorn" in capsys.readouterr().err


def spoiled(value: float, row: int | slice = 3, column: int | slice = 1) -> Tensor:
    S = log_probs(9, 4)
    S[row, column] = value
    return S


EVERY = slice(None)
BAD = {
    "nan": ({"log_probs": spoiled(math.nan)}, r"below inf, got nan at index \(3, 1\)"),
    "inf": ({"log_probs": spoiled(math.inf)}, r"below inf, got inf at index \(3, 1\)"),
    "closed row": (
        {"log_probs": spoiled(-math.inf, column=EVERY)},
        "log_probs must allow every sample some label, got -inf all along row 3",
    ),
    "closed row of a head": (
        {"log_probs": torch.stack([log_probs(9, 4), spoiled(-math.inf, column=EVERY)])},
        r"every sample some label, got -inf all along row \(1, 3\)",
    ),
    "closed but for a label without share": (
        {"log_probs": spoiled(-math.inf, column=slice(1, 4)), "marginal": [0.0, 1.0, 1.0, 1.0]},
        "log_probs must allow every sample some label with a share, got -inf .* those of row 3",
    ),
    "closed column": (
        {"log_probs": spoiled(-math.inf, row=EVERY)},
        "every label with a share some sample, got -inf all along column 1",
    ),
    "vector": ({"log_probs": torch.ones(3)}, r"must have shape \(..., n, k\), got \(3,\)"),
    "no samples": ({"log_probs": torch.ones(0, 3)}, r"must not be empty, got shape \(0, 3\)"),
    "no labels": ({"log_probs": torch.ones(3, 0)}, r"must not be empty, got shape \(3, 0\)"),
    "integers": ({"log_probs": torch.ones(3, 3).long()}, "must be floating point, got int64"),
    "lamb zero": ({"lamb": 0}, "lamb must be a finite number above zero, got 0"),
    "lamb too small": ({"lamb": 1e-310}, "lamb must be at least 1e-30, got 1e-310"),
    "lamb too large": (
        {"log_probs": log_probs(900, 10, scale=4), "lamb": 1e13},
        r"lamb must be at most .*e\+12 for torch.float64 to resolve .*, got 1e\+13: lower",
    ),
    "tol zero": ({"tol": 0.0}, "tol must be a finite number above zero, got 0.0"),
    "rounding": ({"rounding": "even"}, "rounding must be one of 'argmax', 'balanced', got 'even'"),
    "balanced blocks": (
        {"log_probs": [log_probs(9, 4)], "rounding": "balanced"},
        'rounding="balanced" needs all log_probs in memory',
    ),
    "no sweeps": ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
    "short marginal": ({"marginal": torch.ones(3)}, r"marginal must have shape \(4,\).*got \(3,\)"),
    "marginal with heads": ({"marginal": torch.ones(2, 4)}, "marginal must have shape"),
    "other heads": (
        {"log_probs": log_probs(9, 4, heads=3), "marginal": torch.ones(2, 4)},
        r"marginal must have shape \(4,\) or \(..., 4\) to fit log_probs of \(3, 9, 4\)",
    ),
    "negative share": ({"marginal": [1.0, -1.0, 1.0, 1.0]}, "marginal must be non-negative"),
    "no share": ({"marginal": torch.zeros(4)}, "marginal must have some positive weight"),
    "short init": ({"init": torch.ones(3)}, r"init must have shape \(4,\).*\(3,\)"),
    "init nan": ({"init": torch.full((4,), math.nan)}, "init must hold potentials below inf"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        so.sela_labels(**{"log_probs": log_probs(9, 4)} | arguments)
