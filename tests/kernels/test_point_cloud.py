import dataclasses
import math

import numpy as np
import pytest
import torch
from longer import Long, costs, log_sum, long
from torch import Tensor

from sinkhorn_ot.kernels.clouds import place
from sinkhorn_ot.kernels.point_cloud import log_sum_rows, spans_for, sweep, tiles


# the interpreter takes its time
pytestmark = pytest.mark.slow(1)


@dataclasses.dataclass
class Points:
    """A batch of problems between clouds, and what eager code makes of it in any dtype."""

    x: Tensor
    y: Tensor
    u: Tensor
    v: Tensor
    a: Tensor
    inv_reg: Tensor
    metric: str = "sqeuclidean"

    def to(self, dtype: torch.dtype) -> "Points":
        tensors = (self.x, self.y, self.u, self.v, self.a, self.inv_reg)
        return Points(*(t.to(dtype) for t in tensors), self.metric)

    def cost(self) -> Tensor:
        if self.metric == "sqeuclidean":
            return (self.x[:, :, None] - self.y[:, None]).square().sum(-1)
        x, y = self.x, self.y
        if self.metric == "euclidean":
            return torch.linalg.vector_norm(x[:, :, None] - y[:, None], dim=-1)
        if self.metric == "manhattan":
            return torch.linalg.vector_norm(x[:, :, None] - y[:, None], 1, dim=-1)
        if self.metric == "dot":
            return -x @ y.mT
        return 1 - torch.nn.functional.cosine_similarity(x[:, :, None], y[:, None], dim=-1)

    def exponent(self) -> Tensor:
        return -self.cost() * self.inv_reg[:, None, None]

    def log_sum_rows(self) -> Tensor:
        return torch.logsumexp(self.exponent() + self.v[:, None], -1)

    def sweep(self, kappa: Tensor | None = None, log: bool = False) -> tuple[Tensor, Tensor]:
        log_sum = self.log_sum_rows()
        if kappa is not None:
            log_sum = torch.where(kappa[:, None] > 0, kappa[:, None] * log_sum, 0.0)
        u = torch.where(self.a > 0, self.a.log() - log_sum, -torch.inf)
        log_s = torch.logsumexp(self.exponent() + u[:, :, None], -2) + self.v
        return u, log_s if log else log_s.exp()

    def exact_sweep(self, kappa: Tensor | None = None) -> tuple[Long, Long]:
        """What `sweep` returns, column sums by their logarithm, with more digits than float64."""
        z = -costs(self.x, self.y, self.metric) * long(self.inv_reg)[:, None, None]
        a, v = long(self.a), long(self.v)
        sums = log_sum(z + v[:, None], -1)
        if kappa is not None:
            sums = np.where(long(kappa)[:, None] > 0, long(kappa)[:, None] * sums, 0)
        u = np.where(a > 0, np.log(a) - sums, -np.inf)
        return u, log_sum(z + u[:, :, None], -2) + v

    def place(self):
        precision = "float64" if self.v.dtype == torch.float64 else "fp16x3"
        return place(self.x, self.y, metric=self.metric, precision=precision)

    def run(self, **options) -> tuple[Tensor, Tensor]:
        u = None if options.get("first") else self.u
        return sweep(self.place(), u, self.v, self.a, self.inv_reg, **options)


def points(  # noqa: PLR0913
    n, m, d, *, B=1, shared=(False, False), metric="sqeuclidean", reg=0.1, off=0.0,
    work=torch.float32,
) -> Points:  # fmt: skip
    """Return clouds whose costs are about one, with a u that an earlier sweep might have left."""
    new = {"generator": torch.Generator().manual_seed(0), "dtype": work}
    scale = 1.0 if metric == "cosine" else (2 * d) ** -0.5
    x = scale * (torch.randn(1 if shared[0] else B, n, d, **new) + off)
    y = scale * (torch.randn(1 if shared[1] else B, m, d, **new) + off)
    a = torch.rand(B, n, **new) + 0.1
    v = torch.randn(B, m, **new) - math.log(m)
    a = a / a.sum(-1, keepdim=True)
    p = Points(x, y, a, v, a, torch.full((B,), 1 / reg, dtype=work), metric)
    p.u = p.to(work).sweep()[0] + 0.3 * torch.randn(B, n, **new)
    return p


