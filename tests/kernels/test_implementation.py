"""The kernels behind the primitive's protocol, in the interpreter where there is no GPU."""

import math
from dataclasses import replace

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.problem import PointCloud, Problem, make
from sinkhorn_ot.solvers import automatic
from sinkhorn_ot.solvers.automatic import Limits
from sinkhorn_ot.solvers.presolve import Posed
from sinkhorn_ot.solvers.sinkhorn import Sinkhorn
from sinkhorn_ot.solvers.steps import fixed
from sinkhorn_ot.sweeps.protocol import Sweep, Whole
from sinkhorn_ot.sweeps.reference import Reference


gpu = pytest.importorskip("sinkhorn_ot.sweeps.gpu", reason="triton is not installed")
dense_sweep = pytest.importorskip("sinkhorn_ot.kernels.dense_sweep")


BOTH = pytest.mark.parametrize("work", [torch.float32, torch.float64])


def single(p: Problem, work: torch.dtype = torch.float32) -> Problem:
    """The problem as a GPU would see it: weights and potentials in the dtype of the work."""
    return replace(p, a=p.a.to(work), b=p.b.to(work), reg=p.reg.to(work))


def problems(unbalanced: object = None) -> dict[str, Problem]:
    torch.manual_seed(0)
    a, b = torch.rand(2, 17).softmax(-1), torch.rand(2, 33).softmax(-1)
    a[0, 3], b[1, 5] = 0, 0
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    x, y = torch.randn(2, 17, 3), torch.randn(2, 33, 3)
    costs = {"own": torch.rand(2, 17, 33), "shared": torch.rand(17, 33), "cloud": PointCloud(x, y)}
    costs["distances"] = PointCloud(x, y, "euclidean")
    costs["blocks"] = PointCloud(x, y, "manhattan", scale=[1.0, 0.5, 2.0])
    return {k: make(c, a, b, 0.3, unbalanced) for k, c in costs.items()}


@pytest.mark.parametrize("unbalanced", [None, (0.5, 0.7), (None, 0)])
@pytest.mark.parametrize("name", ["own", "shared", "cloud", "distances", "blocks"])
@BOTH
def test_sweep_means_what_the_reference_means(
    name: str, unbalanced: object, work: torch.dtype
) -> None:
    p = problems(unbalanced)[name]
    assert gpu.serves(single(p, work))
    truth, ours = Reference(p), gpu.kernels(single(p, work))
    v = p.b.log() + 0.1 * torch.randn(p.b.shape, dtype=torch.float64)
    u, log_s = truth.sweep(None, v)
    got_u, got_s = ours.sweep(None, v.to(work))
    again_u, again_s = ours.sweep(got_u, v.to(work))
    digits = 2e-5 if work == torch.float32 else 2e-13
    for got, want in ((got_u, u), (got_s, log_s), (again_u, u), (again_s, log_s)):
        assert got.dtype == work
        assert torch.equal(got.isinf(), want.isinf())
        torch.testing.assert_close(got.double(), want, atol=digits, rtol=digits)


@pytest.mark.parametrize("unbalanced", [None, (0.5, 0.7)])
@pytest.mark.parametrize("name", ["cloud", "distances"])
@BOTH
def test_fixed_sweeps_of_clouds_are_the_references(
    name: str, unbalanced: object, work: torch.dtype
) -> None:
    p = problems(unbalanced)[name]
    digits = 2e-5 if work == torch.float32 else 1e-12
    for n_iter in (1, 4):
        want, got = (fixed(s, n_iter) for s in (Reference(p), gpu.kernels(single(p, work))))
        for ours, truth in ((got.u, want.u), (got.v, want.v)):
            assert torch.equal(ours.isinf(), truth.isinf())
            torch.testing.assert_close(ours.double(), truth, atol=digits, rtol=digits)


