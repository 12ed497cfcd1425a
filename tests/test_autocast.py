"""What surrounds a call must not change its digits."""

import pytest
import torch

import sinkhorn_ot as so


@pytest.mark.parametrize("shape", [(3, 60, 50), (60, 50)])
def test_autocast_changes_nothing(shape: tuple[int, ...]) -> None:
    C = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    a = torch.rand(3, 60).softmax(-1)
    want = so.solve(C, a, reg=0.05, method="sinkhorn").plan
    with torch.autocast("cpu", torch.bfloat16):
        got = so.solve(C, a, reg=0.05, method="sinkhorn").plan
        fixed = so.solve(C, a, reg=0.05, n_iter=200).plan
    assert torch.equal(got, want)
    assert (fixed.sum(-2) - 1 / 50).abs().max() < 1e-6


def test_close_points_keep_their_distance() -> None:
    x = torch.rand(100, 3, dtype=torch.float64)
    r = so.solve_exact(so.PointCloud(x, x.flip(0), "euclidean"))
    assert float(r.value) == 0
    assert float(r.certificate().lower) <= 0


def test_newton_refuses_relaxed_marginals() -> None:
    with pytest.raises(ValueError, match="needs exact marginals"):
        so.solve(torch.rand(4, 5), reg=0.1, unbalanced=0.5, method="newton")


def test_weights_may_change_after_the_call() -> None:
    a = torch.full((4,), 0.25, dtype=torch.float64)
    r = so.solve(torch.rand(4, 5, dtype=torch.float64), a, reg=0.1)
    a.zero_()
    assert float(r.value - r.dual_value) == pytest.approx(0, abs=1e-8)
