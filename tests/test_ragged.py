"""Ragged batches: problems of different sizes, padded to one, against each of them solved alone."""

import importlib
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

import sinkhorn_ot as so
from sinkhorn_ot.sweeps import BySize, groups


RULES = [None, 0.7, (0.3, None), (0.0, None), (0.5, 0.0)]
JUNK = [math.nan, math.inf, -math.inf, 1e300]
TIGHT = {"tol": 1e-13, "on_fail": "ignore"}


@dataclass
class Ragged:
    """A random batch, whose padding holds something else each time."""

    seed: int
    cloud: bool

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        batch, n, m = (int(torch.randint(2, most, ())) for most in (6, 12, 12))
        self.n, self.m = torch.randint(1, n + 1, (batch,)), torch.randint(1, m + 1, (batch,))
        self.rows = torch.arange(n) < self.n[:, None]
        self.columns = torch.arange(m) < self.m[:, None]
        self.counted = self.seed % 3 > 0
        if not self.counted:
            self.rows, self.columns = (_shuffled(t) for t in (self.rows, self.columns))
        junk = JUNK[self.seed % 4]
        if self.cloud:
            x, y = (torch.randn(batch, k, 2, dtype=torch.float64) for k in (n, m))
            self.leaves = [_junk(x, self.rows, junk), _junk(y, self.columns, junk)]
        else:
            pairs = self.rows[:, :, None] & self.columns[:, None, :]
            C = torch.rand(batch, n, m, dtype=torch.float64)
            self.leaves = [C.masked_fill_(~pairs, junk)]
        self.weighted = self.seed % 4 > 1
        if self.weighted:
            self.leaves += [
                _junk(torch.rand(t.shape, dtype=torch.float64) * t / _mass(t), t, junk)
                for t in (self.rows, self.columns)
            ]
        many = self.seed % 2 == 0
        self.leaves.append(torch.rand(batch if many else (), dtype=torch.float64) * 0.4 + 0.1)

    @property
    def mask(self) -> tuple[Tensor, Tensor]:
        return (self.n, self.m) if self.counted else (self.rows, self.columns)

    def solve(self, **how) -> so.Transport:
        a, b = self.leaves[-3:-1] if self.weighted else (None, None)
        cost = so.PointCloud(*self.leaves[:2]) if self.cloud else self.leaves[0]
        return so.solve(cost, a, b, self.leaves[-1], mask=self.mask, **TIGHT, **how)

    def alone(self):
        """Yield each problem's number, points, and how it is solved cut to these."""
        for k, (rows, columns) in enumerate(zip(self.rows, self.columns, strict=True)):
            i, j = rows.nonzero()[:, 0], columns.nonzero()[:, 0]
            yield k, i, j, lambda k=k, i=i, j=j, **how: self._cut(k, i, j, how)

    def _cut(self, k: int, i: Tensor, j: Tensor, how) -> so.Transport:
        a, b = (self.leaves[-3][k, i], self.leaves[-2][k, j]) if self.weighted else (None, None)
        reg = self.leaves[-1][k] if self.leaves[-1].ndim else self.leaves[-1]
        if self.cloud:
            cost = so.PointCloud(self.leaves[0][k, i], self.leaves[1][k, j])
        else:
            cost = self.leaves[0][k][i][:, j]
        return so.solve(cost, a, b, reg, **TIGHT, **how)


def _shuffled(t: Tensor) -> Tensor:
    return torch.stack([row[torch.randperm(len(row))] for row in t])


def _mass(t: Tensor) -> Tensor:
    return t.sum(-1, keepdim=True)


def _junk(t: Tensor, there: Tensor, junk: float) -> Tensor:
    t = t / _mass(t) if t.ndim == 2 else t
    return torch.where(there if t.ndim == 2 else there[..., None], t, junk)


def _within(shape, at, few: Tensor, other: float = 0.0) -> Tensor:
    """Return numbers of the points of a problem among all of its padding."""
    whole = torch.full(shape, other, dtype=few.dtype)
    whole[at] = few
    return whole