@pytest.mark.parametrize("name", ["own", "shared", "cloud"])
@BOTH
def test_passes_mean_what_the_reference_means(name: str, work: torch.dtype) -> None:
    p = problems()[name]
    truth, ours = Reference(p), gpu.kernels(single(p, work))
    v = p.b.log()
    u, _ = truth.sweep(None, v)
    x, y = torch.randn(2, 33, 4).double(), torch.randn(2, 17, 1).double()
    pairs = [
        (lambda s, c: s.log_sum_rows(c(v)), 1e-5),
        (lambda s, c: s.log_sum_columns(c(u)), 1e-5),
        (lambda s, c: s.apply(c(u), c(v), c(x)), 1e-4),
        (lambda s, c: s.apply(c(u), c(v), c(y), transpose=True), 1e-4),
        (lambda s, c: s.linear(c(u), c(v)), 1e-5),
        (lambda s, c: s.curve(c(u), c(v)), 1e-4),
        (lambda s, c: s.curve_product(c(u), c(v))(c(x)[:, :, 0]), 1e-4),
    ]
    for act, atol in pairs:
        got = act(ours, lambda t: t.to(work))
        assert got.dtype == work
        atol, rtol = (atol, 1e-4) if work == torch.float32 else (1e-13, 1e-12)
        torch.testing.assert_close(got.double(), act(truth, lambda t: t), atol=atol, rtol=rtol)


