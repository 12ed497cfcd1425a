"""What surrounds a call: default devices, compiled steps, transforms, other kinds of tensors."""

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.autograd import forward_ad

import sinkhorn_ot as so
from sinkhorn_ot import adapters
from sinkhorn_ot.compat.swav import distributed_sinkhorn
from sinkhorn_ot.problem import make


random = torch.Generator().manual_seed(0)
C = torch.rand(40, 30, generator=random)
# every column may be served, and small blocks may not serve one another
F = C.clone()
F[:20, :14] = math.inf
S = torch.randn(40, 4, generator=random)
X, Y = torch.randn(40, 3, generator=random), torch.randn(30, 3, generator=random)
HEADS = torch.randn(4, 3, generator=random)
MANY = torch.randn(20_000, 4, generator=random)
IMAGES, TURNS = torch.rand(8, 3, 4, 4, generator=random), torch.arange(8) % 4
FIELDS = ("plan", "log_plan", "f", "g", "value", "value_linear", "dual_value", "gap")


def everything(r: so.Transport) -> list[Any]:
    parts = [getattr(r, name) for name in (*FIELDS, "marginal_error", "converged", "n_iter")]
    return [*parts, r.round(), r.certificate().gap, r.apply(Y), r.barycentric(Y), r.message]


def bank() -> Tensor:
    # its buffers are where modules are made
    with torch.device("cpu"):
        made = so.LabelBank(40, 4)
    made.update(S)
    made.update(S, index=[*range(40)])
    return made[[1, 2]]


def queue() -> Tensor:
    with torch.device("cpu"):
        made = so.SwAVQueue(8, 3)
    made.push(X)
    return so.swav_codes_from_features(X, HEADS, made)


def from_pairs() -> so.Transport:
    pairs = [([*range(20, 40)], C[20:]), (range(20), C[:20])]
    return so.solve(so.Streamed(pairs), reg=0.1)


CALLS: dict[str, Callable[[], Any]] = {
    "solve": lambda: everything(so.solve(C, reg=0.05)),
    "solve lists": lambda: so.solve([[1.0, 2.0], [3.0, 4.0]], reg=1.0),
    "solve a batch": lambda: everything(so.solve(torch.stack([C, C, F]), reg=0.05)),
    "solve sharply": lambda: so.solve(F.double(), reg=1e-3).value,
    "solve by newton": lambda: so.solve(C, reg=0.01, method="newton").value,
    "solve by sinkhorn": lambda: so.solve(C, reg=0.01, method="sinkhorn").value,
    "solve relaxed": lambda: so.solve(C, reg=0.01, unbalanced=1.0).value,
    "solve n_iter": lambda: so.solve(C, reg=0.1, n_iter=5).value,
    "solve without a weight": lambda: so.solve(C, [0.0] + [1 / 39] * 39, reg=0.1).f,
    "solve and miss": lambda: so.solve(C.double(), reg=1e-5, max_iter=20, on_fail="ignore").value,
    "solve warm": lambda: so.solve(C, reg=0.01, init=so.solve(C, reg=0.02)).value,
    "PointCloud": lambda: everything(so.solve(so.PointCloud(X, Y), reg=1.0)),
    "Streamed": lambda: everything(so.solve(so.Streamed([C[:10], C[10:]]), reg=0.1)),
    "Streamed of pairs": lambda: everything(from_pairs()),
    "solve_exact": lambda: everything(so.solve_exact(torch.stack([F, C]))),
    "solve_exact by highs": lambda: so.solve_exact(F, engine="highs").plan,
    "solve_exact by assignment": lambda: so.solve_exact(C[:30], engine="assignment").plan,
    "balanced_labels": lambda: so.balanced_labels(S),
    "balanced_labels fast": lambda: so.balanced_labels(S, mode="fast"),
    "balanced_labels of one": lambda: so.balanced_labels(S, [40, 0, 0, 0]),
    "balanced_labels of many": lambda: so.balanced_labels(MANY),
    "sela_labels": lambda: so.sela_labels(S, rounding="balanced", align=True),
    "sela_labels of many": lambda: so.sela_labels([*(100 * MANY).split(7000)]),
    "sela_labels_from_features": lambda: so.sela_labels_from_features(X, HEADS),
    "mean_log_probs": lambda: so.sela_labels(so.mean_log_probs(S, S)),
    "LabelBank": bank,
    "SwAVQueue": queue,
    "SwAVLoss": lambda: so.SwAVLoss()([S, S]),
    "swav_codes": lambda: so.swav_codes(S, mask=[True] * 30 + [False] * 10),
    "swav_codes hard": lambda: so.swav_codes(S, hard=True),
    "swav_codes to tolerance": lambda: so.swav_codes(S, n_iter=None),
    "swav_codes_from_features": lambda: so.swav_codes_from_features(X, HEADS),
    "distributed_sinkhorn": lambda: distributed_sinkhorn(S),
    "dino_codes": lambda: adapters.dino_codes(S, 0.05),
    "capi_codes": lambda: adapters.capi_codes(S[:, None]),
    "msn_codes": lambda: adapters.msn_codes(S),
    "moe_router": lambda: adapters.moe_router(S).plan,
    "clot_labels": lambda: adapters.clot_labels(S),
    "CLOTLoss": lambda: adapters.CLOTLoss()(S, S, X, X),
    "deepcluster_labels": lambda: adapters.deepcluster_labels(X, X[:4], min_size=5),
    "deepercluster_labels": lambda: adapters.deepercluster_labels(X, 2, 2),
    "k_means": lambda: adapters.k_means(X, 4),
    "rotate": lambda: adapters.rotate(IMAGES, TURNS),
}