def _same(x: Tensor, y: Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(x, y, rtol=tol, atol=tol)


@pytest.fixture
def _in_groups(monkeypatch):
    """Let the smallest saving be worth a group of its own."""
    for room, name in (("sweeps.choice", "PASS"), ("solve.call", "SOLVE"), ("solve.call", "SWEEP")):
        monkeypatch.setattr(importlib.import_module(f"sinkhorn_ot.{room}"), name, 3)


@pytest.mark.parametrize("cloud", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_every_number_is_that_of_the_problem_alone(seed, cloud):
    _compared(seed, cloud)


@pytest.mark.usefixtures("_in_groups")
@pytest.mark.parametrize("cloud", [False, True])
@pytest.mark.parametrize("seed", range(15, 23))
def test_groups_of_one_size_change_nothing(seed, cloud):
    _compared(seed, cloud)


def _compared(seed, cloud):
    ragged = Ragged(seed, cloud)
    rule = RULES[seed % len(RULES)]
    r = ragged.solve(unbalanced=rule)
    n, m = r.problem.shape[1:]
    assert all(bool(torch.isfinite(t).all()) for t in (r.f, r.g, r.plan, r.value, r.gap))
    y = torch.randn(len(ragged.n), m, dtype=torch.float64)
    given = torch.where(ragged.columns, y, math.nan)
    for k, i, j, alone in ragged.alone():
        s = alone(unbalanced=rule)
        pairs = i[:, None], j
        for name in ("value", "value_linear", "dual_value", "marginal_error"):
            _same(getattr(r, name)[k], getattr(s, name))
        _same(r.plan[k], _within((n, m), pairs, s.plan))
        _same(r.log_plan[k], _within((n, m), pairs, s.log_plan, -math.inf))
        _same(r.f[k], _within((n,), i, s.f))
        _same(r.g[k], _within((m,), j, s.g))
        _same(r.apply(given)[k], _within((n,), i, s.apply(y[k, j])))
        _same(r.barycentric(given)[k], _within((n,), i, s.barycentric(y[k, j])))
        if rule is None:
            mine, own = r.certificate(), s.certificate()
            _same(mine.lower[k], own.lower)
            _same(mine.upper[k], own.upper)
            assert bool((mine.f[k][~ragged.rows[k]] == 0).all())
            _same(r.round()[k], _within((n, m), pairs, s.round()))


@pytest.mark.parametrize("cloud", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6])
def test_derivatives_are_those_of_the_problem_alone_and_zero_in_the_padding(seed, cloud):
    ragged = Ragged(seed, cloud)
    for leaf in ragged.leaves:
        leaf.requires_grad_()
    rule = RULES[seed % 3]

    def loss(r, plan, f, g):
        return r.value.sum() + (r.plan * plan).sum() + (r.f * f).sum() + (r.apply(g) * f).sum()

    r = ragged.solve(unbalanced=rule)
    plan, f, g = (torch.rand(t.shape, dtype=torch.float64) for t in (r.plan, r.f, r.g))
    found = torch.autograd.grad(loss(r, plan, f, g), ragged.leaves)
    known = [torch.zeros_like(leaf) for leaf in ragged.leaves]
    for k, i, j, alone in ragged.alone():
        one = loss(alone(unbalanced=rule), plan[k][i][:, j], f[k, i], g[k, j])
        for total, part in zip(known, torch.autograd.grad(one, ragged.leaves), strict=True):
            total += part
    for mine, theirs in zip(found, known, strict=True):
        _same(mine, theirs, 1e-10)
    there = [ragged.rows, ragged.columns]
    there = there if cloud else [there[0][:, :, None] & there[1][:, None, :]]
    for by, held in zip(found, there, strict=False):
        assert bool((by[~held] == 0).all())


PENALTIES = {
    "TV": lambda at: so.TV(0.3),
    "L2": lambda at: (so.L2(0.8), None),
    "KL per point": lambda at: so.KL(at(0, [0.0, 0.5, 1.0, 2.0, math.inf, 0.3])),
    "bounds": lambda at: (None, so.Between(0.05, at(1, [0.2, 1.0, 0.5, 0.9, math.inf]))),
}


@pytest.mark.usefixtures("_in_groups")
@pytest.mark.parametrize("cloud", [False, True])
@pytest.mark.parametrize("kind", [*PENALTIES, "mass"])
def test_penalties_of_other_kinds(kind, cloud):
    torch.manual_seed(5)
    n, m = torch.tensor([6, 3, 5]), torch.tensor([5, 4, 5])
    cost = torch.rand(3, 6, 5, dtype=torch.float64)
    x, y = torch.rand(3, 6, 2, dtype=torch.float64), torch.rand(3, 5, 2, dtype=torch.float64)
    for k in range(3):
        cost[k, n[k] :], cost[k, :, m[k] :], x[k, n[k] :], y[k, m[k] :] = [math.nan] * 4

    def asked(k):
        """Return the penalties of a problem, or with None those of all, junk in the padding."""

        def at(side, given):
            w = torch.tensor(given, dtype=torch.float64)
            if k is not None:
                return w[: (n, m)[side][k]]
            there = torch.arange(len(w)) < (n, m)[side][:, None]
            return torch.where(there, w, math.nan)

        square = kind == "KL per point"
        rule = {"mass": 0.6} if kind == "mass" else {"unbalanced": PENALTIES[kind](at)}
        return {"unbalanced": (rule["unbalanced"], None)} if square else rule

    how = {"reg": 0.1, "tol": 1e-13, "max_iter": 2000, "on_fail": "ignore"}
    r = so.solve(so.PointCloud(x, y) if cloud else cost, mask=(n, m), **asked(None), **how)
    for k in range(3):
        i, j = slice(int(n[k])), slice(int(m[k]))
        cut = so.PointCloud(x[k, i], y[k, j]) if cloud else cost[k, i, j]
        s = so.solve(cut, **asked(k), **how)
        _same(r.plan[k], _within((6, 5), (i, j), s.plan), 1e-11)
        _same(r.value[k], s.value, 1e-11)
        _same(r.dual_value[k], s.dual_value, 1e-11)
        assert bool((r.f[k, n[k] :] == 0).all())


def test_second_derivatives_pass_the_padding_by():
    C = torch.rand(2, 3, 4, dtype=torch.float64)
    C[0, 2:], C[0, :, 3:] = math.nan, math.inf
    C.requires_grad_()
    r = so.solve(C, reg=0.3, mask=([2, 3], [3, 4]), tol=1e-13)
    (by,) = torch.autograd.grad(r.value[0], C, create_graph=True)
    (twice,) = torch.autograd.grad((by * by).sum(), C)
    assert bool((twice[1] == 0).all())
    cut = C[0, :2, :3].detach().requires_grad_()
    (by,) = torch.autograd.grad(so.solve(cut, reg=0.3, tol=1e-13).value, cut, create_graph=True)
    _same(
        twice[0],
        _within((3, 4), (slice(2), slice(3)), torch.autograd.grad((by * by).sum(), cut)[0]),
    )


def test_a_cost_that_masks_share_is_read_where_any_of_them_is():
    C = torch.rand(5, 6, dtype=torch.float64)
    # pairs of one problem's row and another's column are nobody's
    C[:2, 3:] = C[2:, :3] = math.nan
    rows, columns = torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.bool)
    rows[0, :2] = rows[1, 2:] = columns[0, :3] = columns[1, 3:] = True
    r = so.solve(C, reg=0.1, mask=(rows, columns))
    assert r.plan.shape == (2, 5, 6)
    _same(r.value[0], so.solve(C[:2, :3], reg=0.1).value, 1e-9)
    _same(r.value[1], so.solve(C[2:, 3:], reg=0.1).value, 1e-9)
    x = torch.rand(5, 2, dtype=torch.float64)
    counted = so.solve(so.PointCloud(x, x), reg=0.1, mask=([2, 4], None))
    _same(counted.value[1], so.solve(so.PointCloud(x[:4], x), reg=0.1).value, 1e-9)


