import pytest
import torch

from sinkhorn_ot.kernels import configs, dense_sweep
from sinkhorn_ot.kernels.dense_sweep import sweep


@pytest.fixture
def short_chip(monkeypatch):
    """Pretend that rows of more than 3000 entries do not fit on chip.

    The interpreter takes its time for every tile, and rows that really do not fit are 33 of them.
    Of 3100 entries there are 7, by two programs whose parts are added up.
    """

    def row_tile(m, axis, itemsize):
        return configs.row_tile(m, axis, itemsize) if m <= 3000 else None

    monkeypatch.setattr(dense_sweep, "row_tile", row_tile)


BOTH = pytest.mark.parametrize("work", [torch.float32, torch.float64])
SHAPES = [(1, 1), (1, 17), (17, 1), (17, 65), (130, 257), (5, 1100), (7, 3000), (300, 6)]


def run(p, **options):
    """Sweep, for sums and for their logarithms."""
    u = None if options.get("first") else p.u
    moved, s = sweep(p.C, u, p.v, p.a, p.inv_reg, **options)
    if not options.keys() & {"done", "out", "move"}:
        again, log_s = sweep(p.C, u, p.v, p.a, p.inv_reg, log=True, **options)
        torch.testing.assert_close(again, moved, rtol=0, atol=0, equal_nan=True)
        # the error of a logarithm is relative to what it is of, and to itself
        eps = torch.finfo(s.dtype).eps
        off = 8 * eps * (1 + log_s.abs().nan_to_num(posinf=0.0))
        found = log_s.exp()
        same = (found == s) | (found.isnan() & s.isnan())
        assert bool((same | ((found - s).abs() <= off * s)).all())
    return moved, s


def verify(p, got, within_budget, kappa=None):
    truth, eager = p.exact_sweep(kappa), p.to(p.v.dtype).sweep(kappa)
    assert got[0].dtype == got[1].dtype == p.v.dtype
    for name, g, e, t in zip(("u", "s"), got, eager, truth, strict=True):
        within_budget(g, e, t, name)


@BOTH
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sweep_is_the_reference(dense, within_budget, shape, first):
    p = dense(*shape)
    verify(p, run(p, first=first), within_budget)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_storage_in_fewer_bits(dense, within_budget, dtype):
    p = dense(19, 600, dtype=dtype)
    verify(p, run(p), within_budget)


@pytest.mark.parametrize(
    "shape", [(37, 45), pytest.param((130, 257), marks=pytest.mark.slow(1)), (11, 1000)], ids=str
)
@pytest.mark.parametrize("how", ["transposed", "sliced", "padded", "neither"])
def test_any_strides(dense, within_budget, shape, how):
    p = dense(*shape, B=2, shared=False)
    n, m = shape
    C = p.C
    if how == "transposed":
        p.C = C.mT.contiguous().mT
    elif how == "sliced":
        p.C = torch.rand(2, n, m + 3)[:, :, 2:-1].copy_(C)
    elif how == "padded":
        p.C = torch.rand(2, n + 1, 4 * m)[:, 1:, :m].copy_(C)
    else:
        p.C = torch.rand(2, n, 3 * m)[:, :, ::3].copy_(C)
    assert torch.equal(p.C, C)
    verify(p, run(p), within_budget)


@BOTH
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch(dense, within_budget, shared):
    p = dense(33, 70, B=3, shared=shared)
    p.inv_reg = torch.tensor([3.0, 10.0, 30.0], dtype=p.v.dtype)
    verify(p, run(p, first=True), within_budget)


@BOTH
@pytest.mark.usefixtures("short_chip")
@pytest.mark.parametrize("kappa", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", [(40, 50), (3, 3100)], ids=str)
def test_relaxed_rows(dense, within_budget, kappa, first, shape):
    p = dense(*shape)
    p.a[0, 1] = 0
    kappa = torch.tensor([kappa], dtype=p.v.dtype)
    verify(p, run(p, first=first, kappa=kappa), within_budget, kappa)


@BOTH
@pytest.mark.usefixtures("short_chip")
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", [(40, 50), (5, 3100), (9, 3000)], ids=str)
def test_zero_weights_and_forbidden_pairs(dense, within_budget, first, shape):
    p = dense(*shape)
    p.a[0, ::3] = 0
    p.v[0, 1::4] = -torch.inf
    p.C[0, 1, : shape[1] // 2] = torch.inf
    p.u[p.a == 0] = -torch.inf
    u, s = run(p, first=first)
    verify(p, (u, s), within_budget)
    assert (u[p.a == 0] == -torch.inf).all()
    assert (s[0, 1::4] == 0).all()


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (17, 65), (5, 1100)], ids=str)
def test_large_potentials_and_rows_past_the_end(dense, within_budget, shape):
    p = dense(*shape)
    p.v += 200
    p.u -= 200
    verify(p, run(p), within_budget)