@pytest.fixture
def meta() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("meta")
def test_another_default_device_changes_nothing(name):
    CALLS[name]()


# the compiler would see as many graphs as a loop has turns
COMPILED = {
    "solve": lambda x: so.solve(x, reg=0.1).value,
    "solve and its plan": lambda x: (so.solve(x, reg=0.1).plan * x).sum(),
    "solve and its bounds": lambda x: so.solve(x, reg=0.1).certificate().gap,
    "solve_exact": lambda x: so.solve_exact(x).value,
    "balanced_labels": lambda x: so.balanced_labels(x).labels,
    "sela_labels": lambda x: so.sela_labels(x).labels,
    "clot_labels": lambda x: adapters.clot_labels(x),
    "moe_router": lambda x: adapters.moe_router(x).log_plan,
    "deepcluster_labels": lambda x: adapters.deepcluster_labels(x, x[:3]).labels,
    "deepercluster_labels": lambda x: adapters.deepercluster_labels(x, 2, 2).sub,
    "k_means": lambda x: adapters.k_means(x, 3).labels,
}


@pytest.mark.slow(9)
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_step_leaves_it_alone(name):
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    act = COMPILED[name]
    dynamo.reset()
    step = torch.compile(lambda x: act(2 * x) * 3, backend="eager")
    for size in (20, 21, 22):
        x = torch.rand(size, 5, generator=torch.Generator().manual_seed(size))
        counters.clear()
        torch.testing.assert_close(step(x), act(2 * x) * 3)
    # sizes are known to vary now, and nothing is left to see
    assert counters["frames"]["total"] <= 4, counters["frames"]