@pytest.mark.parametrize("cloud", [False, True])
def test_counted_sweeps_and_starts(cloud):
    _counted(cloud)


@pytest.mark.usefixtures("_in_groups")
def test_counted_sweeps_and_starts_in_groups():
    _counted(cloud=False)


def test_groups_leave_out_what_is_padded():
    n = torch.tensor([40, 7, 8, 40, 3])
    r = so.solve(torch.rand(5, 40, 40), reg=0.1, mask=(n, n))
    assert groups(r.problem, 10**6) == []
    found = [(g.n, g.m, g.index.tolist()) for g in groups(r.problem, 500)]
    assert found == [(40, 40, [0, 3]), (8, 8, [1, 2, 4])]
    held = found[1][0] ** 2 * 3
    read = sum(
        C.numel()
        for part in (BySize(r.problem, groups(r.problem, 500)),)
        for g, one in part.parts[1:]
        for _, C in one.problem.cost.tiles(64)
    )
    assert read == held


def _counted(cloud):
    ragged = Ragged(7, cloud)
    a, b = ragged.leaves[-3:-1]
    cost = so.PointCloud(*ragged.leaves[:2]) if cloud else ragged.leaves[0]
    r = so.solve(cost, a, b, 0.2, mask=ragged.mask, n_iter=5)
    for k, i, j, _ in ragged.alone():
        cut = so.PointCloud(cost.x[k, i], cost.y[k, j]) if cloud else cost[k][i][:, j]
        s = so.solve(cut, a[k, i], b[k, j], 0.2, n_iter=5)
        _same(r.plan[k], _within(r.plan.shape[1:], (i[:, None], j), s.plan))
        _same(r.value[k], s.value)
    done = so.solve(cost, a, b, 0.2, mask=ragged.mask)
    assert int(so.solve(cost, a, b, 0.2, mask=ragged.mask, init=done).n_iter.max()) == 1
    start = torch.where(ragged.rows, done.f, math.nan), None
    again = so.solve(cost, a, b, 0.2, mask=ragged.mask, init=start)
    assert int(again.n_iter.max()) <= int(done.n_iter.max())
    _same(again.plan, done.plan, 1e-8)


