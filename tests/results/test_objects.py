"""What every result can do: move, be read as arrays, be picked from, be written and read again."""

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot import adapters
from sinkhorn_ot.adapters.swav import assign
from sinkhorn_ot.results.base.moving import moved
from sinkhorn_ot.results.base.parts import held


SEED = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=SEED)


X, Y, C = drawn(3, 7, 2), drawn(3, 6, 2), drawn(3, 7, 6)
A, G = drawn(3, 7).softmax(-1), drawn(2, 3, 20).softmax(-1)
S = drawn(3, 12, 4).float()
TV = so.TV(drawn(3, 7))
REGS = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)

BATCHES = {
    "stored": lambda: so.solve(C, reg=0.1),
    "single": lambda: so.solve(C.float(), reg=0.1),
    "clouds": lambda: so.solve(so.PointCloud(X, Y), reg=REGS),
    "shared": lambda: so.solve(C[0], A, reg=0.1),
    "masked": lambda: so.solve(C, reg=0.1, mask=(torch.tensor([7, 5, 3]), None)),
    "penalised": lambda: so.solve(C, reg=0.1, unbalanced=(TV, 1.0)),
    "partial": lambda: so.solve(C, reg=0.1, mass=0.5),
    "grid": lambda: so.solve(so.GridCost([4, 5]), *G, reg=0.1),
    "forbidden": lambda: so.solve(C.masked_fill(C > 0.9, math.inf), reg=0.1),
    "fixed": lambda: so.solve(C, reg=0.1, n_iter=5),
    "exact": lambda: so.solve_exact(C),
    "distance": lambda: so.sinkhorn_distance(C, alpha=0.3),
    "divergence": lambda: so.sinkhorn_divergence(X, Y, reg=0.1),
    "shared divergence": lambda: so.sinkhorn_divergence(X[0], Y, A[0], reg=REGS),
    "line": lambda: so.solve_1d(X[..., 0], Y[..., 0]),
    "circle": lambda: so.solve_1d(X[..., 0], Y[..., 0], period=1.0),
    "sliced": lambda: so.sliced_distance(X, Y),
    "barycenter": lambda: so.barycenter(G.movedim(0, 1), C.new_ones(20, 20).tril(), reg=0.5),
    "certificate": lambda: so.solve(C, reg=0.1).certificate(),
    "sela": lambda: so.sela_labels(S),
    "balanced": lambda: so.balanced_labels(S),
    "router": lambda: adapters.moe_router(S),
    "codes": lambda: assign(S),
}
ALONE = {
    "small": lambda: so.solve(C[0], reg=0.1),
    "two clouds": lambda: so.solve(so.PointCloud(X[0], Y[0]), reg=0.1),
    "beyond": lambda: so.solve_exact(so.PointCloud(X[0], Y[0])),
    "one line": lambda: so.solve_1d(X[0, :, 0], Y[0, :, 0]),
    "free": lambda: so.free_barycenter(X, reg=0.1, on_fail="ignore"),
    "clusters": lambda: adapters.deepcluster_labels(X[0], X[1, :3]),
    "two levels": lambda: adapters.deepercluster_labels(torch.randn(20, 3), 2, 2),
}
# numbers of all problems, whatever of them are picked
WHOLE = ("status", "method", "directions")


def again(r: Any, **how: Any) -> Any:
    """Write a result and read it as torch does where nobody trusts a file."""
    file = io.BytesIO()
    torch.save(r.state_dict(**how), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one: dict[str, Any], other: dict[str, Any], leave: tuple[str, ...] = ()) -> None:
    """Require the same arrays by the same names."""
    assert one.keys() == other.keys()
    for name in one.keys() - set(leave):
        assert one[name].shape == other[name].shape, name
        assert one[name].dtype == other[name].dtype, name
        if one[name].dtype.kind != "f":
            np.testing.assert_array_equal(one[name], other[name], name)
        else:
            few = 1e-6 if one[name].dtype == np.float32 else 1e-12
            np.testing.assert_allclose(one[name], other[name], few, few, err_msg=name)


@pytest.mark.parametrize("name", BATCHES | ALONE)
def test_what_is_written_is_read_again(name):
    r = (BATCHES | ALONE)[name]()
    back = so.from_state_dict(again(r))
    assert type(back) is type(r)
    assert repr(back) == repr(r)
    same(r.numpy(), back.numpy())
    if hasattr(r, "plan"):
        torch.testing.assert_close(back.plan, r.plan)


