"""First derivatives of everything a result tells, beside central differences in float64."""

import math

import pytest
import torch

import sinkhorn_ot as so


D = torch.float64
N, M, DIM = 5, 4, 2


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def _weights(size, zero=None, seed=0):
    w = _random(size, seed=seed).abs() + 0.1
    if zero is not None:
        w[zero] = 0
    return w / w.sum()


def _forbidding(*pairs):
    C = COST.clone()
    for pair in pairs:
        C[pair] = math.inf
    return C


COST = _random(N, M, seed=1).abs()
X, Y = _random(N, DIM, seed=2), _random(M, DIM, seed=3) + 0.3
A, B = _weights(N, seed=4), _weights(M, seed=5)
A0, B0 = _weights(N, 2, seed=4), _weights(M, 1, seed=5)
REG, RHO = torch.tensor(0.3, dtype=D), torch.tensor(0.7, dtype=D)
W, WF, WG = _random(N, M, seed=6), _random(N, seed=7), _random(M, seed=8)
OUT, ON = _random(M, 2, seed=9), _random(N, 2, seed=10)

TELLS = {
    "value": lambda r: r.value,
    "dual_value": lambda r: r.dual_value,
    "value_linear": lambda r: r.value_linear,
    "plan": lambda r: (r.plan * W).sum(),
    "log_plan": lambda r: (r.log_plan.masked_fill(r.log_plan.isinf(), 0.0) * W).sum(),
    "f": lambda r: (r.f * WF).sum(),
    "g": lambda r: (r.g * WG).sum(),
    "apply": lambda r: (r.apply(OUT) * ON).sum(),
    "apply_transpose": lambda r: (r.apply_transpose(ON) * OUT).sum(),
    "barycentric": lambda r: (r.barycentric(OUT) * ON).sum(),
}


def _solve(cost, a, b, reg, **options):
    return so.solve(cost, a, b, reg, tol=1e-13, on_fail="ignore", **options)


def _exact(C, a, b, reg):
    return _solve(C, a, b * (a.sum() / b.sum()), reg)


def _relaxed(C, a, b, reg, rho):
    return _solve(C, a, b, reg, unbalanced=rho)


def _rows_relaxed(C, a, b, reg, rho):
    return _solve(C, a, b, reg, unbalanced=(rho, None))


def _columns_relaxed(C, a, b, reg, rho):
    return _solve(C, a, b, reg, unbalanced=(None, rho))


def _rows_free(C, a, b, reg, rho):
    return _solve(C, a, b, reg, unbalanced=(0.0, rho))


def _columns_free(C, a, b, reg):
    return _solve(C, a, b, reg, unbalanced=(None, 0.0))


def _points(metric, solve):
    return lambda x, y, *rest: solve(so.PointCloud(x, y, metric), *rest)


def _on_the_fly(solve):
    return lambda x, y, *rest: solve(so.PointCloud(x, y, memory=0), *rest)


SOME = _forbidding((0, 0), (1, 2), (3, 3))
SOFT = (A, 1.3 * B, REG, RHO)
SOFT0 = (A0, 1.3 * B0, REG, RHO)
PROBLEMS = {
    "exact": (_exact, (COST, A, B, REG)),
    "exact, zero weights": (_exact, (COST, A0, B0, REG)),
    "exact, forbidden pairs": (_exact, (SOME, A, B, REG)),
    "exact, both": (_exact, (SOME, A0, B0, REG)),
    "exact, far from zero": (_exact, (COST + 1000, A, B, REG)),
    "relaxed": (_relaxed, (COST, *SOFT)),
    "relaxed, both": (_relaxed, (SOME, *SOFT0)),
    "relaxed, a row alone": (_relaxed, (_forbidding((4, slice(None))), *SOFT)),
    "relaxed, a column alone": (_relaxed, (_forbidding((slice(None), 3)), *SOFT)),
    "rows relaxed": (_rows_relaxed, (COST, *SOFT)),
    "rows relaxed, zero weights": (_rows_relaxed, (COST, *SOFT0)),
    "columns relaxed": (_columns_relaxed, (COST, *SOFT)),
    "columns relaxed, both": (_columns_relaxed, (SOME, *SOFT0)),
    "columns relaxed, one alone": (_columns_relaxed, (_forbidding((slice(None), 3)), *SOFT)),
    "rows free": (_rows_free, (COST, *SOFT)),
    "rows free, zero weights": (_rows_free, (COST, *SOFT0)),
    "columns free": (_columns_free, (COST, A, 1.3 * B, REG)),
    "columns free, both": (_columns_free, (SOME, A0, 1.3 * B0, REG)),
    "points": (_points("sqeuclidean", _exact), (X, Y, A, B, 3 * REG)),
    "points, zero weights": (_points("sqeuclidean", _relaxed), (X, Y, *SOFT0)),
    "points, distance": (_points("euclidean", _exact), (X, Y, A0, B0, REG)),
    "points, product": (_points("dot", _relaxed), (X, Y, *SOFT)),
    "points, angle": (_points("cosine", _exact), (X, Y, A, B, REG)),
    "points on the fly": (_on_the_fly(_exact), (X, Y, A0, B0, 3 * REG)),
    "points on the fly, relaxed": (_on_the_fly(_relaxed), (X, Y, *SOFT)),
}
# a point without weight has no logarithm
NO_LOG = {name for name, (_, args) in PROBLEMS.items() if any((t == 0).any() for t in args)}