def test_all_rows_equal(dense, within_budget):
    p = dense(33, 100)
    p.C = p.C[:, :1].expand(1, 33, 100)
    p.a = torch.full((1, 33), 1 / 33)
    p.u[:] = p.u[0, 0]
    u, s = run(p)
    verify(p, (u, s), within_budget)
    assert (u == u[0, 0]).all()


@BOTH
@pytest.mark.parametrize("shape", [(40, 50), (9, 1600)], ids=str)
@pytest.mark.parametrize("off", [-300.0, 150.0, torch.inf, torch.nan])
def test_a_stale_potential_is_rescued(dense, within_budget, shape, off):
    p = dense(*shape)
    p.u[0, ::2] += off
    p.u[0, 1] = -torch.inf
    verify(p, run(p), within_budget)


@BOTH
@pytest.mark.parametrize("short", [False, True])
def test_columns_that_underflow_have_logarithms(dense, monkeypatch, work, short):
    monkeypatch.setattr(dense_sweep, "_SHORT", 8192 if short else 1)
    p = dense(40, 70, B=2, shared=False)
    p.C[:, :, 3::8] += 40
    p.v[1, 5] = -torch.inf
    p.inv_reg = p.inv_reg * 4
    u, log_s = sweep(p.C, p.u, p.v, p.a, p.inv_reg, log=True)
    want = torch.logsumexp(p.exponent().double() + u[:, :, None].double(), 1) + p.v.double()
    assert bool((want[:, 3] < -700).all())
    tol = 1e-5 if work == torch.float32 else 1e-12
    torch.testing.assert_close(log_s.double(), want, rtol=tol, atol=tol)


@BOTH
@pytest.mark.parametrize("first", [False, True])
def test_extreme_ranges(dense, within_budget, first):
    p = dense(40, 60, reg=1e-4)
    p.C *= 10
    verify(p, run(p, first=first), within_budget)


@BOTH
def test_a_row_without_a_partner_carries_nothing(dense):
    p = dense(20, 30)
    p.C[0, 4] = torch.inf
    for first in (False, True):
        u, s = run(p, first=first)
        assert u[0, 4] == -torch.inf
        assert s.isfinite().all()
        torch.testing.assert_close(s.sum(), p.a.sum() - p.a[0, 4])


@BOTH
@pytest.mark.usefixtures("short_chip")
@pytest.mark.parametrize("shape", [(130, 65), (8, 3100)], ids=str)
def test_two_runs_agree_to_the_bit(dense, shape):
    p = dense(*shape)
    for x, y in zip(run(p), run(p), strict=True):
        assert torch.equal(x, y)


@BOTH
@pytest.mark.usefixtures("short_chip")
@pytest.mark.parametrize("shape", [(9, 60), (9, 3100)], ids=str)
def test_a_problem_that_is_done_is_left_alone(dense, within_budget, shape):
    p, m = dense(*shape, B=2), shape[1]
    out = torch.full((2, 9), 7.0, dtype=p.v.dtype), torch.full((2, m), 7.0, dtype=p.v.dtype)
    got = run(p, done=torch.tensor([1, 0], dtype=torch.int32), out=out)
    assert got[0] is out[0]
    assert (out[0][0] == 7).all()
    assert (out[1][0] == 7).all()
    p.C, p.u, p.v, p.a, p.inv_reg = p.C, p.u[1:], p.v[1:], p.a[1:], p.inv_reg[1:]
    verify(p, (out[0][1:], out[1][1:]), within_budget)


def test_in_place(dense, within_budget):
    p = dense(50, 60)
    truth = p.to(torch.float64).sweep()
    eager = p.sweep()
    s = torch.empty(1, 60)
    run(p, out=(p.u, s))
    within_budget(p.u, eager[0], truth[0], "u")
    within_budget(s, eager[1], truth[1], "s")


@pytest.mark.slow(2)
@pytest.mark.parametrize("shape", [(17, 16385), (1, 40000), (9, 20000)], ids=str)
def test_rows_too_long_for_the_chip(dense, within_budget, shape):
    p = dense(*shape)
    verify(p, run(p), within_budget)