def test_points_without_weight_are_there_and_have_a_price():
    C = torch.rand(2, 4, 3, dtype=torch.float64)
    a = torch.tensor([[0.5, 0.5, 0.0, 7.0], [0.25, 0.25, 0.25, 0.25]])
    r = so.solve(C, a, None, 0.1, mask=([3, 4], None))
    s = so.solve(C[0, :3], a[0, :3], None, 0.1)
    _same(r.f[0], _within((4,), slice(3), s.f), 1e-8)
    assert float(r.f[0, 2]) != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype):
    C = torch.rand(3, 4, 5).to(dtype)
    C[0, 2:], C[1, :, 1:] = math.nan, math.nan
    r = so.solve(C, reg=0.2, mask=([2, 4, 4], [5, 1, 5]))
    assert r.plan.dtype == torch.float32
    assert bool(torch.isfinite(r.plan).all())
    _same(r.plan[0, :2], so.solve(C[0, :2], reg=0.2).plan, 1e-5)


def test_one_problem_and_other_forms_of_a_mask():
    C = np.random.default_rng(0).random((4, 5))
    known = so.solve(C[:2, :3], reg=0.1).plan
    for rows in (2, np.int32(2), torch.tensor(2), [True, True, False, False], np.arange(4) < 2):
        r = so.solve(C, reg=0.1, mask=[rows, 3])
        assert r.plan.shape == (4, 5)
        _same(r.plan[:2, :3], known, 1e-8)
    _same(so.solve(C, reg=0.1, mask=(None, None)).plan, so.solve(C, reg=0.1).plan, 1e-8)


def test_inside_vmap_a_mask_is_that_of_each():
    C = torch.rand(2, 4, 3, dtype=torch.float64)
    n = torch.tensor([2, 4])
    mapped = vmap(lambda c: so.solve(c, reg=0.2, mask=(n, None)).value)(C)
    _same(mapped, torch.stack([so.solve(c, reg=0.2, mask=(n, None)).value for c in C]), 1e-8)
    with pytest.raises(ValueError, match=r"mask \(rows\) must be a tensor of its own"):
        vmap(lambda c, k: so.solve(c, reg=0.2, mask=(k, None)).value)(C, n)


