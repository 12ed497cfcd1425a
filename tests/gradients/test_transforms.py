"""Transforms of torch.func and forward mode, beside plain differentiation and loops."""

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad, functional

import sinkhorn_ot as so


# what torch itself warns of when it loads them
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

Y = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
NUMBERS: dict[str, Callable[[so.Transport], Tensor]] = {
    "value": lambda r: r.value,
    "dual_value": lambda r: r.dual_value,
    "value_linear": lambda r: r.value_linear,
    "plan": lambda r: r.plan,
    "log_plan": lambda r: r.log_plan.clamp(min=-300.0),
    "f": lambda r: r.f,
    "g": lambda r: r.g,
    "apply": lambda r: r.apply(Y),
    "apply_transpose": lambda r: r.apply_transpose(Y[:5, 0]),
    "barycentric": lambda r: r.barycentric(Y),
}
PENALTIES = {
    "exact": lambda rho: None,
    "relaxed": lambda rho: rho,
    "one side": lambda rho: (0.3, rho),
    "free": lambda rho: (rho, 0.0),
}
ALL = (0, 1, 2, 3, 4)


def solve(C, a=None, b=None, reg=0.1, unbalanced=None):
    return so.solve(C, a, b, reg, unbalanced=unbalanced, tol=1e-13)


def given(*batch: int) -> tuple[Tensor, ...]:
    """Cost, weights, reg and penalty, with a forbidden pair and points without weight."""
    C, a, b = torch.rand(*batch, 5, 6), torch.rand(*batch, 5) + 0.1, torch.rand(*batch, 6) + 0.1
    C[..., 0, 3], a[..., 1], b[..., 2] = math.inf, 0, 0
    one = torch.ones(batch)
    weights = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    return tuple(t.double() for t in (C, *weights, 0.1 * one, 0.5 * one))


