import math

import pytest
import torch

from sinkhorn_ot.kernels import codes, codes_across, codes_rows, configs, dense_sweep
from sinkhorn_ot.kernels.log_sums import log_sum_columns


@pytest.fixture
def small_chip(monkeypatch):
    """Pretend that rows of more than 48 entries, or columns of more than 20, do not fit on chip."""

    def row_tile(m, axis, *itemsize):
        return configs.row_tile(m, axis, *itemsize) if m <= (48 if axis == 1 else 20) else None

    for module in (codes_across, codes_rows):
        monkeypatch.setattr(module, "row_tile", row_tile)
    codes_rows.forget()
    yield
    codes_rows.forget()


def scores(B, N, K, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(B, N, 16, generator=g), dim=-1)
    y = torch.nn.functional.normalize(torch.randn(K, 16, generator=g), dim=-1)
    return (x @ y.T).to(dtype)


def formulas(S, eps, n_iter, r=None, keep=None):
    """The iterations as they are written down, in the dtype of S."""
    B, N, K = S.shape
    r = torch.full((B, K), 1 / K, dtype=S.dtype) if r is None else r.to(S.dtype)
    keep = torch.ones(B, N, dtype=torch.bool) if keep is None else keep
    off = torch.where(keep, 0.0, -torch.inf).to(S.dtype)
    g = torch.zeros(B, N, dtype=S.dtype)
    for _ in range(n_iter):
        f = r.log() - torch.logsumexp(S / eps + (g + off)[:, :, None], 1)
        g = -torch.logsumexp(S / eps + f[:, None, :], 2)
    Q = (S / eps + f[:, None, :] + g[:, :, None]).exp()
    return torch.where(keep[:, :, None], Q, 0.0)


def run(S, eps=0.05, n_iter=3, rows=None, r=None, keep=None, **options):
    B, N, K = S.shape
    r = torch.full((B, K), 1 / K) if r is None else r
    inv_eps = torch.full((B,), 1 / eps)
    f = codes.solve(S, r, inv_eps, n_iter, keep)
    last = slice(N - (rows or N), N)
    kept = None if keep is None else keep[:, last]
    return codes.write(S[:, last], f, inv_eps, keep=kept, **options)


def variation(p, q):
    """Total variation per code."""
    return (p.double() - q.double()).abs().sum(-1).max().item() / 2


def close(got, S, eps, n_iter, rows=None, **options):
    truth = formulas(S.double(), eps, n_iter, **options)
    eager = formulas(S.float(), eps, n_iter, **options)
    if rows:
        truth, eager = truth[:, -rows:], eager[:, -rows:]
    assert variation(got, truth) <= max(1e-6, 2 * variation(eager, truth))


@pytest.mark.parametrize("n_iter", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (1, 1, 17),
        (1, 40, 30),
        (3, 17, 65),
        pytest.param((1, 20, 3000), marks=pytest.mark.slow(1)),
    ],
    ids=str,
)
def test_codes_are_the_formulas(shape, n_iter):
    S = scores(*shape)
    soft, hard = run(S, n_iter=n_iter)
    close(soft, S, 0.05, n_iter)
    torch.testing.assert_close(soft.sum(-1), torch.ones(shape[:2]))
    assert hard is None


def test_only_the_last_rows_are_written():
    S = scores(1, 30, 100)
    soft, hard = run(S, rows=7, hard=True)
    assert soft.shape == (1, 7, 100)
    close(soft, S, 0.05, 3, rows=7)
    assert torch.equal(hard, soft.argmax(-1))


