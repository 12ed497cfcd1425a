import numpy as np
import pytest
import torch
from longer import Long, costs, long
from torch import Tensor

from sinkhorn_ot.kernels.apply import apply, linear
from sinkhorn_ot.kernels.clouds import place


# the interpreter takes its time
pytestmark = pytest.mark.slow(1)


METRICS = ("sqeuclidean", "euclidean", "manhattan", "dot", "cosine")


def clouds(n, m, d, B=1, work=torch.float32) -> tuple[Tensor, Tensor]:
    new = {"generator": torch.Generator().manual_seed(0), "dtype": work}
    x, y = torch.randn(B, n, d, **new), torch.randn(B, m, d, **new)
    return (2 * d) ** -0.5 * x, (2 * d) ** -0.5 * y


def ground(x, y, metric) -> Tensor:
    if metric == "sqeuclidean":
        return (x[:, :, None] - y[:, None]).square().sum(-1)
    if metric == "euclidean":
        return torch.linalg.vector_norm(x[:, :, None] - y[:, None], dim=-1)
    if metric == "manhattan":
        return torch.linalg.vector_norm(x[:, :, None] - y[:, None], 1, dim=-1)
    if metric == "dot":
        return -x @ y.mT
    return 1 - torch.nn.functional.cosine_similarity(x[:, :, None], y[:, None], dim=-1)


def potentials(n, m, B=1, low=-3.0, work=torch.float32) -> tuple[Tensor, Tensor]:
    new = {"generator": torch.Generator().manual_seed(1), "dtype": work}
    return torch.randn(B, n, **new) + low, torch.randn(B, m, **new) + low


def plan(C, u, v, inv_reg) -> Tensor:
    return (u[:, :, None] + v[:, None] - C * inv_reg[:, None, None]).exp()


def exact_plan(C, u, v, inv_reg) -> Long:
    u, v, inv_reg = long(u), long(v), long(inv_reg)
    return np.exp(u[:, :, None] + v[:, None] - C * inv_reg[:, None, None])


def verify(got: Tensor, eager: Tensor, P: Long, x: Tensor, reach: float) -> None:
    """Compare with what eager code in the same dtype makes of P @ x, relative to |P| @ |x|.

    Twice its error, a rounding of the largest exponent and four of the sum.
    """
    truth, size = P @ long(x), np.maximum(P @ abs(long(x)), 1e-300)
    assert got.dtype == eager.dtype
    assert got.shape == truth.shape
    allowed, spent = (np.max(abs(long(t) - truth) / size) for t in (eager, got))
    budget = 2 * allowed + (4 + reach) * torch.finfo(got.dtype).eps / 2
    # nan is not within
    assert spent <= budget, f"error {spent:.3g} over a budget of {budget:.3g}"


def verify_dense(C, u, v, x, inv_reg):
    eager = plan(C.to(u.dtype), u, v, inv_reg) @ x.to(u.dtype)
    reach = (C[C.isfinite()].abs().max() * inv_reg.max()).item()
    P = exact_plan(long(C), u, v, inv_reg)
    verify(apply(C, u, v, x, inv_reg), eager, P, x, reach)


def verify_clouds(x, y, metric, u, v, z, inv_reg, transpose=False):
    C = ground(x.to(u.dtype), y.to(u.dtype), metric)
    eager, P = plan(C, u, v, inv_reg), exact_plan(costs(x, y, metric), u, v, inv_reg)
    precision = "float64" if u.dtype == torch.float64 else "fp16x3"
    c = place(x, y, metric=metric, precision=precision)
    got = apply(c.swapped(), v, u, z, inv_reg) if transpose else apply(c, u, v, z, inv_reg)
    if transpose:
        eager, P = eager.mT, P.swapaxes(1, 2)
    verify(got, eager @ z.to(u.dtype), P, z, (C.abs().max() * inv_reg.max()).item())


@pytest.mark.parametrize("k", [1, 3, 5, 16, 70, 130, 300])
def test_a_stored_cost(k):
    C = torch.rand(1, 37, 90)
    verify_dense(C, *potentials(37, 90), torch.randn(1, 90, k), torch.tensor([10.0]))