def along(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return tangents, of what is finite."""
    return tuple(torch.where(t < math.inf, torch.rand_like(t), 0.0) for t in tensors)


def call(name: str, kind: str) -> Callable[..., Tensor]:
    def act(C, a, b, reg, rho):
        return NUMBERS[name](solve(C, a, b, reg, PENALTIES[kind](rho)))

    return act


def close(got, expected, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def differentiated(act: Callable[..., Tensor], args, by: Tensor) -> tuple[Tensor, ...]:
    """Return derivatives as plain differentiation has them."""
    live = [t.clone().requires_grad_() for t in args]
    found = torch.autograd.grad((act(*live) * by).sum(), live, materialize_grads=True)
    return tuple(found)


@pytest.mark.parametrize("kind", ["exact", "one side"])
@pytest.mark.parametrize("name", NUMBERS)
def test_grad_and_vjp_are_plain_derivatives(name, kind):
    act, args = call(name, kind), given()
    by = torch.rand_like(act(*args))
    expected = differentiated(act, args, by)
    close(func.grad(lambda *t: (act(*t) * by).sum(), argnums=ALL)(*args), expected)
    value, pull = func.vjp(act, *args)
    close(value, act(*args))
    close(pull(by), expected)


@pytest.mark.slow(1)
@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("name", NUMBERS)
def test_tangents_are_products_with_derivatives(name, kind):
    """<by, J t> is the same by either way, whoever makes it."""
    act, args = call(name, kind), given()
    tangents = along(args)
    value, pushed = func.jvp(act, args, tangents)
    close(value, act(*args))
    by = torch.rand_like(value)
    pulled = differentiated(act, args, by)
    whole = sum((p * t).nan_to_num(0).sum() for p, t in zip(pulled, tangents, strict=True))
    close((by * pushed).sum(), whole)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, s) for t, s in zip(args, tangents, strict=True)]
        close(forward_ad.unpack_dual(act(*duals)).tangent, pushed)


@pytest.mark.parametrize("name", NUMBERS)
def test_tangents_are_differences(name):
    act, args = call(name, "relaxed"), [t.abs() + 0.05 for t in given()]
    args[0] = args[0].clamp(max=1.0)
    tangents, step = along(args), 1e-5
    up, down = (
        act(*(t + s * d for t, d in zip(args, tangents, strict=True))) for s in (step, -step)
    )
    got = func.jvp(act, tuple(args), tangents)[1]
    close(got, (up - down) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.slow(3)
@pytest.mark.parametrize("name", ["value", "value_linear", "f", "barycentric"])
def test_both_ways_make_one_jacobian(name):
    act, args = call(name, "one side"), given()
    close(func.jacrev(act, ALL)(*args), func.jacfwd(act, ALL)(*args))


@pytest.mark.parametrize("name", NUMBERS)
def test_vmap_is_one_batch(name, monkeypatch):
    act, (C, a, b, reg, rho) = call(name, "exact"), given(3)
    expected = torch.stack([act(*one, rho[0]) for one in zip(C, a, b, reg, strict=True)])
    module = sys.modules["sinkhorn_ot.solve.call"]
    run, solves = module.run, []
    monkeypatch.setattr(module, "run", lambda *t, **o: solves.append(1) or run(*t, **o))
    close(func.vmap(act, (0, 0, 0, 0, None))(C, a, b, reg, rho[0]), expected)
    assert len(solves) == 1
    moved = C.movedim(0, 2), a.T, b, reg, rho[0]
    got = func.vmap(act, (2, 1, 0, 0, None), out_dims=-1)(*moved)
    close(got, expected.movedim(0, -1))


@pytest.mark.slow(1)
@pytest.mark.parametrize("name", NUMBERS)
def test_vmap_of_grad_is_a_loop(name):
    act, (C, a, b, reg, rho) = call(name, "exact"), given(3)
    by = torch.rand_like(act(C[0], a[0], b[0], reg[0], rho[0]))

    def loss(*t: Tensor) -> Tensor:
        return (act(*t, rho[0]) * by).sum()

    # b is not mapped, and has a derivative of each problem all the same
    got = func.vmap(func.grad(loss, (0, 1, 2, 3)), (0, 0, None, 0))(C, a, b[0], reg)
    for k in range(3):
        args = C[k], a[k], b[0], reg[k]
        expected = differentiated(lambda *t: act(*t, rho[0]), args, by)
        close(tuple(t[k] for t in got), expected)


def test_transforms_in_each_other():
    C, a = torch.rand(2, 5, 6).double(), torch.rand(3, 5).double() + 0.1
    a /= a.sum(-1, keepdim=True)
    pairs = torch.stack([torch.stack([solve(c, w).plan for w in a]) for c in C])

    def plan(c: Tensor, w: Tensor) -> Tensor:
        return solve(c, w).plan

    close(func.vmap(func.vmap(plan, (None, 0)), (0, None))(C, a), pairs)
    # a batch of its own inside of a mapped one
    close(func.vmap(plan, (None, 0))(C, a).transpose(0, 1), pairs)

    def total(c: Tensor) -> Tensor:
        return func.vmap(plan, (None, 0))(c, a).square().sum()

    whole = C[0].clone().requires_grad_()
    expected = torch.autograd.grad(solve(whole, a).plan.square().sum(), whole)[0]
    close(func.grad(total)(C[0]), expected)
    close(func.vmap(func.grad(total))(C)[0], expected)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "dot", "cosine"])
@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_clouds(metric, memory):
    X = torch.rand(3, 5, 2).double()

    def value(x: Tensor, y: Tensor) -> Tensor:
        return solve(so.PointCloud(x, y, metric, memory)).value

    close(func.vmap(value, (0, None))(X, Y), torch.stack([value(x, Y) for x in X]))
    got = func.vmap(func.grad(value, (0, 1)), (0, None))(X, Y)
    for k, x in enumerate(X):
        close(tuple(t[k] for t in got), differentiated(value, (x, Y), torch.ones(())))
    expected = functional.hessian(lambda x: value(x, Y), X[0])
    close(func.hessian(value)(X[0], Y), expected)


@pytest.mark.slow(1)
def test_second_derivatives_of_value_by_all_ways():
    C, a = torch.rand(3, 2).double(), torch.tensor([0.2, 0.3, 0.5]).double()

    def value(c: Tensor) -> Tensor:
        return solve(c, a, unbalanced=(0.7, None)).value

    expected = functional.hessian(value, C)
    for outer in (func.jacfwd, func.jacrev):
        for inner in (func.jacfwd, func.jacrev):
            close(outer(inner(value))(C), expected)
    with pytest.raises(RuntimeError, match="plan has first derivatives only"):
        func.jacrev(func.jacrev(lambda c: solve(c).plan.sum()))(C)


def test_exact_values_and_distances():
    C, a = torch.rand(3, 5, 6).double(), torch.rand(3, 5).double() + 0.1
    a /= a.sum(-1, keepdim=True)
    calls = (
        lambda c, w: so.solve_exact(c, w).value,
        lambda c, w: so.sinkhorn_distance(c, w, alpha=0.3).value,
    )
    for act in calls:
        got = func.vmap(func.grad(act, (0, 1)))(C, a)
        for k in range(3):
            expected = differentiated(act, (C[k], a[k]), torch.ones(()))
            close(tuple(t[k] for t in got), expected, rtol=1e-7, atol=1e-9)
        tangent = func.jvp(act, (C[0], a[0]), (C[1], a[1]))[1]
        close(tangent, (got[0][0] * C[1]).sum() + (got[1][0] * a[1]).sum(), rtol=1e-7)
    alphas = torch.tensor([0.1, 0.2]).double()
    slopes = func.vmap(func.grad(lambda t: so.sinkhorn_distance(C[0], alpha=t).value))(alphas)
    close(slopes[1], -so.sinkhorn_distance(C[0], alpha=0.2).reg, rtol=1e-7)


def test_what_is_outside_of_transforms_keeps_its_derivatives():
    C = torch.rand(3, 5, 6).double().requires_grad_()
    func.vmap(lambda c: solve(c).plan.square().sum())(C).sum().backward()
    close((C.grad,), differentiated(lambda t: solve(t).plan, (C.detach(),), 2 * solve(C).plan))


def test_vectors_alone_may_be_transformed():
    C, x = torch.rand(5, 6).double(), torch.rand(3, 6).double()
    r = solve(C)
    close(func.vmap(r.apply)(x), x @ r.plan.T)
    close(func.jacrev(r.apply)(x[0]), r.plan)
    close(func.jvp(r.apply, (x[0],), (x[1],))[1], r.plan @ x[1])
    # and beside what a result was made of
    got = func.vmap(lambda c, t: solve(c).apply(t), (None, 0))(C, x)
    close(got, x @ r.plan.T)
    close(func.jacfwd(lambda c, t: solve(c).apply(t), 1)(C, x[0]), r.plan)
    live = solve(C.requires_grad_())
    with pytest.raises(ValueError, match="has no derivatives: call it of .detach"):
        func.vmap(live.apply)(x)


def test_measurements_are_constants():
    C = torch.rand(3, 5, 6).double()
    found = func.vmap(lambda c: (solve(c).converged, solve(c).n_iter, solve(c).gap))(C)
    assert found[0].all()
    assert found[1].shape == (3,)
    assert float(found[2].abs().max()) < 1e-12
    assert not func.grad(lambda c: solve(c).marginal_error)(C[0]).any()
    assert not func.jvp(lambda c: solve(c).gap, (C[0],), (C[1],))[1].any()
    assert func.jvp(lambda c: solve(c).converged, (C[0],), (C[1],))[0]


def test_a_warm_start_inside_of_a_transform():
    C = torch.rand(3, 5, 6).double()

    def again(c: Tensor) -> Tensor:
        return so.solve(c, reg=0.1, init=so.solve(c, reg=0.1, on_fail="ignore")).plan

    close(func.vmap(again)(C), so.solve(C, reg=0.1).plan, atol=1e-8)


def test_fixed_sweeps_are_mapped():
    C = torch.rand(3, 5, 6).double()
    got = func.vmap(lambda c: so.solve(c, reg=0.1, n_iter=3).plan)(C)
    close(got, so.solve(C, reg=0.1, n_iter=3).plan)


REFUSED = {
    "status is not told inside a transform": lambda C: so.solve(C, reg=0.1).status,
    "check is not told": lambda C: so.solve(C, reg=0.1).check(),
    "round is not told": lambda C: so.solve(C, reg=0.1).round(),
    "cost must have at least 2 dim": lambda C: so.solve(C[0], reg=0.1).value,
    "unbalanced must not be mapped": lambda C: so.solve(Y, reg=1.0, unbalanced=C[0, 0]).value,
    "reg must be a finite": lambda C: so.solve(C, reg=-1.0).value,
    "reg must be given": lambda C: so.solve(C).value,
    "log_probs .* inside a transform of torch.func": lambda C: so.sela_labels(C).labels,
    "init .* inside a transform": lambda C: so.solve(C, reg=0.1, init=(C[:, 0], None)).value,
}


@pytest.mark.parametrize("message", REFUSED)
def test_one_sentence_says_what_cannot_be(message):
    with pytest.raises(ValueError, match=message):
        func.vmap(REFUSED[message])(torch.rand(2, 5, 6).double())


def test_numbers_are_checked_where_they_are():
    C = torch.rand(2, 5, 6)
    C[1, 0, 2] = math.nan
    with pytest.raises(ValueError, match=r"cost must be .* got nan at index \(1, 0, 2\)"):
        func.vmap(lambda c: so.solve(c, reg=0.1).value)(C)


def test_what_has_not_converged_warns_inside_too():
    C = torch.rand(5, 6).double()
    with pytest.warns(so.ConvergenceWarning):
        func.grad(lambda c: so.solve(c, reg=0.01, max_iter=2).value_linear)(C)


def test_shown_in_a_line():
    shown = []
    func.vmap(lambda c: shown.append(repr(so.solve(c, reg=0.1))) or c)(torch.rand(2, 5, 6))
    assert shown == ["Told(batch=(), n=5, m=6, inside a transform)"]