def verify(p, got, kappa=None, log=False):
    """Compare a sweep with the reference; column sums by their logarithm."""
    truth, eager = p.exact_sweep(kappa), p.to(p.v.dtype).sweep(kappa, log=True)
    assert got[0].dtype == got[1].dtype == p.v.dtype
    got = got if log else (got[0], got[1].log())
    for name, g, e, t in zip(("u", "log s"), got, eager, truth, strict=True):
        within_budget(p, g, e, t, name)


def within_budget(p, got, eager, truth, what=""):
    """Allow twice the error of eager code, and 4 roundings of the largest exponent."""
    rounding = torch.finfo(got.dtype).eps / 2
    got, eager, truth = long(got), long(eager), long(truth)
    finite = np.isfinite(truth)
    assert np.array_equal(got[~finite], truth[~finite]), f"{what}: another infinity"
    assert np.isfinite(got[finite]).all(), f"{what}: not finite"
    spent = abs(got - truth)[finite].max()
    allowed = abs(eager - truth)[finite].max()
    reach = max(p.to(torch.float64).exponent().abs().max().item(), abs(truth[finite]).max())
    budget = 2 * allowed + 4 * rounding * reach
    assert spent <= budget, f"{what}: error {spent:.3g} over a budget of {budget:.3g}"


@pytest.mark.parametrize("d", [1, 2, 3, 17, 64, 100])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan", "dot", "cosine"])
def test_sweep_is_the_reference(metric, d):
    p = points(37, 90, d, metric=metric)
    verify(p, p.run())


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (300, 6), (130, 65)], ids=str)
def test_first_sweep_on_shapes_that_divide_nothing(shape, d):
    p = points(*shape, d)
    verify(p, p.run(first=True))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("d", [129, 200])
def test_points_too_long_for_the_chip(d, first):
    p = points(20, 70, d)
    verify(p, p.run(first=first))


