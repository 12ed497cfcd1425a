"""Training steps around `solve`: half precision, checkpoints, ranks, workers, copies."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from ranks import run
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import sinkhorn_ot as so


REG = 0.1


class Matcher(nn.Module):
    """Features whose clouds are matched."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def loss(x: Tensor, y: Tensor) -> Tensor:
    r = so.solve(so.PointCloud(x.double(), y.double()), reg=REG, tol=1e-11)
    return r.value.mean() + r.plan.square().sum()


def clouds(*batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(*batch, n, 4, generator=generator) for n in (7, 6))


def grads(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters()]


def test_autocast_has_no_say_in_derivatives():
    """Features may be half precision; what is solved and differentiated is not."""
    model, (x, y) = Matcher(), clouds()
    features = [model(t).bfloat16().float().detach().requires_grad_() for t in (x, y)]
    want = torch.autograd.grad(loss(*features), features)
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.autograd.grad(loss(*features), features)
        half = [t.detach().bfloat16().requires_grad_() for t in features]
        low = so.solve(so.PointCloud(*half), reg=REG, tol=1e-11)
        both = low.value.mean() + low.plan.square().sum()
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    # half precision asks for half precision's derivatives
    for g, w in zip(torch.autograd.grad(both, half), want, strict=True):
        assert g.dtype == torch.bfloat16
        torch.testing.assert_close(g.float(), w, rtol=2e-2, atol=2e-3)


def test_a_step_in_half_precision():
    model, (x, y) = Matcher(), clouds()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(model(x), model(y))
    found.backward()
    assert all(bool(g.isfinite().all()) and g.abs().sum() > 0 for g in grads(model))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_change_no_digit(use_reentrant):
    x, y = (t.requires_grad_() for t in clouds())
    model, again = Matcher(), Matcher()
    loss(model(x), model(y)).backward()

    def part(p: Tensor, q: Tensor) -> Tensor:
        return loss(again(p), again(q))

    checkpoint(part, x, y, use_reentrant=use_reentrant).backward()
    torch.testing.assert_close(grads(again), grads(model), rtol=0, atol=0)


def test_a_checkpoint_of_a_plan_inside_of_a_longer_step():
    x, y = (t.double().requires_grad_() for t in clouds())

    def moved(p: Tensor, q: Tensor) -> Tensor:
        return so.solve(so.PointCloud(p, q), reg=REG, tol=1e-12).barycentric(q)

    want = torch.autograd.grad((moved(x, y) * x).sum(), (x, y))
    again = checkpoint(moved, x, y, use_reentrant=False)
    got = torch.autograd.grad((again * x).sum(), (x, y))
    torch.testing.assert_close(got, want, rtol=0, atol=0)


RANKS = """
    import warnings
    from torch.distributed.fsdp import fully_shard

    # that its hooks sit on a view, which nobody changes here
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")

    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def loss(net):
        x, y = torch.rand(world, 7, 4), torch.rand(world, 6, 4)
        x, y = (net(t[rank : rank + 1]).double() for t in (x, y))
        r = so.solve(so.PointCloud(x, y), reg=0.1, tol=1e-11)
        return r.value.mean() + r.plan.square().sum()

    spread = torch.nn.parallel.DistributedDataParallel(model())
    torch.manual_seed(1)
    loss(spread).backward()
    said["ddp"] = [p.grad for p in spread.parameters()]
    torch.manual_seed(1)
    shards = fully_shard(model(), mesh=dist.init_device_mesh("cpu", (world,)))
    torch.manual_seed(1)
    loss(shards).backward()
    said["fsdp"] = [p.grad.full_tensor() for p in shards.parameters()]
    alone = model()
    torch.manual_seed(1)
    x, y = torch.rand(world, 7, 4), torch.rand(world, 6, 4)
    r = so.solve(so.PointCloud(alone(x).double(), alone(y).double()), reg=0.1, tol=1e-11)
    (r.value.mean() + r.plan.square().sum() / world).backward()
    said["alone"] = [p.grad for p in alone.parameters()]
"""