def _told(call, tells, args):
    """Return the numbers that tell of a result, one after the other."""
    r = call(*args)
    return torch.stack([tell(r) for tell in tells])


def differences(call, tells, args, k, step=1e-5):
    """Return central differences of numbers by argument k; one-sided ones at weights of zero."""
    t = args[k]
    out = torch.zeros(len(tells), t.numel(), dtype=D)
    for i in range(t.numel()):
        at = float(t.reshape(-1)[i])

        def moved(by, i=i):
            new = t.clone()
            new.view(-1)[i] += by
            return _told(call, tells, (*args[:k], new, *args[k + 1 :]))

        if at == 0:
            out[:, i] = (-3 * moved(0.0) + 4 * moved(step) - moved(2 * step)) / (2 * step)
        elif at < math.inf:
            out[:, i] = (moved(step) - moved(-step)) / (2 * step)
    return out.reshape(-1, *t.shape)


def compare(call, tells, args, atol):
    """Require derivatives of numbers by every argument to be their differences.

    Args:
        call: What returns a result.
        tells: The numbers, and how far their derivatives may be off, relative to the largest.
        args: The arguments.
        atol: How much of a difference is rounding.
    """
    names, (acts, rtols) = list(tells), zip(*tells.values(), strict=True)
    wanted = [differences(call, acts, args, k) for k in range(len(args))]
    for name, act, rtol, *want in zip(names, acts, rtols, *wanted, strict=True):
        leaves = [t.clone().requires_grad_() for t in args]
        # a number that depends on nothing has no derivative
        found = torch.autograd.grad(
            act(call(*leaves)), leaves, allow_unused=True, materialize_grads=True
        )
        for k, (grad, difference) in enumerate(zip(found, want, strict=True)):
            allowed = rtol * float(difference.abs().max()) + atol
            off = float((grad - difference).abs().max())
            assert off <= allowed, f"{name} by argument {k}: off by {off:.2g} of {allowed:.2g}"


def _allowed(tells):
    return {name: (act, 1e-6 if "value" in name else 1e-5) for name, act in tells.items()}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_derivatives_are_differences(problem):
    solve, args = PROBLEMS[problem]
    tells = dict(TELLS)
    if problem in NO_LOG or "alone" in problem:
        del tells["log_plan"]
    # differences of large numbers are rounded
    compare(solve, _allowed(tells), args, 1e-5 if "far" in problem else 1e-8)