@pytest.mark.slow(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("metric", ["sqeuclidean", "dot", "cosine"])
@pytest.mark.parametrize("d", [3, 20])
def test_other_dtypes(metric, dtype, d):
    p = points(30, 40, d, metric=metric, off=3.0)
    p.x, p.y = p.x.to(dtype), p.y.to(dtype)
    verify(p, p.run())


@pytest.mark.parametrize("d", [1, 3, 17, 64])
def test_clouds_ten_sigma_off_the_origin(d):
    p = points(40, 60, d, off=10.0, reg=0.02)
    verify(p, p.run())


def test_a_split_product_is_within_the_stated_bound():
    """Unit normal clouds ten sigma off the origin, d = 64, reg = 0.1: at most 7e-5 (nats)."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 300, 64, generator=g) + 10, torch.randn(1, 400, 64, generator=g) + 10
    clouds = place(x, y, metric="sqeuclidean")
    r, c = clouds.rows, clouds.columns
    x1, x2, y1, y2 = (t.double() for t in (r.points, r.rest, c.points, c.rest))
    got = (x1 @ y1.mT + x1 @ y2.mT + x2 @ y1.mT) * r.scale.double() * c.scale.double()
    centre = (x.mean(1) + y.mean(1)) / 2
    truth = 2 * (x - centre).double() @ (y - centre).double().mT
    assert (got - truth).abs().max() / 0.1 < 7e-5


def test_a_log_sum_is_within_the_stated_bound():
    """The same clouds through the kernel: the bound, and 4 roundings of the largest exponent."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 70, 64, generator=g) + 10, torch.randn(1, 90, 64, generator=g) + 10
    p = Points(x, y, x[..., 0], torch.zeros(1, 90), x[..., 0], torch.tensor([10.0]))
    truth = p.to(torch.float64).log_sum_rows()
    got = log_sum_rows(p.place(), p.v, p.inv_reg)
    assert (got - truth).abs().max() < 7e-5 + 4 * 2**-24 * truth.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_products_lose_nothing(dtype):
    x = torch.randn(1, 50, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    side = place(x, x, metric="dot").rows
    assert side.rest is None
    assert torch.equal(side.points[..., :20].double() * side.scale.double(), x.double())


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("first", [False, True])
def test_zero_weights(first, d):
    p = points(40, 50, d)
    p.a[0, ::3] = 0
    p.v[0, 1::4] = -torch.inf
    p.u[p.a == 0] = -torch.inf
    u, s = p.run(first=first)
    verify(p, (u, s))
    assert (u[p.a == 0] == -torch.inf).all()
    assert (s[0, 1::4] == 0).all()


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("off", [-300.0, 150.0, torch.inf, torch.nan])
def test_a_stale_potential_is_rescued(off, d):
    p = points(40, 50, d)
    p.u[0, ::2] += off
    p.u[0, 1] = -torch.inf
    verify(p, p.run())


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("first", [False, True])
def test_extreme_ranges(first, d):
    p = points(40, 60, d, reg=1e-4)
    p.y *= 30
    u, log_s = p.run(first=first, log=True)
    verify(p, (u, log_s), log=True)
    assert log_s.isfinite().all()
    assert log_s.min() < -1000, "this problem was meant to underflow"


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("shared", [(False, False), (True, False), (False, True), (True, True)])
def test_a_batch(shared, d):
    p = points(33, 40, d, B=3, shared=shared)
    p.inv_reg = torch.tensor([3.0, 10.0, 30.0])
    verify(p, p.run(first=True))


@pytest.mark.slow(1)
@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("first", [False, True])
def test_few_rows_split_the_columns(first, d):
    p = points(5, 400, d, B=2)
    p.u[0, 1] += 400
    verify(p, p.run(first=first))


@pytest.mark.parametrize("kappa", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("first", [False, True])
def test_relaxed_rows(kappa, first):
    p = points(40, 50, 3)
    p.a[0, 1] = 0
    kappa = torch.tensor([kappa])
    verify(p, p.run(first=first, kappa=kappa), kappa)


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("off", [None, 0.5, 500.0, -torch.inf])
def test_log_sums_with_and_without_a_guess(off, d):
    p = points(30, 70, d)
    p.v[0, 3] = -torch.inf
    truth, eager = p.to(torch.float64).log_sum_rows(), p.log_sum_rows()
    guess = None if off is None else eager + off
    within_budget(p, log_sum_rows(p.place(), p.v, p.inv_reg, guess=guess), eager, truth)


def test_nothing_to_sum():
    p = points(30, 40, 2)
    p.v[:] = -torch.inf
    assert (log_sum_rows(p.place(), p.v, p.inv_reg) == -torch.inf).all()


def test_equal_points_have_no_distance():
    p = points(20, 30, 3, reg=1e-5, off=100.0)
    p.y[:, :20] = p.x
    p.v[0, 20:] = -torch.inf
    # every row sees itself alone
    got = log_sum_rows(p.place(), p.v, p.inv_reg)
    torch.testing.assert_close(got, p.v[:, :20], rtol=1e-6, atol=0)


@pytest.mark.slow(1)
@pytest.mark.parametrize("d", [3, 20])
def test_two_runs_agree_to_the_bit(d):
    p = points(40, 300, d)
    for g, h in zip(p.run(), p.run(), strict=True):
        assert torch.equal(g, h)


@pytest.mark.parametrize("d", [2, 20])
def test_a_problem_that_is_done_is_left_alone(d):
    p = points(9, 200, d, B=2)
    out = (torch.full((2, 9), 7.0), torch.full((2, 200), 7.0))
    got = p.run(done=torch.tensor([1, 0], dtype=torch.int32), out=out)
    assert got[0] is out[0]
    assert (out[0][0] == 7).all()
    assert (out[1][0] == 7).all()
    rest = Points(*(t[1:] for t in (p.x, p.y, p.u, p.v, p.a, p.inv_reg)))
    verify(rest, (out[0][1:], out[1][1:]))


@pytest.mark.parametrize("m", [60, 300])
def test_in_place(m):
    p = points(50, m, 20)
    u, s = p.run(out=(p.u, torch.empty(1, m)))
    assert u is p.u
    verify(p, (u, s))


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_nan_is_not_hidden():
    p = points(20, 30, 2)
    p.v[0, 4] = torch.nan
    assert p.run()[0].isnan().all()


def test_spans_fill_the_device_and_no_more():
    assert spans_for(programs=10_000, columns=1000, slots=264) == 1
    assert spans_for(programs=264, columns=1000, slots=264) == 1
    assert spans_for(programs=1, columns=1000, slots=264) == 64
    assert spans_for(programs=1, columns=1, slots=264) == 1
    # one program too many would leave all slots but one idle for a whole turn
    assert spans_for(programs=265, columns=1000, slots=264) > 1


@pytest.mark.parametrize(("name", "value"), [("metric", "euclid"), ("precision", "half")])
def test_unknown_names_are_refused(name, value):
    options = {"metric": "dot", "precision": "fp16x3"} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
        place(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), **options)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("metric", "d"),
    [
        *((metric, d) for metric in ("sqeuclidean", "dot", "cosine") for d in (1, 3, 8, 64, 200)),
        ("euclidean", 3),
        ("euclidean", 20),
    ],
)
def test_float64_is_the_reference(metric, d, first):
    p = points(17, 70, d, metric=metric, work=torch.float64, B=2)
    p.a[0, 3], p.v[1, 5] = 0, -torch.inf
    verify(p, p.run(first=first))


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (5, 400)], ids=str)
def test_float64_on_awkward_shapes(shape, d):
    p = points(*shape, d, work=torch.float64)
    # rescued
    p.u[0, 0] += 400
    verify(p, p.run())
    x, y = p.x, p.y
    p.x, p.y = (torch.stack([t, t], -1)[..., 0] for t in (x, y))
    verify(p, p.run())