@pytest.mark.slow(8)
def test_ranks_average_the_gradient_of_one_process():
    for said in run(2, RANKS):
        for way in ("ddp", "fsdp"):
            torch.testing.assert_close(said[way], said["alone"], rtol=1e-5, atol=1e-6)


class Costs(Dataset):
    """Costs of problems, each solved by who reads it."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        C = torch.rand(5, 6, generator=torch.Generator().manual_seed(k)).double()
        r = so.solve(C.requires_grad_(), reg=REG)
        (slope,) = torch.autograd.grad(r.value_linear, C)
        return r.plan.detach(), slope


@pytest.mark.slow(8)
@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_solve(context):
    data = Costs(6)
    # a process that has solved already, and so has what threads it has
    want = [data[k] for k in range(6)]
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=context)
    plans, slopes = (torch.cat(t) for t in zip(*loader, strict=True))
    torch.testing.assert_close(plans, torch.stack([p for p, _ in want]))
    torch.testing.assert_close(slopes, torch.stack([s for _, s in want]))


def again_by_pickle(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def again_by_save(x: Any) -> Any:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": again_by_pickle,
    "save": again_by_save,
}
C = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0)).double()
RESULTS = {
    "solve": lambda c: so.solve(c, reg=REG),
    "relaxed": lambda c: so.solve(c, reg=REG, unbalanced=(0.5, None)),
    "one": lambda c: so.solve(c[0], reg=REG),
    "cloud": lambda c: so.solve(so.PointCloud(c[0], c[1]), reg=REG),
    "exact": lambda c: so.solve_exact(c),
    "distance": lambda c: so.sinkhorn_distance(c, alpha=0.3),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", RESULTS)
def test_results_are_copied(name, way):
    r = RESULTS[name](C)
    before = COPIES[way](r)
    plan = r.plan
    for s in (before, COPIES[way](r)):
        torch.testing.assert_close(s.value, r.value, rtol=0, atol=0)
        torch.testing.assert_close(s.plan, plan, rtol=0, atol=0)
        assert repr(s) == repr(r)
        assert torch.equal(s.converged, r.converged)


@pytest.mark.parametrize("name", RESULTS)
def test_copies_of_results_with_derivatives_hold_constants(name):
    r = RESULTS[name](C.clone().requires_grad_())
    value, plan = r.value, r.plan.detach()
    assert value.requires_grad
    for way in ("deepcopy", "pickle", "save"):
        s = COPIES[way](r)
        assert not s.value.requires_grad
        torch.testing.assert_close(s.value, value.detach(), rtol=0, atol=0)
        torch.testing.assert_close(s.plan, plan, rtol=0, atol=0)
    # a shallow copy is the same result
    assert copy.copy(r).value.requires_grad
    assert r.value.requires_grad


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save"])
def test_clouds_whose_points_are_parameters(way):
    x = nn.Parameter(C[0].clone())
    cloud = so.PointCloud(x, C[1])
    other = COPIES[way](cloud)
    assert isinstance(other.x, nn.Parameter)
    assert other.x is not x
    value = so.solve(other, reg=REG).value
    (slope,) = torch.autograd.grad(value, other.x)
    torch.testing.assert_close(slope, torch.autograd.grad(so.solve(cloud, reg=REG).value, x)[0])


MODULES = {
    "SwAVLoss": lambda: so.SwAVLoss(),
    "SwAVQueue": lambda: so.SwAVQueue(8, 3),
    "CLOTLoss": lambda: so.adapters.CLOTLoss(),
}


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_are_copied(name, way):
    module = MODULES[name]()
    if name == "SwAVQueue":
        module.push(torch.rand(3, 3))
    other = COPIES[way](module)
    assert repr(other) == repr(module)
    assert str(other.state_dict()) == str(module.state_dict())