@pytest.mark.parametrize(
    "name", ["own", "shared", pytest.param("cloud", marks=pytest.mark.slow(2))]
)
@pytest.mark.slow(3)
@pytest.mark.parametrize(("work", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_the_loop_solves_on_kernels(name: str, work: torch.dtype, tol: float) -> None:
    p = problems()[name]
    sweep: Sweep = gpu.kernels(single(p, work))
    found = Sinkhorn(check_every=3)(sweep, tol=tol, max_iter=200)
    mass = Reference(p).apply(found.u.double(), found.v.double(), torch.ones_like(p.b)[..., None])
    assert all(s.name == "CONVERGED" for s in found.status)
    assert ((mass[..., 0] - p.a).abs().sum(-1) < tol).all()


def test_underflowed_columns_are_summed_again() -> None:
    C = torch.tensor([[0.0, 200.0], [0.0, 200.0]])
    p = make(C, reg=1.0)
    _, log_s = gpu.kernels(single(p)).sweep(None, p.b.log().float())
    truth = Reference(p).sweep(None, p.b.log())[1]
    assert math.isfinite(log_s[0, 1])
    torch.testing.assert_close(log_s.double(), truth, atol=1e-4, rtol=1e-6)


@BOTH
def test_small_problems_are_swept_whole(monkeypatch: pytest.MonkeyPatch, work: torch.dtype) -> None:
    p = problems()["own"]
    truth = fixed(Reference(p), 5)
    sweep = gpu.kernels(single(p, work))
    # one launch and no other
    monkeypatch.setattr(sweep, "sweep", None)
    found = fixed(sweep, 5)
    assert (found.n_iter == 5).all()
    for got, want in ((found.u, truth.u), (found.v, truth.v)):
        assert torch.equal(got.isinf(), want.isinf())
        torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["large", "relaxed"])
def test_other_problems_are_not(name: str) -> None:
    p = {
        "large": make(torch.rand(3, 129), reg=0.3),
        "relaxed": problems((0.5, None))["own"],
    }[name]
    sweep = gpu.kernels(single(p))
    assert isinstance(sweep, Whole)
    assert sweep.whole(5, 1e-3) is None
    assert (sweep.fixed(5) is None) == (name == "relaxed")
    assert not isinstance(gpu.kernels(single(problems()["cloud"])), Whole)


@pytest.mark.slow(2)
@pytest.mark.parametrize("reg", [0.3, 0.01])
def test_small_problems_come_to_a_tolerance_in_one_launch(
    reg: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives is not swept again; what does not is left to the loop, at sharper reg."""
    torch.manual_seed(0)
    C = torch.rand(3, 9, 7)
    C[1] *= 5
    regs = torch.tensor([0.3, reg, 0.3])
    want = so.solve(C.double(), reg=regs.double(), tol=1e-9).plan
    p = single(make(C, reg=regs))
    sweep = gpu.kernels(p)
    monkeypatch.setattr(automatic, "choose", lambda *_: sweep)
    # on a GPU nothing is solved in NumPy, nor alone
    monkeypatch.setattr(automatic, "_whole", lambda _: True)
    monkeypatch.setattr(automatic, "_in_numpy", lambda *_: None)
    rest: list[int] = []
    by = automatic._by

    def seen(solver, left, *rules):
        rest.append(len(left.problem.a))
        return by(solver, left, *rules)

    monkeypatch.setattr(automatic, "_by", seen)
    found, handed, name = automatic.run(
        Posed(p, None, None, False), None, Limits(1e-4, 1000, None), alone=True
    )
    assert rest == ([] if reg == 0.3 else [1])
    assert handed is sweep
    assert [s.name for s in found.status] == ["CONVERGED"] * 3
    assert name == "plain"
    P = (found.u[:, :, None] + found.v[:, None, :] - C / regs[:, None, None]).exp()
    torch.testing.assert_close(P.double(), want, atol=2e-4, rtol=0)


@pytest.mark.parametrize("unbalanced", [(1.0, 1.0), (0.5, 0), (0, 0.5), (None, 1.0), (1.0, None)])
@pytest.mark.parametrize("short", [False, pytest.param(True, marks=pytest.mark.slow(1))])
def test_rows_and_columns_that_no_pair_allows(
    unbalanced: tuple[float | None, float | None], short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has looked at the cost: kernels keep such points at -inf, as the reference does."""
    if short:
        monkeypatch.setattr(dense_sweep, "row_tile", lambda *_: None)
    torch.manual_seed(0)
    C = torch.rand(2, 9, 14)
    if unbalanced[0] is not None:
        C[0, 4] = math.inf
    if unbalanced[1] is not None:
        C[1, :, 3] = math.inf
    p = make(C, reg=0.3, unbalanced=unbalanced, values=False)
    truth, ours = fixed(Reference(p), 8), fixed(gpu.kernels(single(p)), 8)
    for got, want in ((ours.u, truth.u), (ours.v, truth.v)):
        assert torch.equal(got == -math.inf, want == -math.inf)
        assert not (got == math.inf).any()
        torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("offset", [-30.0, 30.0])
@pytest.mark.parametrize("unbalanced", [(1.0, 1.0), (0.1, 1.0)])
def test_relaxed_masses_out_of_range_are_summed_again(
    unbalanced: tuple[float, float], offset: float
) -> None:
    p = make(torch.rand(5, 8) + offset, reg=0.1, unbalanced=unbalanced)
    v = p.b.log()
    u, log_s = Reference(p).sweep(None, v)
    got_u, got_s = gpu.kernels(single(p)).sweep(None, v.float())
    torch.testing.assert_close(got_u.double(), u, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(got_s.double(), log_s, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_scores_in_one_tensor_are_swept_as_they_are_stored(dtype, monkeypatch):
    """SeLa's log-probabilities: no copy in another dtype, and the labels of the portable code."""
    from sinkhorn_ot.adapters.sela import solving

    S = torch.log_softmax(2 * torch.randn(200, 9), -1).to(dtype)
    want = so.sela_labels(S, tol=1e-5)
    swept = []

    def choose(p: Problem, tol: float) -> Sweep:
        swept.append(gpu.kernels(single(p)))
        return swept[-1]

    monkeypatch.setattr(solving, "choose", choose)
    found = so.sela_labels(S, tol=1e-5)
    assert bool(found.converged)
    assert (found.labels == want.labels).double().mean() > 0.99
    assert isinstance(swept[-1], gpu.DenseKernels)
    assert swept[-1]._C.data_ptr() == S.data_ptr()
    u, v = torch.zeros(1, 200), torch.zeros(1, 9)
    total = (S.double() * (25 * S.double()).exp()).sum()
    torch.testing.assert_close(swept[-1].linear(u, v).double()[0], -total, rtol=1e-4, atol=0)
