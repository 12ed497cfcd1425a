"""What calls launch on a GPU, counted without one: the same every time, at any size, and few."""

from functools import partial

import numpy as np
import pytest
import torch

import sinkhorn_ot as so


pytest.importorskip("triton", reason="triton is not installed, so there are no kernels")

from bench.host import calls  # noqa: E402
from bench.host.pretend import on_card, plain, watched  # noqa: E402
from bench.host.run import counted, watch  # noqa: E402
from sinkhorn_ot.problem import make  # noqa: E402
from sinkhorn_ot.sweeps import gpu  # noqa: E402
from sinkhorn_ot.sweeps.portable import by_sorts  # noqa: E402


COUNTED = {call.name: call for call in calls.CALLS}
# launches at most: kernels and operators that launch something
MOST = {
    "swav_codes": 4,
    "swav_codes, rows too long for the chip": 8,
    "dino_codes": 4,
    "moe_router, 10 iterations": 2,
    "normalize and back": 2,
    "moe_router to 1e-4": 2,
    "solve, 10 sweeps": 25,
    "solve clouds, 5 sweeps": 52,
}
# the same of solves whose sweeps the host makes, their waits, and launches of each sweep by itself
SWEPT = {"solve, relaxed, to 1e-5": (99, 5, 6), "solve clouds to 1e-5": (171, 9, 7)}


@pytest.fixture(autouse=True)
def _poison_empty():
    """Leave memory as it comes: to fill it would be counted."""


@pytest.mark.slow(4)
@pytest.mark.parametrize("name", MOST)
def test_calls_launch_little_and_never_wait(name):
    first, again = counted(COUNTED[name]), counted(COUNTED[name])
    assert first["kernels"] + first["operators"] <= MOST[name]
    assert first["kernels"] > 0, "it reached no kernel"
    assert first["waits"] == 0
    assert again["by_kernel"] == first["by_kernel"]
    assert again["by_operator"] == first["by_operator"]