@pytest.mark.usefixtures("small_chip")
@pytest.mark.parametrize(
    "shape",
    [(1, 5, 600), (2, 17, 65), (2, 40, 65), pytest.param((1, 70, 600), marks=pytest.mark.slow(1))],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_more_prototypes_than_fit_on_chip(shape, masked):
    S = scores(*shape)
    keep = torch.arange(shape[1]).expand(shape[:2]) != 1 if masked else None
    soft, hard = run(S, hard=True, keep=keep, rows=4 if not masked else None)
    close(soft, S, 0.05, 3, keep=keep, rows=4 if not masked else None)
    kept = slice(None) if keep is None else keep
    assert torch.equal(hard[kept], soft.argmax(-1)[kept])


@pytest.mark.slow(1)
def test_a_row_longer_than_the_chip_in_earnest():
    S = scores(1, 2, 16500)
    close(run(S, n_iter=1)[0], S, 0.05, 1)


@pytest.mark.usefixtures("small_chip")
def test_a_sample_with_next_to_no_mass():
    S = scores(1, 6, 300)
    S[0, 2] -= 5
    S[0, 3] += 5
    soft, _ = run(S, eps=0.02)
    close(soft, S, 0.02, 3)


@pytest.mark.parametrize("eps", [0.01, 0.04])
def test_large_logits(eps):
    S = 30 * scores(1, 50, 70)
    soft, _ = run(S, eps=eps)
    close(soft, S, eps, 3)


@pytest.mark.slow(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_and_codes_in_16_bits(dtype):
    S = scores(1, 40, 90, dtype)
    soft, _ = run(S)
    close(soft, S, 0.05, 3)
    assert variation(run(S, soft=dtype)[0], soft) < (1e-2 if dtype == torch.bfloat16 else 1e-3)


def test_padding_does_not_count():
    S = scores(2, 40, 50)
    keep = torch.rand(2, 40, generator=torch.Generator().manual_seed(1)) < 0.6
    poisoned = torch.where(keep[:, :, None], S, 1e4)
    soft, hard = run(poisoned, keep=keep, hard=True)
    for b in range(2):
        alone, labels = run(S[b : b + 1, keep[b]], hard=True)
        torch.testing.assert_close(soft[b, keep[b]], alone[0])
        assert torch.equal(hard[b, keep[b]], labels[0])
    assert (soft[~keep] == 0).all()
    assert (hard[~keep] == -1).all()


@pytest.mark.slow(1)
def test_prototype_weights():
    S = scores(1, 60, 20)
    r = torch.rand(1, 20, generator=torch.Generator().manual_seed(2)) + 0.2
    r = r / r.sum()
    soft, _ = run(S, n_iter=40, r=r)
    close(soft, S, 0.05, 40, r=r)
    torch.testing.assert_close(soft.mean(1), r, rtol=0.2, atol=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 7, 39])
def test_what_is_no_number_is_seen(bad, at):
    """Wherever it stands among the samples: nothing finite comes out for it."""
    S = scores(1, 40, 50)
    S[0, at, 3] = bad
    soft, _ = run(S)
    assert not soft[0, at].isfinite().any()
    assert not soft[0, :, 3].isfinite().any()


@pytest.mark.parametrize("masked", [False, True])
def test_first_sums_keep_the_largest_and_the_smallest(masked):
    """Columns that rise, that fall, and that only samples that do not count reach."""
    S = torch.linspace(-6, 6, 40)[:, None] * torch.tensor([1.0, -1.0, 0.0, 1e-3])
    keep = torch.arange(40)[None] % 3 != 0 if masked else None
    soft, _ = run(S[None], eps=0.1, keep=keep)
    close(soft, S[None], 0.1, 3, keep=keep)


def test_scores_are_not_changed_and_strides_do_not_matter():
    S = scores(1, 40, 50)
    copy = S.clone()
    soft, hard = run(S, hard=True)
    other, same = run(S.mT.contiguous().mT, hard=True)
    assert torch.equal(S, copy)
    assert variation(soft, other) < 1e-6
    assert torch.equal(hard, same)


def test_the_first_of_equal_scores_is_the_label():
    S = torch.zeros(1, 4, 100)
    _, hard = run(S, hard=True, soft=None)
    assert (hard == 0).all()


def test_steps_on_parts_of_the_samples_make_the_whole():
    """What an all-reduce has to join: log-sums once, then plain sums."""
    S, r, inv_eps = scores(1, 40, 30), torch.full((1, 30), 1 / 30), torch.tensor([20.0])
    parts = S[:, :15], S[:, 15:]
    ones = [torch.ones(p.shape[:2]) for p in parts]
    log_sums = [log_sum_columns(p, torch.zeros(p.shape[:2]), -inv_eps) for p in parts]
    f = r.log() - torch.logaddexp(*log_sums)
    g = [None, None]
    for _ in range(2):
        swept = [
            dense_sweep.sweep(p, g_p, f, a, -inv_eps)
            for p, g_p, a in zip(parts, g, ones, strict=True)
        ]
        g = [g_p for g_p, _ in swept]
        f = f + (r / sum(s for _, s in swept)).log()
    soft = torch.cat([codes.write(p, f / math.log(2), inv_eps)[0] for p in parts], 1)
    close(soft, S, 0.05, 3)