@pytest.mark.parametrize("kappa", [0.0, 0.3])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_relaxed_rows_in_float64(metric, kappa):
    p, kappa = points(40, 50, 3, metric=metric, work=torch.float64), torch.tensor([kappa]).double()
    verify(p, p.run(kappa=kappa), kappa)


def test_points_in_float32_under_potentials_in_float64():
    p = points(20, 30, 3, work=torch.float64)
    p.x, p.y = p.x.float(), p.y.float()
    verify(p, p.run())


@pytest.mark.parametrize("work", [torch.float32, torch.float64])
def test_equal_points_are_at_no_distance(work):
    p = points(20, 30, 20, reg=1e-5, off=100.0, metric="euclidean", work=work)
    p.y[:, :20] = p.x
    p.v[0, 20:] = -torch.inf
    got = log_sum_rows(p.place(), p.v, p.inv_reg)
    torch.testing.assert_close(got, p.v[:, :20], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("shape", "d", "first", "work"),
    [((260, 60), 2, False, torch.float32), ((40, 70), 20, True, torch.float64)],
    ids=str,
)
def test_what_is_beyond_the_lengths_is_not_met(shape, d, first, work):
    p = points(*shape, d, B=2, metric="dot", work=work)
    lengths = torch.tensor([shape, (9, 5)]).int()
    p.a[1, 9:], p.v[1, 5:], p.u[1, 9:] = 0, -torch.inf, -torch.inf
    known = p.run(first=first, log=True)
    clouds, u = p.place(), None if first else p.u
    # the rest of a block is met with those that are there
    BM = tiles(clouds, p.x.device).BM
    p.x[1, BM:], p.y[1, BM:] = torch.nan, torch.nan
    clouds = p.place().ended(lengths)
    got = sweep(clouds, u, p.v, p.a, p.inv_reg, first=first, log=True)
    for mine, other in zip(got, known, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    # a block beyond its end has no mass either
    _, s = sweep(clouds.swapped(), None, got[0], p.v.exp(), p.inv_reg, first=True)
    assert bool((s[1, 9:] == 0).all())