@pytest.mark.slow(2)
def test_to_be_left_alone_imports_no_compiler():
    code = """
        import sys, torch
        import sinkhorn_ot as so
        so.solve(torch.rand(5, 4), reg=0.1).plan
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


MAPPED = {
    "cost": lambda t: make(t, reg=0.1).reg,
    "x": lambda t: make(so.PointCloud(t, t), reg=0.1).reg,
    "logits": lambda t: adapters.moe_router(t).log_plan,
    "log_probs": lambda t: so.sela_labels(t).labels,
    "scores": lambda t: so.balanced_labels(t).labels,
}


# what torch itself warns of when it loads them
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("name", MAPPED)
def test_transforms_are_refused(name):
    act, t = MAPPED[name], torch.rand(2, 4, 5)
    for call in (
        lambda: torch.vmap(act)(t),
        lambda: torch.func.grad(lambda x: act(x).sum())(t[0]),
        lambda: torch.func.jvp(act, (t[0],), (t[1],)),
    ):
        with pytest.raises(ValueError, match=f"{name} .* inside a transform of torch.func"):
            call()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_tangent_is_refused_not_dropped():
    x = torch.rand(4, 5)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(ValueError, match="cost has a tangent, and forward derivatives"):
            make(dual, reg=0.1)
        assert so.solve(dual.detach(), reg=0.1).converged
        assert so.solve(x, reg=0.1).converged
        with torch.no_grad():
            assert so.solve(dual, reg=0.1).converged


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_sparse_and_nested_costs_are_told_what_to_do():
    sparse = scipy.sparse.csr_array(np.eye(3))
    for cost, text in (
        (sparse, r"cost must be dense, got a csr_array: pass \.toarray\(\), with inf"),
        (scipy.sparse.coo_matrix(np.eye(3)), r"got a coo_matrix: pass \.toarray\(\)"),
        (torch.eye(3).to_sparse(), r"got layout torch\.sparse_coo: pass \.to_dense\(\), with inf"),
        (torch.nested.nested_tensor([C, F]), r"got a nested one: pad it"),
        (torch.nested.nested_tensor([C, F], layout=torch.jagged), r"got a nested one: pad it"),
    ):
        with pytest.raises(ValueError, match=text):
            so.solve(cost, reg=0.1)


def same(r: so.Transport, s: so.Transport) -> None:
    torch.testing.assert_close(r.plan, s.plan.to(r.plan), rtol=1e-6, atol=0)


def test_an_empty_list_of_weights_is_uniform_as_in_pot():
    for nothing in ([], (), np.array([])):
        same(so.solve(C, nothing, nothing, 0.1), so.solve(C, reg=0.1))
        same(so.solve_exact(C, nothing, nothing), so.solve_exact(C))
    with pytest.raises(ValueError, match="a must not be empty"):
        so.solve(C, torch.ones(0), reg=0.1)


def test_whole_numbers_are_weights():
    C, a, b = torch.rand(3, 4), torch.tensor([1, 0, 3]), torch.tensor([1, 1, 2, 0])
    want = so.solve(C, a.double(), b.double(), 0.1)
    same(so.solve(C, a, b, 0.1), want)
    same(so.solve(C, a.to(torch.uint8), b.numpy(), 0.1), want)
    same(so.solve(C, a.tolist(), b.tolist(), 0.1), want)
    used = torch.tensor([True, False, True])
    same(so.solve(C, used, b / 2.0, 0.1), so.solve(C, used.double(), b / 2.0, 0.1))


def test_whole_numbers_are_points():
    x, y = torch.arange(8).reshape(4, 2), torch.rand(5, 2)
    same(so.solve(so.PointCloud(x, y), reg=1), so.solve(so.PointCloud(x.float(), y), reg=1))
    assert so.PointCloud(x, y).dtype == so.PointCloud(y, x.numpy()).dtype == torch.float32
    assert so.PointCloud(x, x).dtype == so.PointCloud([[0], [1]], [[2]]).dtype == torch.float64
    # float32 would lose the last digit of this one
    with pytest.raises(ValueError, match="x and y must share a dtype, got torch.float64 and"):
        so.PointCloud(torch.tensor([[2**24 + 1]]), y[:, :1])
    with pytest.raises(ValueError, match=r"x must be whole numbers up to 2\^53 or floating point"):
        so.PointCloud(torch.tensor([[2**53 + 2]]), y[:, :1])


def test_what_lists_may_say_tensors_may():
    two = torch.stack([C, C])
    same(so.solve(two, reg=torch.tensor([1, 2])), so.solve(two, reg=[1.0, 2.0]))
    same(so.solve(two, reg=(1, 2)), so.solve(two, reg=np.array([1, 2])))
    pair = so.solve(C, reg=0.1, unbalanced=(1.0, 2.0))
    same(so.solve(C, reg=0.1, unbalanced=torch.tensor([1.0, 2.0])), pair)
    same(so.solve(C, reg=0.1, unbalanced=torch.tensor([1, 2])), pair)
    one = so.solve(C, reg=0.1, unbalanced=1.0)
    same(so.solve(C, reg=0.1, unbalanced=torch.tensor(1.0)), one)
    init = torch.rand(40), torch.rand(30)
    same(so.solve(C, reg=0.1, init=[*init]), so.solve(C, reg=0.1, init=init))