COST = torch.rand(3, 4, 5, dtype=torch.float64)
TRUE = torch.ones(3, 4, dtype=torch.bool)
BAD = [
    (TRUE, "mask must be a pair"),
    ((TRUE, None, None), "mask must be a pair"),
    (3, "mask must be a pair"),
    ((TRUE[:, :3], None), r"mask \(rows\) must have shape \(..., 4\).*got \(3, 3\)"),
    ((None, TRUE), r"mask \(columns\) must have shape \(..., 5\)"),
    ((None, True), r"mask \(columns\) must have shape"),
    ((TRUE.double(), None), r"mask \(rows\) must be booleans .* or whole numbers"),
    ((None, [1.0, 2.0, 3.0]), r"mask \(columns\) must be booleans .* or whole numbers"),
    (("ab", None), r"mask \(rows\) must hold real numbers"),
    (([1, -1, 2], None), r"mask \(rows\) must count from 1 to 4 first points, got -1 at index 1"),
    ((None, [1, 5, 6]), r"mask \(columns\) must count from 1 to 5 .* got 6 at index 2"),
    (([1, 4, 0], None), r"mask \(rows\) must leave every problem some rows: problem 2 has none"),
    ((~TRUE, None), r"mask \(rows\) must leave every problem some rows: problem 0 has none"),
    ((TRUE[:2], None), "mask and cost must have leading dimensions that broadcast"),
    ((TRUE, [1, 2]), r"mask \(rows\) and mask \(columns\) must have leading dimensions"),
    ((TRUE.to("meta"), None), r"mask \(rows\) must hold numbers"),
]


@pytest.mark.parametrize(("mask", "told"), BAD)
def test_bad_masks(mask, told):
    with pytest.raises(ValueError, match=told):
        so.solve(COST, reg=0.1, mask=mask)


def test_what_is_there_is_still_checked():
    a = torch.ones(3, 4)
    a[1, :2] = 0
    with pytest.raises(ValueError, match="a must have some positive weight among .* problem 1"):
        so.solve(COST, a, torch.ones(3, 5), 0.1, mask=(2, None))
    with pytest.raises(ValueError, match=r"a must have shape \(..., 4\)"):
        so.solve(COST, torch.ones(3), None, 0.1, mask=(2, None))
    with pytest.raises(ValueError, match="a and b must have the same total mass"):
        so.solve(COST, torch.ones(4), torch.ones(5), 0.1, mask=(2, None))
    for value in (math.nan, -math.inf):
        C = COST.clone()
        C[1, 1, 2] = value
        with pytest.raises(ValueError, match=r"cost must be a number above -inf, .* \(1, 1, 2\)"):
            so.solve(C, reg=0.1, mask=(2, 3))
    with pytest.raises(ValueError, match="mask needs a stored cost or a PointCloud"):
        so.solve(so.problem.Streamed(np.ones((4, 5))), reg=0.1, mask=(2, 3))
    with pytest.raises(ValueError, match="init must be finite"):
        so.solve(COST, reg=0.1, mask=(2, 3), init=(torch.full((4,), math.nan), None))


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_exact_plans_of_padded_problems(seed):
    ragged = Ragged(seed, False)
    C, a, b = ragged.leaves[0], *(ragged.leaves[1:3] if ragged.weighted else (None, None))
    C.requires_grad_()
    r = so.solve_exact(C, a, b, mask=ragged.mask)
    assert bool(r.converged.all())
    for k, i, j, _ in ragged.alone():
        left, right = (w if w is None else w[k, at] for w, at in ((a, i), (b, j)))
        _same(r.value[k], so.solve_exact(C[k][i][:, j].detach(), left, right).value)
        assert bool((r.f[k][~ragged.rows[k]] == 0).all())
    (by,) = torch.autograd.grad(r.value.sum(), C)
    _same(by, r.detach().plan)


@pytest.mark.parametrize("rule", [None, 0.8])
def test_divergences_of_padded_clouds(rule):
    ragged = Ragged(6, True)
    x, y, a, b, _ = ragged.leaves
    x.requires_grad_()
    how = {"reg": 0.4, "unbalanced": rule, "tol": 1e-12, "on_fail": "ignore"}
    r = so.sinkhorn_divergence(x, y, a, b, mask=ragged.mask, **how)
    known = torch.zeros_like(x)
    for k, i, j, _ in ragged.alone():
        s = so.sinkhorn_divergence(x[k, i], y[k, j], a[k, i], b[k, j], **how)
        _same(r.value[k], s.value)
        _same(r.f[k], _within((x.shape[1],), i, s.f), 1e-9)
        known += torch.autograd.grad(s.value, x)[0]
    _same(torch.autograd.grad(r.value.sum(), x)[0], known, 1e-9)
    even = so.sinkhorn_divergence(x, y, mask=ragged.mask, **how)
    k, i, j, _ = next(ragged.alone())
    _same(even.value[k], so.sinkhorn_divergence(x[k, i], y[k, j], **how).value)
