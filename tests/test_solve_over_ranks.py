"""`solve` over the ranks of a group: one process's numbers, alike everywhere, and errors on all."""

import pytest
import torch
from ranks import run


pytestmark = pytest.mark.slow(4)

POSED = """
import math
from sinkhorn_ot import Anderson, Nesterov, Newton, Plain, Sinkhorn, Switch

COUNT = {2: 64, 3: 20, 4: 16}[world]
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
for k in range(COUNT):
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
        # whether rounding needs a forbidden pair may be a question of a last digit
        off = 0.0 if torch.equal(got, want) or math.isinf(off) else off
        assert off < 1e-12 * max(1.0, float(w.value.abs().max())), (k, name, off, r, w)
    said[k] = {name: got for name, (got, _) in alike.items()}
"""
)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_many_problems_are_those_of_one_process_and_alike_on_all_ranks(world):
    said = run(world, MANY)
    assert len(said[0]) == {2: 64, 3: 20, 4: 16}[world]
    for other in said[1:]:
        for k, numbers in said[0].items():
            assert all(torch.equal(other[k][name], x) for name, x in numbers.items()), k


PARTS = """
import copy, io, math, sys
from contextlib import redirect_stderr
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from sinkhorn_ot import Plain, Sinkhorn

g = torch.Generator().manual_seed(0)
n, m = 5, 4
C, a, b = (torch.rand(*s, generator=g, dtype=torch.float64) for s in ((n, m), (n,), (m,)))
a, b = a / a.sum(), b / b.sum()
own = slice(0, 3) if rank == 0 else slice(3, 5) if rank == 1 else slice(5, 5)


def ask(cost=C, a=a, **how):
    return so.solve(cost[own], a[own], b, 0.05, group=group, **how)


def close(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-12)


# a sweep is one all-reduce
calls, really = [], dist.all_reduce
def counted(t, *args, **kwargs):
    calls.append(t.numel())
    return really(t, *args, **kwargs)
dist.all_reduce = counted
def made(max_iter):
    calls.clear()
    ask(method=Sinkhorn(Plain(), None), max_iter=max_iter, tol=1e-30, on_fail="ignore")
    return list(calls)
said["calls"] = made(10), made(11)
dist.all_reduce = really

# starts, of both sides and of each
w = so.solve(C, a, b, 0.05, tol=1e-13)
r = ask(tol=1e-13)
starts = r, (r.f, None), (None, r.g), (r.f, r.g)
said["warm"] = [int(ask(tol=1e-12, init=start).n_iter) for start in starts]
want = so.solve(C, a, b, 0.05, n_iter=3, init=(w.f, None))
said["fixed"] = close(ask(n_iter=3, init=(r.f, None)).g, want.g)

# whoever is to be told is, everywhere, and one may stop all
seen = []
def stop(now):
    seen.append(now.n_iter)
    return rank == 1 and now.n_iter == 4
said["stopped"] = ask(callback=stop, tol=1e-13).status.name, seen
bar = io.StringIO()
with redirect_stderr(bar):
    ask(progress=rank == 0)
said["bar"] = "sinkhorn" in bar.getvalue()

# copies, and what is told without the others
said["copied"] = close(copy.deepcopy(r).apply_transpose(torch.ones(len(r.f)).double()), b)
if rank == 0:
    said["alone"] = all(close(getattr(r, k), getattr(w, k)) for k in
                        ("value", "value_linear", "dual_value", "g")), float(r.gap), repr(r)
    said["potential"] = close(r.potential(cost=C[:2]), w.potential(cost=C[:2]))
single = so.solve(C[own].float(), a[own].float(), b.float(), 0.05, group=group)
said["float32"] = str(single.g.dtype)

# points, on ranks that have none too; functions of them
x, y = C[:, :2], C[:m, 2:]
for metric in ("euclidean", lambda x, y: torch.cdist(x, y)):
    cloud = so.solve(so.PointCloud(x[own], y, metric), None, b, 0.05, group=group, tol=1e-13)
    want = so.solve(so.PointCloud(x, y, metric), None, b, 0.05, tol=1e-13)
    said[f"cloud {metric!s:.5}"] = close(cloud.g, want.g)
streamed = so.solve(so.Streamed([C[own]]), a[own], b, 0.05, group=group, tol=1e-13)
said["stream"] = close(streamed.g, w.g)
# pairs that all are forbidden on one rank, whose rows weigh nothing
closed, light = C.clone(), a.clone()
closed[own if rank == 1 else slice(3, 5)], light[3:5] = math.inf, 0.0
light = light / light.sum()
found, want = ask(closed, light, tol=1e-13), so.solve(closed, light, b, 0.05, tol=1e-13)
said["closed"] = close(found.g, want.g), close(found.value, want.value)
# a row and a column that nobody serves, beside penalties
closed = C.clone()
closed[3], closed[:, 1] = math.inf, math.inf
found = ask(closed, unbalanced=0.5, tol=1e-13)
want = so.solve(closed, a, b, 0.05, unbalanced=0.5, tol=1e-13)
said["unserved"] = close(found.value, want.value), close(found.dual_value, want.dual_value)

# near points of clouds, few of which are anybody's
from sinkhorn_ot.sweeps import choice
choice._PAIRS, pairs = 1, choice._PAIRS
x, y = (torch.rand(k, 2, generator=g, dtype=torch.float64) for k in (300, 200))
mine = slice(0, 250) if rank == 0 else slice(250, 300) if rank == 1 else slice(300, 300)
cloud = so.PointCloud(x[mine], y, memory=0)
found = so.solve(cloud, None, None, 0.003, group=group, tol=1e-11)
want = so.solve(torch.cdist(x, y).square(), None, None, 0.003, tol=1e-13)
said["near"] = [float((found.g - want.g).abs().max()), float(found.value - want.value)]
choice._PAIRS = pairs

# a DTensor says its group by itself
mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("rows",))
D = distribute_tensor(C, mesh, [Shard(0)])
shards = distribute_tensor(a, mesh, [Shard(0)])
copies = distribute_tensor(b, mesh, [Replicate()])
for k, (left, right) in enumerate(((shards.to_local(), copies), (shards, b))):
    found = so.solve(D, left, right, 0.05, tol=1e-13)
    said[f"dtensor {k}"] = close(found.g, w.g), tuple(found.plan.shape)
batch = distribute_tensor(torch.stack([C, C + 1]), mesh, [Shard(1)])
want = so.solve(C, reg=0.05, tol=1e-13).g
said["dtensor batch"] = close(so.solve(batch, reg=0.05, tol=1e-13).g[1], want)
wide = init_device_mesh("cpu", (1, world), mesh_dim_names=("copies", "rows"))
found = so.solve(distribute_tensor(C, wide, [Replicate(), Shard(0)]), None, b, 0.05, tol=1e-13)
said["dtensor copies"] = close(found.g, so.solve(C, None, b, 0.05, tol=1e-13).g)
bad = {
    "replicated": lambda: so.solve(distribute_tensor(C, mesh, [Replicate()]), reg=0.1),
    "partial": lambda: so.solve(DTensor.from_local(C, mesh, [Partial()]), reg=0.1),
    "shards and group": lambda: so.solve(D, reg=0.1, group=group),
    "replicated a": lambda: so.solve(D, distribute_tensor(a, mesh, [Replicate()]), b, 0.1),
    "sharded b": lambda: so.solve(D, None, distribute_tensor(b, mesh, [Shard(0)]), 0.1),
    "only a": lambda: so.solve(C, distribute_tensor(a, mesh, [Shard(0)]), b, 0.1),
    "grad": lambda: so.solve(D.detach().requires_grad_(), reg=0.1),
}
for name, call in bad.items():
    said[name] = refused(call)
"""


