"""Derivatives of barycentres are those that differences show, or are refused."""

import pytest
import torch
from torch.func import vmap

import sinkhorn_ot as so


def problem(batch=()):
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 15, dtype=torch.float64)
    a = torch.rand(*batch, 3, 15, generator=generator).double() + 0.2
    a[..., 0, :2] = 0
    w = torch.rand(*batch, 3, generator=generator).double()
    return a / a.sum(-1, keepdim=True), (x[:, None] - x).square(), w


def moves(a, C, w):
    """Ways to go: of histograms such that masses and zeros stay."""
    generator = torch.Generator().manual_seed(1)
    da, dC, dw = (torch.randn(t.shape, generator=generator).double() for t in (a, C, w))
    da = torch.where(a > 0, da, 0.0)
    da = torch.where(a > 0, da - da.sum(-1, keepdim=True) / (a > 0).sum(-1, keepdim=True), 0.0)
    return 0.01 * da, 0.01 * (dC + dC.T), dw


def difference(of, h=1e-5):
    return (of(h) - of(-h)) / (2 * h)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("debiased", [False, True])
def test_value(debiased, batch):
    a, C, w = problem(batch)
    if debiased:
        # smooth ones, whose best has no zeros
        x = torch.linspace(0, 1, 15, dtype=torch.float64)
        a = (
            (-((x - torch.tensor([0.4, 0.5, 0.6])[:, None]) ** 2) / 0.02)
            .exp()
            .expand(*batch, -1, -1)
        )
        a = a / a.sum(-1, keepdim=True)
    how, reg = (
        {"debiased": debiased, "tol": 1e-12, "on_fail": "ignore"},
        torch.tensor(0.02).double(),
    )
    leaves = [t.clone().requires_grad_() for t in (a, C, w, reg)]
    r = so.barycenter(leaves[0], leaves[1], leaves[3], weights=leaves[2], **how)
    found = torch.autograd.grad(r.value.sum(), leaves)
    along = (*moves(a, C, w), torch.tensor(0.01).double())
    for k, (gradient, move) in enumerate(zip(found, along, strict=True)):
        if debiased and k == 0:
            move = move * a

        def of(h, k=k, move=move):
            at = [a, C, w, reg]
            at[k] = at[k] + h * move
            return so.barycenter(at[0], at[1], at[3], weights=at[2], **how).value.sum()

        if debiased and k == 0:
            # masses stay
            move -= a * move.sum(-1, keepdim=True)
        torch.testing.assert_close((gradient * move).sum(), difference(of), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("cost", ["stored", "grid"])
def test_histogram(cost):
    a, C, w = problem((2,))
    C = so.GridCost((3, 5)) if cost == "grid" else C
    y = torch.randn(2, 15, generator=torch.Generator().manual_seed(2)).double()
    a0, w0 = a.clone().requires_grad_(), w.clone().requires_grad_()
    r = so.barycenter(a0, C, 0.02, weights=w0, tol=1e-13, on_fail="ignore")
    found = torch.autograd.grad((r.histogram * y).sum(), (a0, w0))
    da, _, dw = moves(a, torch.rand(15, 15), w)

    def of(h, by_a, by_w):
        how = {"weights": w + h * by_w, "tol": 1e-13, "on_fail": "ignore"}
        return (so.barycenter(a + h * by_a, C, 0.02, **how).histogram * y).sum()

    for gradient, move, at in ((found[0], da, (da, 0)), (found[1], dw, (0, dw))):
        wanted = difference(lambda h, at=at: of(h, *at))
        torch.testing.assert_close((gradient * move).sum(), wanted, rtol=1e-5, atol=1e-9)


def test_a_weight_of_zero_and_a_zero_of_a_histogram_have_derivatives():
    a, C, _ = problem()
    w = torch.tensor([0.6, 0.4, 0.0]).double().requires_grad_()
    a0 = a.clone().requires_grad_()
    y = torch.randn(15).double()
    r = so.barycenter(a0, C, 0.05, weights=w, tol=1e-13, on_fail="ignore")
    over_a, over_w = torch.autograd.grad((r.histogram * y).sum(), (a0, w))
    assert bool((over_a[2] == 0).all())

    def of(w, a=a):
        r = so.barycenter(a, C, 0.05, weights=w, tol=1e-13, on_fail="ignore")
        return (r.histogram * y).sum()

    h = 1e-5
    more = [of(w.detach() + k * h * torch.tensor([0, 0, 1.0])) for k in (0, 1, 2)]
    wanted = (-3 * more[0] + 4 * more[1] - more[2]) / (2 * h)
    torch.testing.assert_close(over_w[2], wanted, rtol=1e-4, atol=1e-8)
    moved = torch.zeros_like(a)
    moved[0, 0], moved[0, 5] = 1, -1
    more = [of(w.detach(), a + k * h * moved) for k in (0, 1, 2)]
    wanted = (-3 * more[0] + 4 * more[1] - more[2]) / (2 * h)
    torch.testing.assert_close((over_a * moved).sum(), wanted, rtol=1e-4, atol=1e-8)


def test_what_has_none_is_refused():
    a, C, w = problem()
    a.requires_grad_()
    r = so.barycenter(a, C, 0.02, weights=w)
    for name in ("plans", "f", "g"):
        with pytest.raises(RuntimeError, match=f"{name} of a barycentre has no derivatives"):
            getattr(r, name).sum().backward()
    r = so.barycenter(a, C.requires_grad_(), 0.02, weights=w)
    with pytest.raises(RuntimeError, match="histogram of a barycentre has no derivatives by cost"):
        r.histogram.square().sum().backward()
    r = so.barycenter(a, C, 0.02, debiased=True, on_fail="ignore", max_iter=50)
    with pytest.raises(RuntimeError, match="no derivatives where it is debiased"):
        r.histogram.square().sum().backward()
    r = so.barycenter(a, C.detach(), 0.02)
    (once,) = torch.autograd.grad(r.histogram.square().sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        once.sum().backward()
    with pytest.raises(ValueError, match="histograms must be a tensor of its own"):
        vmap(lambda one: so.barycenter(one, C.detach(), 0.02).histogram)(a.detach()[None])