@pytest.mark.slow(3)
@pytest.mark.parametrize("name", SWEPT)
def test_sweeps_from_the_host_launch_little(name):
    most, waits, each = SWEPT[name]
    found = counted(COUNTED[name])
    assert found["kernels"] + found["operators"] <= most
    assert found["waits"] <= waits
    # what happens in every sweep happens as often
    every = [k for how in ("by_kernel", "by_operator") for k in found[how].values()]
    assert sum(k // found["sweeps"] for k in every) <= each


# operators and waits at most of a solve to a tolerance, beside its one kernel: weights uniform
TO_TOL = {(torch.float32, False): (9, 2), (torch.float32, True): (14, 6),
          (torch.float64, False): (10, 3), (torch.float64, True): (15, 6)}  # fmt: skip


@pytest.mark.slow(4)
@pytest.mark.parametrize(("dtype", "given"), TO_TOL)
def test_solves_ask_little_and_seldom_wait(dtype, given):
    C = on_card(torch.rand(40, 150, dtype=dtype))
    a, b = (on_card(torch.full((k,), 1 / k, dtype=dtype)) if given else None for k in C.shape)
    with np.errstate(all="ignore"), watched() as seen:
        r = so.solve(C, a, b, reg=0.1, tol=1e-5)
    assert seen.kernels == {"_solve_whole": 1}
    assert (seen.operators.total(), seen.waits) <= TO_TOL[dtype, given]
    assert seen.waits <= TO_TOL[dtype, given][1]
    assert all(status is so.Status.CONVERGED for status in r.statuses)


@pytest.mark.slow(3)
@pytest.mark.parametrize(
    ("name", "most", "waits"),
    [("solve, 8 of 20x30, to 1e-5", 7, 2), ("solve float64, 8 of 20x30, to 1e-6", 9, 3)],
)
def test_many_small_problems_are_one_launch(name, most, waits):
    found = counted(COUNTED[name])
    assert found["by_kernel"] == {"_solve_small": 1}
    assert found["kernels"] + found["operators"] <= most
    assert found["waits"] <= waits


@pytest.mark.slow(2)
def test_soft_labels_are_posed_once():
    found = counted(COUNTED["clot_labels"])
    assert found["by_kernel"] == {"_solve_whole": 1}
    # it looks for what is no number, for the ends of the cost, and at how the solve ended
    assert (found["operators"], found["waits"]) == (18, 3)


def test_exact_counts_are_found_on_the_cpu_and_put_back():
    """Scores are copied once, and no kernel is launched."""
    S = torch.rand(60, 5)
    with watched() as seen:
        found = so.balanced_labels(on_card(S))
    assert not seen.kernels
    assert seen.waits <= 3
    assert {t.device.type for t in (found.labels, found.value, found.potentials)} == {"cuda"}
    assert torch.equal(plain(found.counts), torch.full((5,), 12))


def near_at(put, n):
    """Return a problem between clouds, and the sweep of it over the tiles that count."""
    x, y = (put(torch.rand(k, 3)) for k in (n, n + 9))
    p = make(so.PointCloud(x, y), None, None, 1e-3)
    return p, gpu.near.NearKernels.of_clouds(p, -18.0, 16)


@pytest.mark.parametrize("n", [100, 500])
def test_near_tiles_are_found_without_a_wait(n):
    """In a sweep seven kernels, of which those that sum may have a second to join them."""
    with np.errstate(all="ignore"), watched(run=False):
        p, sweep = near_at(on_card, n)
        v = p.b.log()
        u, _ = sweep.sweep(None, v)
    with np.errstate(all="ignore"), watched(run=False) as seen:
        sweep.sweep(u, v)
    most = {"_take": 1, "_judge": 2, "_log_sums": 4, "_settle": 2}
    assert {name: min(k, most[name]) for name, k in seen.kernels.items()} == dict(seen.kernels)
    assert not seen.operators
    assert seen.waits == 0
    # what knows nothing of the sums yet asks more
    with np.errstate(all="ignore"), watched(run=False) as seen:
        sweep.at(p.reg).sweep(u, v)
    assert seen.operators.total() <= 48
    assert seen.waits == 0


def test_points_are_ordered_without_a_wait():
    x = on_card(torch.rand(300, 3))
    with watched() as seen:
        by_sorts(x, 16)
    assert seen.waits == 0


def launches(call):
    seen = watch(call.make, False)[1]
    return seen.kernels, seen.operators


def test_launches_do_not_depend_on_the_size():
    sizes = [calls._codes("", n, K, so.swav_codes) for n, K in ((40, 70), (300, 900))]
    assert launches(sizes[0]) == launches(sizes[1])
    solves = [
        calls._solves("", calls.TEN, shape, decides=False) for shape in ((140, 300), (50, 900))
    ]
    assert launches(solves[0]) == launches(solves[1])


def test_what_poses_as_a_cards_is_right():
    S = torch.rand(17, 65)
    with np.errstate(all="ignore"), watched() as seen:
        codes = so.swav_codes(on_card(S))
    assert codes.device.type == "cuda"
    assert seen.kernels.total() == 1
    torch.testing.assert_close(plain(codes), so.swav_codes(S))


@pytest.mark.parametrize(
    ("act", "waits", "operators"),
    [
        (lambda x: float(x.sum()), 1, 1),
        (lambda x: bool((x > 2).any()), 1, 2),
        (lambda x: (x + torch.zeros(3, device=x.device)).t(), 0, 2),
        (lambda x: x.to("cpu"), 1, None),
        (lambda x: (x.sum() * 2).tolist(), 1, 2),
    ],
)
def test_waits_and_operators_are_counted(act, waits, operators):
    x = on_card(torch.ones(3))
    with watched() as seen:
        act(x)
    assert seen.waits == waits
    assert operators is None or seen.operators.total() == operators


def test_the_choice_is_a_cards():
    x = on_card(torch.ones(3))
    with watched():
        assert x.device.type == "cuda"
        assert torch.zeros(2, device=x.device).is_cuda
        assert (x + 1).device.type == "cuda"
        assert x.cpu().device.type == "cpu"
    assert partial(calls._on_cost, shape=(2, 3), act=lambda C: C)(on_card)().shape == (2, 3)