@BOTH
@pytest.mark.usefixtures("short_chip")
def test_rows_too_long_for_a_short_chip(dense, within_budget):
    p = dense(9, 3100)
    verify(p, run(p), within_budget)


@pytest.mark.slow(1)
def test_relaxed_rows_too_long_for_the_chip_in_earnest(dense, within_budget):
    p, kappa = dense(3, 17000), torch.tensor([0.3])
    p.a[0, 1] = 0
    verify(p, run(p, kappa=kappa), within_budget, kappa)


@BOTH
def test_nan_is_not_hidden(dense):
    p = dense(20, 30)
    p.C[0, 3, 5] = torch.nan
    u, s = run(p)
    assert u[0, 3].isnan()
    assert u.isnan().sum() == 1
    assert s.isnan().any()


@pytest.mark.parametrize("shape", [(37, 45), (5, 1100)], ids=str)
@pytest.mark.parametrize("work", [torch.float64])
def test_contiguous_columns_in_float64(dense, within_budget, shape):
    p = dense(*shape)
    p.C = p.C.mT.contiguous().mT
    verify(p, run(p), within_budget)


@pytest.mark.slow(1)
@pytest.mark.parametrize("work", [torch.float64])
@pytest.mark.parametrize("m", [6000, 8192, 8193])
def test_long_rows_in_float64(dense, within_budget, m):
    p = dense(5, m)
    verify(p, run(p), within_budget)


@pytest.fixture
def ragged(dense):
    """Return three problems of different sizes, with nan well beyond their pairs."""

    def make(n, m, how="rows"):
        p = dense(n, m, B=3, shared=False)
        p.inv_reg = torch.tensor([3.0, 10.0, 5.0], dtype=p.v.dtype)
        lengths = torch.tensor([[n, m], [1, max(1, m // 3)], [max(1, n // 2), 1]]).int()
        for k, (rows, columns) in enumerate(lengths.tolist()):
            p.C[k, rows + 15 :], p.C[k, :, columns + 15 :] = torch.nan, torch.nan
            p.a[k, rows:], p.v[k, columns:], p.u[k, rows:] = 0, -torch.inf, -torch.inf
        p.C = p.C.mT.contiguous().mT if how == "columns" else p.C
        return p, lengths

    return make


@pytest.mark.parametrize(
    ("shape", "how", "first", "relaxed", "work"),
    [
        ((33, 70), "rows", False, False, torch.float32),
        ((33, 70), "rows", True, True, torch.float64),
        ((7, 1100), "rows", False, False, torch.float64),
        ((40, 50), "columns", True, False, torch.float32),
        ((40, 50), "columns", False, True, torch.float32),
    ],
    ids=str,
)
def test_nothing_is_read_beyond_the_lengths(ragged, shape, how, first, relaxed):
    p, lengths = ragged(*shape, how)
    kappa, u = torch.full((3,), 0.7, dtype=p.v.dtype) if relaxed else None, None if first else p.u
    given = {"kappa": kappa, "first": first, "lengths": lengths}
    moved, s = sweep(p.C, u, p.v, p.a, p.inv_reg, **given)
    _, log_s = sweep(p.C, u, p.v, p.a, p.inv_reg, log=True, **given)
    for k, (rows, columns) in enumerate(lengths.tolist()):
        one = slice(k, k + 1)
        alone = sweep(
            p.C[one, :rows, :columns], None if first else p.u[one, :rows], p.v[one, :columns],
            p.a[one, :rows], p.inv_reg[one], kappa=None if kappa is None else kappa[one],
            first=first,
        )  # fmt: skip
        torch.testing.assert_close(moved[one, :rows], alone[0])
        torch.testing.assert_close(s[one, :columns], alone[1])
        torch.testing.assert_close(log_s[one, :columns].exp(), alone[1])
        assert bool((moved[k, rows:] == -torch.inf).all())
        assert bool((s[k, columns:] == 0).all())
        assert bool((log_s[k, columns:] == -torch.inf).all())


@pytest.mark.parametrize("work", [torch.float32])
def test_lengths_of_lost_columns(ragged):
    p, lengths = ragged(33, 70)
    # a column so far that its sum underflows is summed again, from its own rows alone
    p.C[0, :, 3] = 1e4
    _, log_s = sweep(p.C, p.u, p.v, p.a, p.inv_reg, log=True, lengths=lengths)
    _, known = sweep(p.C[:1], p.u[:1], p.v[:1], p.a[:1], p.inv_reg[:1], log=True)
    torch.testing.assert_close(log_s[0], known[0])
    assert bool(torch.isfinite(log_s[0]).all())