@pytest.mark.parametrize("world", [2, 3])
def test_what_ranks_may_pass_and_ask(world):
    said = run(world, PARTS)
    for told in said:
        before, after = told["calls"]
        assert len(after) == len(before) + 1
        assert after.count(4) == before.count(4) + 1
        assert max(told["warm"]) <= 3
        assert told["stopped"] == ("STOPPED", [1, 2, 3, 4])
        for name in ("fixed", "copied", "cloud eucli", "cloud <func", "stream"):
            assert told[name], name
        assert told["closed"] == (True, True)
        assert told["unserved"] == (True, True)
        assert max(map(abs, told["near"])) < 1e-9
        assert told["float32"] == "torch.float32"
        assert told["dtensor 0"][0]
        assert told["dtensor 1"][0]
        assert told["dtensor batch"]
        assert told["dtensor copies"]
        shard = "cost must be sharded on its rows, Shard(0), over one dimension of its mesh, on its"
        assert shard in told["replicated"]
        assert shard in told["partial"]
        assert "group must not be given where cost is a DTensor" in told["shards and group"]
        assert "a must be sharded as the rows of cost are, got" in told["replicated a"]
        assert "b must be replicated, got" in told["sharded b"]
        assert "a is a DTensor, and cost is none: pass a.to_local()" in told["only a"]
        assert "cost requires grad, and a solve over a group" in told["grad"]
    assert [told["bar"] for told in said] == [True] + [False] * (world - 1)
    same, gap, text = said[0]["alone"]
    assert same
    assert abs(gap) < 1e-12
    assert "n=3, m=4" in text
    assert said[0]["potential"]
    shapes = [told["dtensor 1"][1] for told in said]
    assert shapes == {2: [(3, 4), (2, 4)], 3: [(2, 4), (2, 4), (1, 4)]}[world]