@pytest.mark.parametrize("name", BATCHES)
def test_picked_problems_tell_what_the_batch_tells_of_them(name):
    r = BATCHES[name]()
    all_of, leave = r.numpy(), (*WHOLE, *(["statuses"] if "divergence" in name else []))
    places = (1, -1, slice(1, None), [2, 0, 2], torch.arange(3) != 1, np.array([1]), ...)
    for k in places:
        at = k.numpy() if isinstance(k, Tensor) else k
        wanted = {n: x if n in leave else x[at] for n, x in all_of.items()}
        same(r[k].numpy(), wanted, leave)
    assert len(r) == 3
    assert [type(one) for one in r] == [type(r)] * 3


@pytest.mark.parametrize("name", BATCHES)
def test_no_problem_is_a_batch_too(name):
    r = BATCHES[name]()
    none = r[[False, False, False]]
    assert len(none) == 0
    assert bool(none)
    assert not list(none)
    assert all(x.shape[0] == 0 for n, x in none.numpy().items() if n not in (*WHOLE, "statuses"))
    if hasattr(none, "message") and "divergence" not in name:
        assert none.message.startswith("There are no ")
    if hasattr(none, "plan"):
        assert none.plan.shape[0] == 0


def test_dimensions_of_a_batch_are_picked_like_those_of_a_tensor():
    r = so.solve(torch.rand(2, 3, 5, 4), reg=0.1)
    assert len(r) == 2
    assert r[1].plan.shape == (3, 5, 4)
    torch.testing.assert_close(r[1, 2].plan, r.plan[1, 2])
    torch.testing.assert_close(r[:, 1].f, r.f[:, 1])
    mask = torch.tensor([[True, False, True], [False, False, True]])
    torch.testing.assert_close(r[mask].value, r.value[mask])
    assert r.numpy("statuses")["statuses"].shape == (2, 3)


@pytest.mark.parametrize("k", [3, -4, "a", 1.5, (0, 0), [[7]], torch.tensor([True])])
def test_an_index_that_does_not_fit_is_told_as_lists_tell_it(k):
    with pytest.raises(IndexError, match=r"^k must fit a batch of \(3,\): "):
        BATCHES["stored"]()[k]


@pytest.mark.parametrize("name", ALONE)
def test_one_problem_is_no_batch(name):
    r = ALONE[name]()
    for act in (lambda: r[0], lambda: len(r), lambda: list(r)):
        with pytest.raises(TypeError, match="is of one problem, not of a batch: it has no"):
            act()
    assert r or pytest.fail("a result is there")


def test_derivatives_stay_with_what_is_picked():
    cost, y = C.clone().requires_grad_(), Y[0].clone().requires_grad_()
    r = so.solve(cost, reg=0.1)
    tells = (
        lambda r: r.value,
        lambda r: r.plan,
        lambda r: r.f,
        lambda r: r.barycentric(y),
    )
    for tell in tells:
        for k in (1, [2, 0]):
            pairs = [
                torch.autograd.grad(t.square().sum(), (cost, y), allow_unused=True)
                for t in (tell(r[k]), tell(r)[k])
            ]
            for one, other in zip(*pairs, strict=True):
                torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="k must name each problem once where an argument"):
        r[[0, 0]]
    assert r.detach()[[0, 0]].value.shape == (2,)


def test_second_derivatives_stay_too():
    cost = C.clone().requires_grad_()
    r = so.solve(cost, reg=0.1)
    found = []
    for value in (r[1].value, r.value[1]):
        (first,) = torch.autograd.grad(value, cost, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), cost)[0])
    torch.testing.assert_close(*found)


def test_derivatives_of_divergences_and_lines_stay():
    x = X.clone().requires_grad_()
    for r in (so.sinkhorn_divergence(x, Y, reg=0.1), so.solve_1d(x[..., 0], Y[..., 0])):
        one, other = (torch.autograd.grad(t, x)[0] for t in (r[1].value, r.value[1]))
        torch.testing.assert_close(one, other)


def test_arrays_have_no_derivatives():
    cost = C.clone().requires_grad_()
    r = so.solve(cost, reg=0.1)
    with pytest.raises(ValueError, match="f requires grad, and arrays have no derivatives"):
        r.numpy()
    same(r.detach().numpy(), so.solve(C, reg=0.1).numpy())
    with torch.no_grad():
        assert r.numpy("value")["value"].shape == (3,)
    # what is written holds constants, as a copy does
    assert not so.from_state_dict(again(r)).value.requires_grad
    b = so.barycenter(G.movedim(0, 1).requires_grad_(), C.new_ones(20, 20).tril(), reg=0.5)
    with pytest.raises(ValueError, match="k must not pick from a barycentre where an argument"):
        b[0]


