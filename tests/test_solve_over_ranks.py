"""`solve` over the ranks of a group: one process's numbers, alike everywhere, and errors on all."""

import pytest
import torch
from ranks import run


pytestmark = pytest.mark.slow(4)

POSED = """
import math
from sinkhorn_ot import Anderson, Nesterov, Newton, Plain, Sinkhorn, Switch

CUTS = {2: [0.0, 0.8, 1.0], 3: [0.0, 0.4, 0.4, 1.0], 4: [0.0, 0.3, 0.35, 0.9, 1.0]}[world]
METHODS = [
    "auto", "sinkhorn", "newton", Sinkhorn(Nesterov()), Sinkhorn(Switch()),
    Sinkhorn(Newton(direct=1)), Sinkhorn(Anderson(memory=4), anneal=None),
]


def part(n):
    ends = [round(n * share) for share in CUTS]
    return slice(ends[rank], ends[rank + 1])


def rows(cost, own):
    if isinstance(cost, so.PointCloud):
        return so.PointCloud(cost.x[..., own, :], cost.y, cost.metric)
    if isinstance(cost, so.Streamed):
        held, sign = cost.held
        return so.Streamed(held[..., own, :])
    return cost[..., own, :]


def draw(k):
    g = torch.Generator().manual_seed(1000 * world + k)
    def rand(*shape): return torch.rand(*shape, generator=g, dtype=torch.float64)
    n, m = (int(x) for x in torch.randint(3, 24, (2,), generator=g))
    batch = [(), (), (3,)][k % 3]
    x, y = rand(*batch, n, 2), rand(*batch, m, 2)
    kind = ["dense", "cloud", "stream", "forbidden"][k % 4]
    C = torch.cdist(x, y).square()
    if kind == "forbidden":
        C = C.masked_fill(rand(n, m) < 0.1, math.inf)
        C[..., 0, :] = x[..., :1, 0]
        C[..., :, 0] = x[..., 0]
    cost = so.PointCloud(x, y) if kind == "cloud" else so.Streamed(C) if kind == "stream" else C
    a, b = rand(*batch, n) + 0.1, rand(m) + 0.1
    if k % 5 == 1:
        a[..., 1], b[1] = 0.0, 0.0
    a, b = a / a.sum(-1, keepdim=True), b / b.sum()
    a, b = (None, None) if k % 7 == 0 else (a, b)
    how = {"method": METHODS[k % len(METHODS)], "tol": 1e-13}
    if k % 6 == 5:
        how = {"unbalanced": [0.5, (None, 0.3), (0.4, None)][k // 6 % 3], "tol": 1e-13}
    if k % 11 == 10:
        how = {"n_iter": 4}
    return cost, n, a, b, [0.05, 0.1, 0.3][k % 3], how
"""

MANY = (
    POSED
    + """
worst = {}
for k in range(34):
    cost, n, a, b, reg, how = draw(k)
    own = part(n)
    mine = None if a is None else a[..., own]
    r = so.solve(rows(cost, own), mine, b, reg, group=group, **how)
    w = so.solve(cost, a, b, reg, **how)
    assert r.statuses == w.statuses, (k, r, w)
    pairs = {name: (getattr(r, name), getattr(w, name)) for name in
             ("g", "value", "value_linear", "dual_value")}
    alike = dict(pairs, error=(r.marginal_error, None), gap=(r.gap, None), n=(r.n_iter, None))
    x, y = (torch.sin(torch.arange(s)).double()[:, None] for s in w.plan.shape[-2:])
    pairs |= {
        "f": (r.f, w.f[..., own]),
        "plan": (r.plan, w.plan[..., own, :]),
        "log_plan": (r.log_plan.exp(), w.plan[..., own, :]),
        "apply": (r.apply(y), w.apply(y)[..., own, :]),
        "barycentric": (r.barycentric(y), w.barycentric(y)[..., own, :]),
        "transpose": (r.apply_transpose(x[own]), w.apply_transpose(x)),
    }
    if "unbalanced" not in how:
        one, other = r.certificate(), w.certificate()
        pairs |= {
            "lower": (one.lower, other.lower), "upper": (one.upper, other.upper),
            "round": (r.round(), w.round()[..., own, :]),
        }
        alike |= {"lower": (one.lower, None), "upper": (one.upper, None), "dual": (one.g, None)}
    for name, (got, want) in pairs.items():
        off = float((got - want).abs().max()) if got.numel() else 0.0
        # bounds that need a forbidden pair are inf
        off = 0.0 if torch.equal(got, want) else off
        assert off < 1e-12 * max(1.0, float(w.value.abs().max())), (k, name, off, r, w)
        worst[name] = max(worst.get(name, 0.0), off)
    said[k] = {name: got for name, (got, _) in alike.items()}
said["worst"] = worst
"""
)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_many_problems_are_those_of_one_process_and_alike_on_all_ranks(world):
    said = run(world, MANY)
    for other in said[1:]:
        for k in range(34):
            assert all(torch.equal(other[k][name], x) for name, x in said[0][k].items()), k