BLOCKS = """
import math
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "columns"))
down, across = mesh["rows"].get_local_rank(), mesh["columns"].get_local_rank()
groups = mesh.get_group("rows"), mesh.get_group("columns")
g = torch.Generator().manual_seed(0)
n, m = 13, 9
C, a, b = (torch.rand(*s, generator=g, dtype=torch.float64) for s in ((n, m), (n,), (m,)))
a[2], b[8] = 0.0, 0.0
a, b = a / a.sum(), b / b.sum()
R, S = (slice(0, 10), slice(10, 13))[down], (slice(0, 4), slice(4, 9))[across]
forbidden = C.masked_fill(torch.rand(n, m, generator=g) < 0.2, math.inf)
forbidden[:, 5], forbidden[11] = C[:, 5], C[11]
x, y = C[:, :2], torch.rand(m, 2, generator=g, dtype=torch.float64)


def block(cost):
    if isinstance(cost, so.PointCloud):
        return so.PointCloud(cost.x[R], cost.y[S])
    return cost[..., R, S].contiguous()


def ask(cost=C, a=a, b=b, reg=0.1, **how):
    a, b = a if a is None else a[R], b if b is None else b[S]
    return so.solve(block(cost), a, b, reg, group=groups, **how)


cases = {
    "plain": (C, a, b, {}),
    "uniform": (C, None, None, {}),
    "cloud": (so.PointCloud(x, y), a, b, {}),
    "forbidden": (forbidden, a, b, {}),
    "batch": (torch.stack([C, C.flip(0)]), a, b, {}),
    "relaxed": (C, a, b, {"unbalanced": (0.3, None)}),
    "fixed": (C, a, b, {"n_iter": 3}),
}
for name, (cost, left, right, how) in cases.items():
    how = how if "n_iter" in how else {**how, "tol": 1e-13}
    r, w = ask(cost, left, right, **how), so.solve(cost, left, right, 0.1, **how)
    z, t = torch.rand(m, 2, generator=g).double(), torch.rand(n, 2, generator=g).double()
    numbers = "g", "value", "value_linear", "dual_value"
    pairs = {k: (getattr(r, k), getattr(w, k)) for k in numbers}
    pairs |= {
        "f": (r.f, w.f[..., R]),
        "plan": (r.plan, w.plan[..., R, S]),
        "apply": (r.apply(z), w.apply(z)[..., R, :]),
        "barycentric": (r.barycentric(z), w.barycentric(z)[..., R, :]),
        "transpose": (r.apply_transpose(t[R]), w.apply_transpose(t)),
    }
    if "unbalanced" not in how:
        one, other = r.certificate(), w.certificate()
        pairs |= {"lower": (one.lower, other.lower), "round": (r.round(), w.round()[..., R, S])}
    off = {k: float((p - q).abs().max()) for k, (p, q) in pairs.items()}
    assert max(off.values()) < 1e-12, (name, off, r, w)
    said[name] = {k: pairs[k][0] for k in (*numbers, "transpose")}
w = so.solve(C, a, b, 0.1, tol=1e-13)
r = ask(tol=1e-13)
assert int(ask(init=r).n_iter) == 1 and int(ask(init=(None, r.g)).n_iter) == 1
cost = distribute_tensor(C, mesh, [Shard(0), Shard(1)])
left = distribute_tensor(a, mesh, [Shard(0), Replicate()])
right = distribute_tensor(b, mesh, [Replicate(), Shard(0)])
copies = distribute_tensor(b, mesh, [Replicate()] * 2)
assert torch.allclose(so.solve(cost, left, right, 0.1, tol=1e-13).g, w.g, rtol=0, atol=1e-12)
one = rank == 1


class Fading:
    # fails at its fourth pass, on one rank
    passes = 0
    def __iter__(self):
        self.passes += 1
        if one and self.passes == 4:
            raise OSError("the disk is gone")
        yield C[R, S]


def streamed():
    return so.solve(so.Streamed(Fading()), a[R], b[S], 0.1, group=groups, tol=1e-13)


def fail(now):
    if one:
        raise KeyError("mine")


bad = {
    "stream of one": streamed,
    "callback of one": lambda: ask(callback=fail),
    "newton": lambda: ask(method="newton"),
    "a beside": lambda: ask(a=a if across else torch.ones(n).double() / n),
    "reg of one": lambda: ask(reg=0.2 if one else 0.1),
    "nan of one": lambda: ask(C * math.nan if one else C),
    "columns of one": lambda: so.solve(C[R, :3] if one else C[R, S], a[R], None, 0.1, group=groups),
    "start of one": lambda: ask(init=(r.f + one, r.g)),
    "stranded": lambda: ask(C.index_fill(0, torch.tensor([12]), math.inf)),
    "map": lambda: r.map(cost=C[:2], y=y),
    "replicated b": lambda: so.solve(cost, left, copies, 0.1),
    "no rows": lambda: so.solve(distribute_tensor(C, mesh, [Replicate(), Shard(1)]), reg=0.1),
    "one of two": lambda: so.solve(C, reg=0.1, group=(None, groups[1])),
}
for name, call in bad.items():
    said[name] = refused(call)
"""
BLOCKED = {
    "stream of one": "RuntimeError: OSError: the disk is gone",
    "callback of one": "KeyError",
    "newton": "method 'newton' needs all columns on each rank: take 'auto'",
    "a beside": "a must be the same on every rank of the group",
    "reg of one": "reg must be the same on every rank of the group",
    "nan of one": "cost must be a number above -inf, got nan",
    "columns of one": "the number of columns of cost must be the same on every rank of the group",
    "start of one": "init, f must be the same on every rank of the group",
    "stranded": "row 2 has positive a but only infinite costs",
    "map": "potential() and map() need all columns, which ranks hold apart",
    "replicated b": "b must be sharded as the columns of cost are, got",
    "no rows": "cost must be sharded on its rows, Shard(0), over one dimension of its mesh",
    "one of two": "group must be a process group, or two",
}