def test_arrays_have_the_names_of_attributes():
    r = BATCHES["stored"]()
    told = r.numpy()
    for name, array in told.items():
        t = getattr(r, name)
        if isinstance(t, Tensor):
            np.testing.assert_array_equal(array, t.numpy())
    assert told["statuses"].tolist() == ["CONVERGED"] * 3
    assert str(told["status"]) == "CONVERGED"
    assert "plan" not in told
    np.testing.assert_array_equal(r.numpy("plan")["plan"], r.plan.numpy())
    file = io.BytesIO()
    np.savez(file, **told)
    file.seek(0)
    assert np.load(file, allow_pickle=False)["statuses"][0] == "CONVERGED"
    for wrong in ("plans", "_plan", "apply", "problem", 3):
        with pytest.raises(ValueError, match=r"names must be of its numbers, such as f, g, value"):
            r.numpy(wrong)


@pytest.mark.filterwarnings("ignore::sinkhorn_ot.ConvergenceWarning")
def test_failures_stay_what_they_are():
    blocked = torch.ones(3, 3)
    blocked[1:, 1:] = math.inf
    r = so.solve(torch.stack([blocked, torch.rand(3, 3)]), reg=0.1)
    back = so.from_state_dict(again(r))
    for one in (back, r[[0, 1]]):
        assert one.statuses == [so.Status.INFEASIBLE, so.Status.CONVERGED]
        assert one.message == r.message
    assert r[0].message.startswith("No plan exists: ")
    assert "Rows [1, 2] hold 0.667" in r[0].message.replace("0.666666667", "0.667")
    assert r[1].message.startswith("The marginals match to within tol. Reached ")
    with pytest.raises(so.ConvergenceError):
        back[0].check()
    assert r[r.converged].check().n_iter.shape == (1,)
    lost = so.solve(torch.tensor([[0.0, 1e30], [1.0, 0.0]]), reg=1e30, n_iter=2)
    assert so.from_state_dict(again(lost)).statuses == lost.statuses


@pytest.mark.parametrize("name", ["stored", "single", "clouds", "penalised", "masked", "exact"])
def test_a_cost_may_be_left_out_and_given_back(name):
    cost = {"single": C.float(), "clouds": so.PointCloud(X, Y)}.get(name, C)
    r = BATCHES[name]()
    state = again(r, cost=False)
    bare = so.from_state_dict(state)
    same(r.numpy(), bare.numpy())
    if name != "exact":
        with pytest.raises(ValueError, match="^cost was not kept with this result"):
            bare[0].plan  # noqa: B018
    back = so.from_state_dict(state, cost=cost)
    torch.testing.assert_close(back.plan, r.plan)
    torch.testing.assert_close(back.apply(Y[0]), r.apply(Y[0]))
    # and it is where another solve may begin
    assert int(so.solve(cost, reg=0.1, init=bare).n_iter.max()) >= 0


def test_another_cost_than_the_one_that_was_solved_is_refused():
    r = BATCHES["stored"]()
    state = r.state_dict(cost=False)
    # of the same numbers too, in other places
    moved = C.flip(1), C[[1, 0, 2]]
    for wrong in (C + 1, C.float(), C[:, :5], C[0], C[:2], so.PointCloud(X, Y), "C", *moved):
        with pytest.raises(ValueError, match="^cost "):
            so.from_state_dict(state, cost=wrong)
    with pytest.raises(ValueError, match="cost must be given only where the state was made with"):
        so.from_state_dict(r.state_dict(), cost=C)
    with pytest.raises(ValueError, match="cost must be True for a Divergence"):
        BATCHES["divergence"]().state_dict(cost=False)


def test_no_problem_is_shown_and_claims_no_proof():
    none = BATCHES["stored"]()[[]]
    assert "n=" in repr(none)
    assert none.status is so.Status.CONVERGED
    assert repr(none.to(torch.float64))


def test_bfloat16_becomes_single_precision():
    codes = so.adapters.swav.assign(torch.rand(30, 5).bfloat16())
    assert codes.numpy()["codes"].dtype == np.float32


def test_what_no_file_keeps_is_said():
    r = so.solve(so.PointCloud(X[0], Y[0], lambda x, y: torch.cdist(x, y)), reg=0.1)
    with pytest.raises(ValueError, match=r"leave the cost out, .state_dict\(cost=False\)"):
        r.state_dict()
    back = so.from_state_dict(again(r, cost=False))
    torch.testing.assert_close(back.value, r.value)
    streamed = so.solve(so.Streamed([C[0, :3], C[0, 3:]]), reg=0.1)
    with pytest.raises(ValueError, match="cost holds a Streamed, which no file keeps"):
        streamed.state_dict()
    back = so.from_state_dict(streamed.state_dict(cost=False), cost=C[0])
    torch.testing.assert_close(back.plan, streamed.plan)


