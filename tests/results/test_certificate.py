"""Certificates: bounds that hold, whatever was solved and however badly, re-checked in NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.problem import make
from sinkhorn_ot.results.certificate import below, dual_value, feasible_duals


INF = float("inf")
floats = st.floats(-1e12, 1e12) | st.floats(-1, 1) | st.sampled_from([0.1, 0.3, 2.0**-1074, 1e300])


def random_problem(seed: int, zeros: float, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    random = np.random.default_rng(seed)
    n, m = random.integers(1, 12, 2)
    parts = [random.normal(size=(batch, n, m))]
    for size in (n, m):
        w = random.dirichlet(np.ones(size), batch) * (random.random((batch, size)) >= zeros)
        w[:, 0] += 0.1
        parts.append(w / w.sum(-1, keepdims=True))
    C, a, b = map(torch.from_numpy, parts)
    return C, a, b


def verify(certificate: so.Certificate, C: Tensor, a: Tensor, b: Tensor) -> None:
    """Check the dual side from scratch, in more digits than it has."""
    parts = (C, a, b, certificate.f, certificate.g)
    cost, left, right, f, g = (t.numpy().astype(np.longdouble) for t in parts)
    assert np.isfinite(f).all()
    assert np.isfinite(g).all()
    assert (f[..., :, None] + g[..., None, :] <= cost).all()
    lower = (f * left).sum(-1) + (g * right).sum(-1)
    terms = (np.abs(f) * left).sum(-1) + (np.abs(g) * right).sum(-1)
    assert (np.abs(certificate.lower.numpy() - lower) <= 1e-14 * terms).all()


@given(floats, floats)
def test_differences_are_rounded_down(C: float, t: float) -> None:
    d = float(below(torch.tensor(C, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)))
    assert Fraction(d) + Fraction(t) <= Fraction(C)
    # and by no more than one digit
    assert Fraction(np.nextafter(d, INF)) + Fraction(t) > Fraction(C)


def test_differences_with_forbidden_pairs() -> None:
    C, t = torch.tensor([INF, INF, 1.0]).double(), torch.tensor([0.5, -INF, -INF]).double()
    assert below(C, t).tolist() == [INF, INF, INF]


class TestEntropicResults:
    @given(
        st.integers(0, 10**6),
        st.sampled_from([0.0, 0.4]),
        st.sampled_from([1.0, 0.1, 0.01]),
        st.sampled_from([1, 5, None]),
    )
    def test_hold_the_optimum_between_their_bounds(
        self, seed: int, zeros: float, reg: float, n_iter: int | None
    ) -> None:
        C, a, b = random_problem(seed, zeros)
        r = so.solve(C, a, b, reg=reg, n_iter=n_iter, on_fail="ignore")
        best, certificate = so.solve_exact(C, a, b).value, r.certificate()
        assert certificate.lower.shape == certificate.upper.shape == (3,)
        assert (certificate.lower <= best + 1e-14).all()
        assert (certificate.upper >= best - 1e-14).all()
        torch.testing.assert_close(certificate.gap, certificate.upper - certificate.lower)
        verify(certificate, C, a, b)
        rounded = (r.round() * C).sum((-2, -1))
        torch.testing.assert_close(certificate.upper, rounded, rtol=1e-12, atol=1e-14)

    def test_close_as_reg_falls(self) -> None:
        C, a, b = random_problem(7, 0.3)
        gaps = [
            so.solve(C, a, b, reg=reg, on_fail="ignore").certificate().gap.max()
            for reg in (1.0, 0.1, 0.01, 0.001)
        ]
        assert gaps == sorted(gaps, reverse=True)
        assert float(gaps[-1]) < 1e-3 < float(gaps[0])

    def test_no_bound_is_idle(self) -> None:
        # a gap that is positive means both sides of a bad answer are away from the optimum
        C, a, b = random_problem(5, 0.0)
        best = so.solve_exact(C, a, b).value
        certificate = so.solve(C, a, b, reg=1.0).certificate()
        assert (certificate.upper > best + 1e-3).all()
        assert (certificate.lower < best - 1e-3).all()

    def test_leading_dimensions_broadcast(self) -> None:
        C, a, b = random_problem(11, 0.2)
        r = so.solve(C[:, None], a[:2], b[:2], reg=0.1)
        certificate = r.certificate()
        assert certificate.lower.shape == (3, 2)
        verify(certificate, C[:, None], a[:2].expand(3, 2, -1), b[:2].expand(3, 2, -1))
        one = so.solve(C[1], a[0], b[0], reg=0.1).certificate()
        torch.testing.assert_close(certificate.lower[1, 0], one.lower, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(certificate.upper[1, 0], one.upper, rtol=1e-7, atol=1e-8)

    def test_a_point_cloud(self) -> None:
        x, y = torch.rand(30, 3).double(), torch.rand(20, 3).double()
        cloud = so.PointCloud(x, y, "euclidean")
        certificate = so.solve(cloud, reg=0.05).certificate()
        best = so.solve_exact(torch.cdist(x, y)).value
        assert certificate.lower - 1e-9 <= best <= certificate.upper + 1e-9

    def test_half_precision_costs_are_bounded_in_float64(self) -> None:
        C, a, b = random_problem(3, 0.0)
        C = C.half()
        certificate = so.solve(C, a, b, reg=0.05).certificate()
        assert certificate.lower.dtype == torch.float64
        best = so.solve_exact(C.double(), a, b).value
        assert (certificate.lower <= best + 1e-14).all()
        assert (certificate.upper >= best - 1e-14).all()
        verify(certificate, C, a, b)

    def test_huge_and_tiny_costs(self) -> None:
        C, a, b = random_problem(3, 0.3)
        for scale, shift in ((1e12, 0), (1e-12, 0), (1, 1e9), (1, -1e9)):
            moved = scale * C + shift
            certificate = so.solve(moved, a, b, reg=0.1 * scale, on_fail="ignore").certificate()
            best = so.solve_exact(moved, a, b).value
            slip = 1e-13 * (scale + abs(shift))
            assert (certificate.lower <= best + slip).all()
            assert (certificate.upper >= best - slip).all()
            verify(certificate, moved, a, b)


class TestForbiddenPairs:
    # what is forbidden tightens the dual; rounding may need what is forbidden, and then says inf
    C = torch.tensor([[0.0, INF, 2.0], [1.0, 0.0, INF], [INF, 3.0, 1.0]], dtype=torch.float64)
    a = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    b = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)

    def test_the_lower_bound_holds(self) -> None:
        best = float(so.solve_exact(self.C, self.a, self.b).value)
        for reg in (0.01, 0.1, 1.0):
            r = so.solve(self.C, self.a, self.b, reg=reg, on_fail="ignore")
            certificate = r.certificate()
            verify(certificate, self.C, self.a, self.b)
            assert float(certificate.lower) <= best + 1e-14
            assert float(certificate.upper) >= best - 1e-14
        assert float(certificate.lower) > -INF

    def test_the_upper_bound_is_inf_where_rounding_needs_a_forbidden_pair(self) -> None:
        certificate = so.solve(self.C, self.a, self.b, reg=0.1, n_iter=1).certificate()
        assert float(certificate.upper) == INF
        assert float(certificate.gap) == INF
        assert np.isfinite(float(certificate.lower))

    def test_an_exact_plan_needs_none(self) -> None:
        certificate = so.solve_exact(self.C, self.a, self.b).certificate()
        assert abs(float(certificate.gap)) <= 1e-15


class TestDuals:
    @given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5]), st.sampled_from([1.0, 1e-9, 1e9]))
    def test_any_potentials_become_feasible(self, seed: int, zeros: float, scale: float) -> None:
        C, a, b = random_problem(seed, zeros)
        p = make(C, a, b)
        random = np.random.default_rng(seed)
        f, g = (torch.from_numpy(scale * random.normal(size=w.shape)) for w in (a, b))
        f, g = feasible_duals(p, f, g)
        lower = dual_value(p, f, g)
        verify(so.Certificate(lower, lower, f, g), C, a, b)

    def test_feasible_potentials_only_improve(self) -> None:
        C, a, b = random_problem(2, 0.3)
        p = make(C, a, b)
        f, g = C.amin(-1) - 0.3, torch.zeros_like(b)
        assert (dual_value(p, *feasible_duals(p, f, g)) >= dual_value(p, f, g)).all()

    @pytest.mark.parametrize("transpose", [False, True])
    def test_the_better_of_both_orders_is_kept(self, transpose: bool) -> None:
        # good potentials on one side only
        C, a, b = (t[:1] for t in random_problem(8, 0.0))
        r = so.solve_exact(C, a, b)
        if transpose:
            p, f, g = make(C.mT, b, a), r.g + 5 * torch.rand_like(r.g), r.f
        else:
            p, f, g = r.problem, r.f, r.g + 5 * torch.rand_like(r.g)
        torch.testing.assert_close(dual_value(p, *feasible_duals(p, f, g)), r.value)

    def test_points_without_weight_bind_nobody(self) -> None:
        C, a, b = random_problem(4, 0.0)
        wide = torch.cat([C, torch.full_like(C[:, :, :2], -50.0)], -1)
        r = so.solve(C, a, b, reg=0.1)
        more = so.solve(wide, a, torch.nn.functional.pad(b, (0, 2)), reg=0.1)
        # even where their own potentials are nonsense
        nonsense = more.g.clone()
        nonsense[:, -2:] = 1e6
        lower = dual_value(more.problem, *feasible_duals(more.problem, more.f, nonsense))
        for got in (more.certificate().lower, lower):
            torch.testing.assert_close(got, r.certificate().lower, atol=1e-8, rtol=0)


class TestExactResults:
    def test_the_bounds_meet(self) -> None:
        C, a, b = random_problem(9, 0.3)
        r = so.solve_exact(C, a, b)
        certificate = r.certificate()
        verify(certificate, C, a, b)
        assert (certificate.gap.abs() <= 1e-14).all()
        torch.testing.assert_close(certificate.upper, r.value, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(certificate.lower, r.dual_value, rtol=1e-12, atol=1e-14)


def test_a_relaxed_marginal_is_refused() -> None:
    r = so.solve(torch.rand(3, 4).double(), reg=0.1, unbalanced=1.0)
    with pytest.raises(ValueError, match=r"certificate\(\) needs exact marginals, got unbalanced="):
        r.certificate()