@pytest.mark.parametrize("k", [2, 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (300, 6), (5, 1100)], ids=str)
def test_shapes_that_divide_nothing(shape, k):
    n, m = shape
    verify_dense(torch.rand(1, n, m), *potentials(n, m), torch.randn(1, m, k), torch.tensor([5.0]))


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("how", ["transposed", "sliced", "neither"])
def test_any_strides(how, k):
    C = torch.rand(2, 40, 60)
    if how == "transposed":
        C = C.mT.contiguous().mT
    elif how == "sliced":
        C = torch.rand(2, 40, 67)[:, :, 3:63]
    else:
        C = torch.rand(2, 40, 180)[:, :, ::3]
    x = torch.randn(2, 60, 2 * k)[..., ::2]
    verify_dense(C, *potentials(40, 60, B=2), x, torch.tensor([3.0, 10.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [2, 20])
def test_storage_in_16_bits(dtype, k):
    C, x = torch.rand(1, 30, 70).to(dtype), torch.randn(1, 70, k).to(dtype)
    verify_dense(C, *potentials(30, 70), x, torch.tensor([10.0]))


@pytest.mark.parametrize("k", [3, 20])
@pytest.mark.parametrize("shared", [(1, 1), (1, 3), (3, 1)])
def test_a_batch(shared, k):
    C, x = torch.rand(shared[0], 30, 40), torch.randn(shared[1], 40, k)
    verify_dense(C, *potentials(30, 40, B=3), x, torch.tensor([1.0, 3.0, 9.0]))


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize(
    "d",
    [
        1,
        pytest.param(3, marks=pytest.mark.slow(0.1)),
        17,
        pytest.param(100, marks=pytest.mark.slow(0.1)),
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_clouds(metric, d, k, transpose):
    x, y = clouds(37, 70, d)
    z = torch.randn(1, 37 if transpose else 70, k)
    verify_clouds(x, y, metric, *potentials(37, 70), z, torch.tensor([10.0]), transpose)


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("d", [2, 20])
def test_a_batch_of_clouds_one_shared(d, k):
    x, y = clouds(30, 40, d, B=3)
    regs = torch.tensor([1.0, 3.0, 9.0])
    verify_clouds(x[:1], y, "sqeuclidean", *potentials(30, 40, B=3), torch.randn(1, 40, k), regs)


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("d", [0, 2, 20])
def test_zero_weights_and_forbidden_pairs(d, k):
    u, v = potentials(30, 40)
    u[0, ::3], v[0, 1::4] = -torch.inf, -torch.inf
    z, inv_reg = torch.randn(1, 40, k), torch.tensor([10.0])
    if d:
        x, y = clouds(30, 40, d)
        verify_clouds(x, y, "sqeuclidean", u, v, z, inv_reg)
        got = apply(place(x, y, metric="sqeuclidean"), u, v, z, inv_reg)
    else:
        C = torch.rand(1, 30, 40)
        C[0, 1], C[0, 4, :20] = torch.inf, torch.inf
        verify_dense(C, u, v, z, inv_reg)
        got = apply(C, u, v, z, inv_reg)
        assert (got[0, 1] == 0).all()
    assert (got[0, ::3] == 0).all()


@pytest.mark.parametrize("k", [1, 20])
def test_tiny_plans_and_large_matrices(k):
    """Rows of 1e-30 next to rows of 1, columns of 1e8 next to columns of 1e-8."""
    u, v = potentials(30, 40)
    u[0, ::2] -= 60
    z = torch.randn(1, 40, k) * torch.logspace(-8, 8, k)
    verify_dense(torch.rand(1, 30, 40), u, v, z, torch.tensor([10.0]))


@pytest.mark.parametrize("d", [0, 2, 20])
def test_plan_times_one_is_its_marginal(d):
    u, v = potentials(50, 300)
    x, y = clouds(50, 300, max(d, 1))
    C = ground(x, y, "sqeuclidean")
    cost = place(x, y, metric="sqeuclidean") if d else C
    ones = torch.ones(1, 300, 20)
    got = apply(cost, u, v, ones, torch.tensor([10.0]))
    truth = plan(C.double(), u.double(), v.double(), torch.tensor([10.0]).double()).sum(-1)
    torch.testing.assert_close(got, truth[..., None].expand_as(got).float(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("metric", [None, *METRICS])
@pytest.mark.parametrize("d", [2, 20])
def test_what_the_plan_pays(metric, d):
    x, y = clouds(37, 150, d, B=2)
    u, v = potentials(37, 150, B=2)
    u[0, 3], v[1, 5] = -torch.inf, -torch.inf
    inv_reg = torch.tensor([3.0, 10.0])
    C = ground(x.double(), y.double(), metric or "sqeuclidean")
    P = plan(C, u.double(), v.double(), inv_reg.double())
    cost = place(x, y, metric=metric) if metric else C.float()
    got = linear(cost, u, v, inv_reg)
    assert got.shape == (2, 37)
    torch.testing.assert_close(got.double(), (P * C).sum(-1), rtol=4e-6, atol=1e-9)


def test_a_forbidden_pair_costs_nothing():
    C = torch.rand(1, 20, 30)
    C[0, 3], C[0, 5, 4] = torch.inf, torch.inf
    u, v = potentials(20, 30)
    got = linear(C, u, v, torch.tensor([10.0]))
    C = torch.where(C.isinf(), 0, C).double()
    P = plan(
        torch.where(C == 0, torch.inf, C), u.double(), v.double(), torch.tensor([10.0]).double()
    )
    torch.testing.assert_close(got.double(), (P * C).sum(-1), rtol=4e-6, atol=0)


@pytest.mark.slow(1)
@pytest.mark.parametrize("k", [2, 20])
def test_two_runs_agree_to_the_bit(k):
    C, x = torch.rand(1, 30, 2000), torch.randn(1, 2000, k)
    u, v = potentials(30, 2000)
    first, second = (apply(C, u, v, x, torch.tensor([10.0])) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("k", [1, 3, 5, 70, 130])
@pytest.mark.parametrize(
    ("shape", "dtype", "how"),
    [
        ((37, 90), torch.float64, "rows"),
        ((37, 90), torch.float64, "columns"),
        ((5, 300), torch.float32, "neither"),
        ((1, 70), torch.float64, "rows"),
        ((70, 1), torch.bfloat16, "rows"),
    ],
)
def test_a_stored_cost_in_float64(shape, dtype, how, k):
    n, m = shape
    C = torch.rand(2, n, 3 * m, dtype=torch.float64).to(dtype)
    C = C[..., ::3] if how == "neither" else C[..., :m]
    if how == "columns":
        C = C.mT.contiguous().mT
    if min(shape) > 1:
        C[0, 1], C[1, 2, : m // 2] = torch.inf, torch.inf
    u, v = potentials(n, m, B=2, work=torch.float64)
    u[0, ::3], v[1, 1::4] = -torch.inf, -torch.inf
    x = torch.randn(2, m, k, dtype=torch.float64)
    verify_dense(C, u, v, x, torch.tensor([10.0, 3.0], dtype=torch.float64))


def test_what_the_plan_pays_in_float64():
    C = torch.rand(1, 20, 150, dtype=torch.float64)
    C[0, 3], C[0, 5, 4] = torch.inf, torch.inf
    u, v = potentials(20, 150, work=torch.float64)
    inv_reg = torch.tensor([10.0], dtype=torch.float64)
    P = plan(C, u, v, inv_reg)
    want = torch.where(P > 0, P * C, 0.0).sum(-1)
    torch.testing.assert_close(linear(C, u, v, inv_reg), want, rtol=2e-14, atol=0)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("d", "k"), [(3, 2), (3, 20), (20, 1), (20, 5), (150, 5)])
@pytest.mark.parametrize("metric", METRICS)
def test_clouds_in_float64(metric, d, k, transpose):
    x, y = clouds(37, 50, d, work=torch.float64)
    z = torch.randn(1, 37 if transpose else 50, k, dtype=torch.float64)
    u, v = potentials(37, 50, work=torch.float64)
    v[0, 3] = -torch.inf
    inv_reg = torch.tensor([10.0], dtype=torch.float64)
    verify_clouds(x, y, metric, u, v, z, inv_reg, transpose)