@pytest.mark.parametrize(
    "state",
    [
        None, {}, [], 3, {"format": "sinkhorn_ot result 0", "result": {}},
        {"format": "sinkhorn_ot result 1"},
        {"format": "sinkhorn_ot result 1", "result": 3},
        {"format": "sinkhorn_ot result 1", "result": {"type": "Transport"}},
        {"format": "sinkhorn_ot result 1", "result": {"type": "os.system", "command": "ls"}},
        {"format": "sinkhorn_ot result 1", "result": {"type": "Status", "name": "GOOD"}},
        {"format": "sinkhorn_ot result 1", "result": {"type": "Bounds", "low": 0, "high": 1}},
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="^state must be "):
        so.from_state_dict(state)


def test_a_dtype_is_what_numbers_are_told_in():
    r = so.solve(C.float(), reg=0.1)
    wide = r.to(torch.float64)
    assert wide.value.dtype == wide.plan.dtype == torch.float64
    torch.testing.assert_close(wide.to(torch.float32).plan, r.plan, rtol=0, atol=0)
    # inside nothing was rounded
    assert not torch.equal(wide.value, r.value.double())
    for name in ("divergence", "distance", "line", "barycenter", "sliced"):
        told = BATCHES[name]().to("cpu", torch.float32).numpy()
        assert {x.dtype for x in told.values() if x.dtype.kind == "f"} == {np.dtype(np.float32)}
    cost = C.clone().requires_grad_()
    (by,) = torch.autograd.grad(so.solve(cost, reg=0.1).to(torch.float32).value.sum(), cost)
    torch.testing.assert_close(by, so.solve(C, reg=0.1).plan)


@pytest.mark.parametrize("name", ["certificate", "sela", "balanced", "router", "codes", "clusters"])
def test_a_dtype_is_refused_where_the_last_digit_counts(name):
    r = (BATCHES | ALONE)[name]()
    with pytest.raises(ValueError, match=f"dtype must be left out for a {type(r).__name__}: "):
        r.to(torch.float32)


@pytest.mark.parametrize(
    "given",
    [(), ("nowhere",), ("meta",), (torch.float16,), ("cpu", torch.int64), (C,), (object(),)],
)
def test_nowhere_to_go_is_told(given):
    with pytest.raises(ValueError, match=r"^(to\(\) needs a device|device must|dtype must)"):
        BATCHES["stored"]().to(*given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="device must be one that is there, got 'cuda'"):
        BATCHES["stored"]().to("cuda")


@pytest.mark.parametrize("name", BATCHES | ALONE)
def test_all_tensors_move(name):
    r = (BATCHES | ALONE)[name]()
    assert r.cpu() is r
    # a device without numbers stands for any other
    away = moved(r, torch.device("meta"))
    assert {t.device.type for t in held(away, Tensor)} == {"meta"}
    assert not held(away, np.ndarray)


class Own:
    """A cost of somebody's own, which nobody else knows how to move."""

    def __init__(self, cost: so.Dense) -> None:
        self.cost = cost

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cost, name)

    def flat(self, batch: torch.Size) -> "Own":
        return Own(self.cost.flat(batch))


def test_a_cost_goes_along_or_says_that_it_cannot():
    r = so.solve(so.Streamed([C[0]]), reg=0.1)
    assert moved(r, torch.device("meta")).problem.cost.device.type == "meta"
    r = so.solve(Own(so.Dense(C[0])), reg=0.1)
    with pytest.raises(ValueError, match=r"cost must have a method to\(device\) for its result"):
        moved(r, torch.device("meta"))
    with pytest.raises(ValueError, match="cost holds a Own, which no file keeps"):
        r.state_dict()


@pytest.mark.gpu
def test_what_a_gpu_solved_goes_on_elsewhere():
    x = X[0].float().cuda()
    for cost in (C.float().cuda(), so.PointCloud(x, Y[0].float().cuda())):
        r = so.solve(cost, reg=0.1)
        here = r.cpu()
        assert here.plan.device.type == "cpu"
        torch.testing.assert_close(here.plan, r.plan.cpu(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(here.value, r.value.cpu(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(here.to("cuda").plan, r.plan, rtol=1e-4, atol=1e-6)
        assert r.numpy()["f"].shape == tuple(r.f.shape)
        back = so.from_state_dict(again(r))
        torch.testing.assert_close(back.plan, r.plan, rtol=1e-4, atol=1e-6)
    cost = C.float().cuda().requires_grad_()
    (by,) = torch.autograd.grad(so.solve(cost, reg=0.1).cpu().value.sum(), cost)
    torch.testing.assert_close(by, so.solve(cost.detach(), reg=0.1).plan, rtol=1e-3, atol=1e-5)


def test_copies_are_results_as_before():
    r = BATCHES["stored"]()
    assert len(copy.deepcopy(r)) == 3
    torch.testing.assert_close(copy.copy(r)[0].plan, r.plan[0])