def test_rows_and_columns_may_both_be_spread():
    said = run(4, BLOCKS)
    for told in said:
        for name, message in BLOCKED.items():
            assert message in told[name], (name, told[name])
        for name in ("plain", "uniform", "cloud", "forbidden", "batch", "relaxed", "fixed"):
            assert all(torch.equal(told[name][k], x) for k, x in said[0][name].items()), name


DIFFERENT = """
import torch
from sinkhorn_ot import Anderson, Plain, Sinkhorn

g = torch.Generator().manual_seed(0)
C = torch.rand(6, 4, generator=g, dtype=torch.float64)
x, y = C[:, :2], torch.rand(4, 2, generator=g, dtype=torch.float64)
a, b = torch.ones(6).double() / 12, torch.full((4,), 0.25).double()
one = rank == 1


def ask(cost=C, a=a, b=b, reg=0.1, **how):
    return so.solve(cost, a, b, reg, group=group, **how)


grad = C.clone().requires_grad_() if one else C
cases = {
    "reg": lambda: ask(reg=0.2 if one else 0.1),
    "no reg": lambda: ask(reg=None if one else 0.1),
    "b": lambda: ask(b=torch.tensor([0.1, 0.4, 0.25, 0.25]).double() if one else b),
    "no b": lambda: ask(b=None if one else b),
    "columns": lambda: ask(C[:, :3] if one else C, b=None),
    "dtype": lambda: ask(C.float() if one else C),
    "kind": lambda: ask(so.Streamed(C) if one else C),
    "points": lambda: ask(so.PointCloud(x, y + 1 if one else y)),
    "metric": lambda: ask(so.PointCloud(x, y, "euclidean" if one else "sqeuclidean")),
    "batch": lambda: ask(C[None] if one else C),
    "only one a": lambda: ask(a=None if one else a),
    "rows of a": lambda: ask(a=a[:5] if one else a),
    "negative a": lambda: ask(a=-a if one else a),
    "nan": lambda: ask(C * float("nan") if one else C),
    "mass": lambda: ask(a=2 * a if one else a),
    "no mass": lambda: ask(a=0 * a),
    "tol": lambda: ask(tol=1e-3 if one else None),
    "method": lambda: ask(method=Sinkhorn(Anderson(memory=3 if one else 4))),
    "n_iter": lambda: ask(n_iter=2 if one else None),
    "callback": lambda: ask(callback=print if one else None),
    "option": lambda: ask(max_iter=0 if one else 100),
    "penalty": lambda: ask(unbalanced=so.TV(1.0)),
    "mask": lambda: ask(mask=(3, None)),
    "given mass": lambda: ask(mass=0.5),
    "grid": lambda: ask(so.GridCost((2, 3), (2, 2)), a=None),
    "grad": lambda: ask(grad),
    "grad of reg": lambda: ask(reg=torch.tensor(0.1, requires_grad=True)),
    "nobody": lambda: ask(C[:0], a[:0]),
    "stranded row": lambda: ask(C.index_fill(0, torch.tensor([2]), torch.inf) if one else C),
    "stranded column": lambda: ask(C.index_fill(1, torch.tensor([3]), torch.inf)),
    "all forbidden": lambda: ask(C * torch.inf),
    "resolution": lambda: ask(reg=1e-18),
    "start": lambda: ask(init=(None, torch.full((4,), float(rank)).double())),
    "no start": lambda: ask(init=None if one else (None, b)),
    "rows of a start": lambda: ask(init=(a[:5] if one else a, b)),
    "no solver": lambda: ask(method="fastest"),
    "group": lambda: so.solve(C, reg=0.1, group=3),
    "failed": lambda: ask(method=Sinkhorn(Plain(), None), max_iter=2, on_fail="raise"),
    "warned": lambda: ask(method=Sinkhorn(Plain(), None), max_iter=2),
    "new targets": lambda: ask(so.PointCloud(x, y)).map(y, side="target"),
    "a pickle": lambda: __import__("pickle").dumps(ask()),
    "nothing": lambda: ask(),
}
for name, call in cases.items():
    said[name] = refused(call)
"""
REFUSED = {
    "reg": "ValueError: reg must be the same on every rank of the group, got 0.1 on rank 0 and 0.2",
    "no reg": "ValueError: reg must be given",
    "b": "b must be the same on every rank of the group, got (4,) of sum 1",
    "no b": "b must be the same on every rank of the group",
    "columns": "the number of columns of cost must be the same on every rank of the group, got 4",
    "dtype": "the dtype of cost must be the same on every rank",
    "kind": "the kind of cost must be the same on every rank of the group, got Dense on rank 0",
    "points": "y must be the same on every rank of the group",
    "metric": "metric must be the same on every rank of the group, got sqeuclidean on rank 0 and",
    "batch": "the leading dimensions of cost and weights must be the same on every rank",
    "only one a": "whether a is given must be the same on every rank of the group, got True on",
    "rows of a": "a must have shape (..., 6), the rows that this rank holds, got (5,)",
    "negative a": "a must be non-negative, got -0.08333 at index 0",
    "nan": "cost must be a number above -inf, got nan at index (0, 0)",
    "mass": "a and b must have the same total mass, got 1.5 and 1: normalise them",
    "no mass": "a must have a total weight from 1e-290 to 1e+154 over all ranks, got 0",
    "tol": "tol must be the same on every rank of the group, got None on rank 0 and 0.001",
    "method": "method must be the same on every rank of the group",
    "n_iter": "n_iter must be the same on every rank of the group, got None on rank 0 and 2",
    "callback": "callback must be the same on every rank of the group, got False on rank 0",
    "option": "max_iter must be a whole number of at least 1, got 0",
    "penalty": "unbalanced must be numbers, KL penalties, where rows are spread over a group",
    "mask": "mask must not be given with group, on rank",
    "given mass": "mass must not be given with group",
    "grid": "cost must be rows where they are spread over a group, got a GridCost",
    "grad": "cost requires grad, and a solve over a group has no derivatives",
    "grad of reg": "reg requires grad, and a solve over a group has no derivatives",
    "nobody": "cost must hold rows on some rank of the group, got none on any",
    "stranded row": "row 2 has positive a but only infinite costs",
    "stranded column": "column 3 has positive b but only infinite costs",
    "all forbidden": "cost must allow some pair, got inf everywhere",
    "resolution": "reg must be at least",
    "start": "init, g must be the same on every rank of the group",
    "no start": "init, g must be the same on every rank of the group, got (1, 4)",
    "rows of a start": "init must hold 6 source potentials, got (5,)",
    "no solver": "method must be one of 'auto'",
    "group": "group must be a torch.distributed process group that this process is in",
    "failed": "ConvergenceError: Ran out of iterations",
    "warned": "ConvergenceWarning: Ran out of iterations",
    "new targets": 'side must be "source" where rows are spread over a group',
    "a pickle": "a result over a group cannot be pickled",
    "nothing": "nothing",
}


def test_what_breaks_a_rule_on_one_rank_is_an_error_on_all():
    said = run(2, DIFFERENT)
    for name, message in REFUSED.items():
        for told in said:
            assert message in told[name], (name, told[name])
    assert set(said[0]) == set(REFUSED)


DYING = """
import os, signal, time

def kill(now):
    if rank == 1 and now.n_iter == 3:
        os.kill(os.getpid(), signal.SIGKILL)

C = torch.rand(200, 50, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
start = time.monotonic()
said["error"] = refused(lambda: so.solve(C, reg=1e-3, group=group, callback=kill))
said["after"] = time.monotonic() - start
"""


def test_a_rank_that_is_killed_ends_in_an_error_on_the_others():
    for said in run(3, DYING, dying=(1,)):
        assert "RuntimeError: a rank of the group cannot be reached" in said["error"]
        assert said["after"] < 60