BATCH = _random(3, N, M, seed=11).abs()
MANY_A, MANY_B = _random(3, N, seed=12).abs() + 0.1, _random(2, 1, M, seed=13).abs() + 0.1
REGS = torch.tensor([0.2, 0.3, 0.5], dtype=D)
WV, WP = _random(2, 3, seed=14), _random(2, 3, N, M, seed=15)
BATCHES = {
    "own costs": (lambda C: C, (BATCH,), REGS),
    "a shared cost": (lambda C: C, (COST,), REGS),
    "a shared cost and reg": (lambda C: C, (COST,), REG),
    "shared points": (so.PointCloud, (X, Y), 2 * REGS),
    "shared targets": (so.PointCloud, (_random(3, N, DIM, seed=16), Y), 3 * REGS),
    "shared points at distances": (lambda *t: so.PointCloud(*t, "euclidean"), (X, Y), REGS),
}
OF_BATCH = {
    "value": lambda r: (r.value * WV).sum(),
    "value_linear": lambda r: (r.value_linear * WV).sum(),
    "plan": lambda r: (r.plan * WP).sum(),
    "g": lambda r: (r.g * WP.sum(-2)).sum(),
    "apply": lambda r: r.apply(OUT).square().sum(),
    "barycentric": lambda r: (r.barycentric(OUT) ** 2 * WV[..., None, None]).sum(),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("soft", [False, True])
def test_derivatives_of_batches_are_differences(batch, soft):
    make, costs, reg = BATCHES[batch]

    def call(*t):
        *cost, a, b, reg = t
        a, b = (a, b) if soft else (w / w.sum(-1, keepdim=True) for w in (a, b))
        return _solve(make(*cost), a, b, reg, unbalanced=1.0 if soft else None)

    compare(call, _allowed(OF_BATCH), (*costs, MANY_A, MANY_B, reg), 1e-6)


@pytest.mark.parametrize("tell", ["value", "plan", "f", "g", "apply", "barycentric"])
@pytest.mark.parametrize("soft", [None, 0.7])
def test_held_pairs_or_not_is_the_same(tell, soft):
    """Whether pairs are held or formed at each pass changes memory and no derivative."""
    grads = []
    for memory in (0, 1 << 30):
        x, y, a = (t.clone().requires_grad_() for t in (X, Y, A0))
        cost = so.PointCloud(x, y, memory=memory)
        out = TELLS[tell](_solve(cost, a, B0, 0.7, unbalanced=soft))
        grads.append(torch.autograd.grad(out, (x, y, a)))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("n", [40, 150, 400])
@pytest.mark.parametrize("reg", [0.3, 0.02])
def test_products_and_factors_give_the_same(n, reg, monkeypatch):
    """However the linear system is solved, a derivative is the same."""
    from sinkhorn_ot.gradients import system

    C, w = _random(n, n, seed=20).abs(), _random(n, n, seed=21)
    grads = []
    for entries in (1 << 26, 0):
        monkeypatch.setattr(system, "_MATRICES", entries)
        leaf = C.clone().requires_grad_()
        (_solve(leaf, _weights(n), None, reg).plan * w).sum().backward()
        grads.append(leaf.grad)
    scale = float(grads[0].abs().max())
    torch.testing.assert_close(*grads, rtol=0, atol=1e-9 * scale)


def test_x_of_apply_has_derivatives_too():
    for tell in ("apply", "barycentric"):
        C, x = COST.clone().requires_grad_(), OUT.clone().requires_grad_()
        out = getattr(_solve(C, A0, B, REG), tell)(x)
        by_x = torch.autograd.grad((out * ON).sum(), (C, x))[1]
        alone = getattr(_solve(COST, A0, B, REG), tell)(torch.eye(M, dtype=D))
        torch.testing.assert_close(by_x, alone.mT @ ON)
        # what is linear in x has derivatives of any order by it
        assert torch.autograd.gradgradcheck(getattr(_solve(COST, A0, B, REG), tell), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_single_and_half_precision_come_back_in_their_dtype(dtype):
    C = COST.to(dtype)
    leaf = C.clone().requires_grad_()
    (so.solve(leaf, reg=0.3, tol=1e-9).plan.double() * W).sum().backward()
    double = C.double().requires_grad_()
    (so.solve(double, reg=0.3, tol=1e-9).plan * W).sum().backward()
    assert leaf.grad.dtype == dtype
    torch.testing.assert_close(leaf.grad.double(), double.grad, rtol=0, atol=torch.finfo(dtype).eps)


def test_a_pair_at_no_distance_has_a_finite_derivative():
    x = X.clone()
    x[0] = Y[0]
    for metric in ("sqeuclidean", "euclidean", "cosine"):
        leaf = x.clone().requires_grad_()
        _exact(so.PointCloud(leaf, Y, metric), A, B, REG).value.backward()
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("tell", ["f", "g", "barycentric", "apply"])
@pytest.mark.parametrize("turned", [False, True])
def test_who_has_no_partner_with_weight_has_no_part_in_others(weight, tell, turned):
    """One row without weight reaches the last column, so that no plan knows it."""
    a = torch.tensor([0.0, 1.0], dtype=D)
    b = torch.tensor([0.5, 0.5, weight], dtype=D, requires_grad=True)
    C = torch.tensor([[0.3, 0.2, 0.5], [0.1, 0.4, math.inf]], dtype=D)
    r = _solve(C.mT, b, a, REG, unbalanced=0.7) if turned else _solve(C, a, b, REG, unbalanced=0.7)
    out = getattr(r, tell)
    out = out(torch.arange(1.0, r.g.shape[0] + 1).double()[:, None]) if callable(out) else out
    # what is told of the column itself is its own
    (grad,) = torch.autograd.grad(out.reshape(-1)[:2].sum(), b)
    assert grad[2] == 0


def test_relaxed_derivatives_know_nothing_of_a_constant_of_the_costs():
    """Exact columns take a constant into g: what rows are worth to <P, C> does not change."""
    grads = []
    for constant in (0.0, 1e6):
        a = A.clone().requires_grad_()
        r = _solve(COST + constant, a, B, REG, unbalanced=(3000 * REG, None))
        grads.append(torch.autograd.grad(r.value_linear, a)[0])
    # roundings of a million, and no more
    torch.testing.assert_close(*grads, rtol=0, atol=1e-5)
