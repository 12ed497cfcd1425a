"""Codes from features against the dense float64 oracle."""

import pytest
import torch
from adapters.oracles import swav_codes, total_variation

from sinkhorn_ot.kernels import features


# the interpreter takes its time
pytestmark = pytest.mark.slow(1)


EPS = 0.05


def clouds(N, K, d, B=1, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    z, c = torch.randn(B, N, d, generator=g), torch.randn(1, K, d, generator=g)
    return tuple(torch.nn.functional.normalize(t, dim=-1).to(dtype) for t in (z, c))


def run(z, c, n_iter=3, rows=None, keep=None, **options):
    B, N, K = len(z), z.shape[1], c.shape[1]
    rows, inv_eps = rows or N, torch.full((B,), 1 / EPS)
    placed = features.place_features(z, c)
    f = features.solve(placed, torch.ones(B, K), inv_eps, n_iter, keep)
    kept = None if keep is None else keep[:, -rows:]
    return features.write(placed, f, inv_eps, rows, keep=kept, **options)


def oracle(z, c, n_iter=3, mask=None):
    return swav_codes(z.double() @ c.double().mT, EPS, n_iter, mask)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),
        (40, 30, 3, 1),
        (150, 70, 20, 2),
        pytest.param((300, 65, 130, 1), marks=pytest.mark.slow(1)),
        pytest.param((17, 300, 64, 3), marks=pytest.mark.slow(1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_iter", [1, 3])
def test_codes_are_the_formulas(shape, n_iter):
    N, K, d, B = shape
    z, c = clouds(N, K, d, B)
    soft, hard = run(z, c, n_iter)
    truth = oracle(z, c, n_iter)
    eager = swav_codes_single(z, c, n_iter)
    assert hard is None
    assert total_variation(soft, truth) <= max(5e-6, 2 * total_variation(eager, truth))
    torch.testing.assert_close(soft.sum(-1), torch.ones(B, N))


def swav_codes_single(z, c, n_iter):
    """Plain float32 steps."""
    S, f, g = z @ c.mT / EPS, 0.0, 0.0
    for _ in range(n_iter):
        f = -torch.logsumexp(S + g, -2, keepdim=True)
        g = -torch.logsumexp(S + f, -1, keepdim=True)
    return (S + f + g).exp()


@pytest.mark.parametrize("soft", [torch.float32, None])
def test_only_the_last_rows_are_written_with_their_labels(soft):
    z, c = clouds(200, 70, 20, 2)
    codes, hard = run(z, c, rows=7, hard=True, soft=soft)
    truth = oracle(z, c)[:, -7:]
    assert torch.equal(hard, truth.argmax(-1))
    if soft is None:
        assert codes is None
    else:
        assert total_variation(codes, truth) < 5e-6


def test_samples_that_do_not_count():
    z, c = clouds(90, 40, 16)
    keep = torch.rand(1, 90, generator=torch.Generator().manual_seed(1)) < 0.6
    z[~keep] = 3.0
    soft, hard = run(z, c, keep=keep, rows=50, hard=True)
    truth = oracle(z[0], c[0], mask=keep[0])[-50:]
    assert total_variation(soft[0], truth) < 5e-6
    last = keep[0, -50:]
    assert torch.equal(hard[0, last], truth[last].argmax(-1))
    assert (hard[0, ~last] == -1).all()


def test_the_first_of_equal_scores_is_the_label():
    _, hard = run(torch.zeros(1, 4, 16), torch.zeros(1, 100, 16), hard=True)
    assert (hard == 0).all()


def test_features_in_16_bits():
    z, c = clouds(60, 90, 24, dtype=torch.float16)
    assert total_variation(run(z, c)[0], oracle(z, c)) < 5e-6


def test_ranks_join_log_masses():
    z, c = clouds(100, 40, 20)
    inv_eps = torch.tensor([1 / EPS])
    parts = [features.place_features(p, c) for p in (z[:, :33], z[:, 33:])]
    g = [torch.zeros(1, p.rows.size) for p in parts]
    for _ in range(3):
        sums = [features.log_masses(p, g_p, inv_eps) for p, g_p in zip(parts, g, strict=True)]
        f = -torch.logaddexp(*sums)
        g = [-features.log_sum_rows(p, f, inv_eps) for p in parts]
    soft = torch.cat([features.write(p, f, inv_eps, p.rows.size)[0] for p in parts], 1)
    assert total_variation(soft, oracle(z, c)) < 5e-6


@pytest.mark.slow(1)
def test_two_runs_agree_to_the_bit():
    z, c = clouds(150, 40, 20)
    assert torch.equal(run(z, c)[0], run(z, c)[0])
