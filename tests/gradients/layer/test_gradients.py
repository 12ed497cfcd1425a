"""Derivatives of `normalize`, beside autograd through plain code and finite differences."""

import math

import pytest
import torch
from gradients.layer.plainly import by_logs, by_scaling, weights
from torch.autograd import gradcheck, gradgradcheck

import sinkhorn_ot as so
from sinkhorn_ot.gradients.layer import definition, portable, scaled


# torch's own forward mode is told of in words that it warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
INF = math.inf
LOG = pytest.mark.parametrize("log", [False, True], ids=["matrix", "log"])


@pytest.fixture(params=["scaled", "logs", "on a device", "definition"])
def way(request, monkeypatch):
    """Force one of the implementations."""
    if request.param == "on a device":
        # where nobody looks at numbers
        monkeypatch.setattr(portable, "_reach", lambda *_: math.inf)
    if request.param == "logs":
        monkeypatch.setattr(portable, "REACH", dict.fromkeys(scaled.REACH, -1.0))
    if request.param == "definition":
        monkeypatch.setattr(portable, "derivatives", differentiated)
    return request.param


def differentiated(G, x, a, b, *how):
    *how, _ = how
    return torch.func.vjp(lambda *at: definition.matrices(*at, *how), x, a, b)[1](G)


def grads(out, inputs, G):
    return torch.autograd.grad(out, inputs, G)


@LOG
@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("n_iter", [1, 2, 9])
@pytest.mark.parametrize("shape", [(70, 4, 4), (4, 5), (3, 40, 30), (1, 6), (6, 1)], ids=str)
def test_autograd_through_plain_code(way, shape, n_iter, scale, log):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    a = weights(shape[-2]).requires_grad_()
    b = weights(*shape[:-2], shape[-1]).requires_grad_()
    G = torch.randn(shape, dtype=torch.float64)
    want = by_logs(scale * x, n_iter, a, b)
    want = grads(want if log else want.exp(), (x, a, b), G)
    got = grads(so.normalize(x, n_iter, a, b, reg=1 / scale, log=log), (x, a, b), G)
    for name, g, w in zip("xab", got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-10, msg=lambda m, name=name: name + m)


@pytest.mark.slow(4)
@LOG
@pytest.mark.parametrize("first", ["rows", "columns"])
@pytest.mark.parametrize("n_iter", [0, 1, 3])
def test_finite_differences(n_iter, first, log):
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    x[0, 1, 2] = -INF
    hidden = torch.zeros_like(x)
    hidden[0, 1, 2] = -INF
    x = x.masked_fill(hidden < 0, 0.0).requires_grad_()
    at = x, weights(3).requires_grad_(), weights(2, 4).requires_grad_()

    def layer(x, a, b):
        P = so.normalize(x + hidden, n_iter, a, b, first=first, log=log, reg=0.7)
        return P.masked_fill(hidden < 0, 0.0)

    assert gradcheck(layer, at, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(layer, at)


@LOG
def test_masks_and_empty_sides(way, log):
    x = torch.randn(7, 4, 5, dtype=torch.float64)
    x[:, 0, 1] = x[:, 2] = x[::2, :, 3] = -INF
    x.requires_grad_()
    at = x, weights(7, 4).requires_grad_(), weights(5).requires_grad_()
    G = torch.randn(7, 4, 5, dtype=torch.float64)
    want = by_scaling(x, 5, *at[1:])
    if log:
        live = want > 0
        want = torch.where(live, torch.where(live, want, 1.0).log(), 0.0)
    want = grads(want, at, G)
    got = grads(so.normalize(x, 5, *at[1:], log=log), at, G)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w.nan_to_num())
    assert (got[0][x == -INF] == 0).all()


def test_weights_of_zero_have_derivatives(way):
    x = torch.randn(7, 4, 5, dtype=torch.float64, requires_grad=True)
    a, b = weights(4), weights(7, 5)
    a[1] = b[:, 2] = b[::2, 4] = 0.0
    at = x, a.requires_grad_(), b.requires_grad_()
    G = torch.randn(7, 4, 5, dtype=torch.float64)
    got = grads(so.normalize(x, 3, a, b), at, G)
    want = grads(by_scaling(x, 3, a, b), at, G)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)
    assert got[1][1].abs() > 0
    assert (got[2][:, 2] != 0).all()
    # and none that is not finite of the log
    for g in grads(so.normalize(x, 3, a, b, log=True), at, G):
        assert g.isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 300.0, 3000.0])
def test_a_row_without_weight_is_as_if_absent(way, scale):
    x = (scale * torch.randn(7, 4, 5, dtype=torch.float64)).requires_grad_()
    a, b, G = weights(4), weights(5), torch.randn(7, 4, 5, dtype=torch.float64)
    a[1], kept = 0.0, [0, 2, 3]
    at = x, a.requires_grad_(), b.requires_grad_()
    got = grads(so.normalize(x, 3, a, b), at, G)
    want = grads(so.normalize(x[:, kept], 3, a[kept], b), at, G[:, kept])
    # what a little weight would change there may be more than a number holds
    assert got[1].isfinite().all()
    assert (got[0][:, 1] == 0).all()
    for g, w in zip((got[0], got[1][kept], got[2]), (want[0], want[1][kept], want[2]), strict=True):
        torch.testing.assert_close(g, w)


@LOG
def test_weights_that_are_left_out_follow_those_given(log):
    x = torch.randn(3, 4, dtype=torch.float64)
    one = weights(4).requires_grad_()
    G = torch.randn(3, 4, dtype=torch.float64)
    got = grads(so.normalize(x, 3, b=one, log=log), one, G)[0]
    want = by_logs(x, 3, (one.sum() / 3).expand(3), one)
    torch.testing.assert_close(got, grads(want if log else want.exp(), one, G)[0])


@pytest.mark.parametrize("scale", [1.0, 12.0, 150.0])
def test_float32_is_as_near_as_autograd(scale):
    x = (scale * torch.randn(300, 4, 4)).requires_grad_()
    one, G = torch.ones(4), torch.randn(300, 4, 4)
    truth = x.detach().double().requires_grad_()
    truth = grads(by_logs(truth, 20, one.double(), one.double()).exp(), truth, G.double())[0]
    allowed = (grads(by_logs(x, 20, one, one).exp(), x, G)[0] - truth).abs().max()
    assert (grads(so.normalize(x), x, G)[0] - truth).abs().max() <= 2 * allowed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    x = torch.randn(70, 4, 4).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    G = torch.randn(70, 4, 4).to(dtype)
    got = grads(so.normalize(x), x, G)[0]
    assert got.dtype == dtype
    want = grads(so.normalize(wide), wide, G.float())[0]
    torch.testing.assert_close(got, want.to(dtype), rtol=0, atol=0)


def test_only_the_input_is_kept():
    x = torch.randn(70, 4, 4, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        so.normalize(x, 50)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    assert kept[0].numel() == x.numel()


def test_the_gradient_of_totals_is_none():
    """Columns sum to what they are told, whatever the logits."""
    x = torch.randn(9, 4, 4, dtype=torch.float64, requires_grad=True)
    so.normalize(x, 3).sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(x), rtol=0, atol=1e-14)


@pytest.mark.slow(2)
def test_third_derivatives():
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def curvature(x):
        g = torch.autograd.grad(so.normalize(x, 2).square().sum(), x, create_graph=True)[0]
        return torch.autograd.grad(g.square().sum(), x, create_graph=True)[0]

    assert gradcheck(curvature, x)


@LOG
def test_transforms_of_functions(log):
    x, a, b = torch.randn(5, 3, 4, dtype=torch.float64), weights(3), weights(5, 4)
    G = torch.randn(3, 4, dtype=torch.float64)

    def loss(x, a, b):
        return (so.normalize(x, 3, a, b, log=log).square() * G).sum()

    got = torch.func.vmap(torch.func.grad(loss, (0, 1, 2)), (0, None, 0))(x, a, b)
    for k in range(5):
        at = [t.clone().requires_grad_() for t in (x[k], a, b[k])]
        for g, w in zip(got, grads(loss(*at), at, None), strict=True):
            torch.testing.assert_close(g[k], w)
    jacobian = torch.func.jacrev(lambda x: so.normalize(x, 3, a, b[0], log=log))(x[0])
    forward = torch.func.jacfwd(lambda x: so.normalize(x, 3, a, b[0], log=log))(x[0])
    torch.testing.assert_close(jacobian, forward)
    hessian = torch.func.hessian(loss)(x[0], a, b[0])
    twice = torch.func.jacrev(torch.func.jacrev(loss))(x[0], a, b[0])
    torch.testing.assert_close(hessian, twice)


def test_vmap_is_a_loop_whichever_dimension_it_maps():
    x, b = torch.randn(3, 6, 5, 4), weights(6, 4, dtype=torch.float32)
    got = torch.func.vmap(lambda x, b: so.normalize(x, 2, b=b), (1, 0))(x, b)
    for k in range(6):
        torch.testing.assert_close(got[k], so.normalize(x[:, k], 2, b=b[k]))
    got = torch.func.vmap(lambda b: so.normalize(x[0, 0], 2, b=b))(b)
    torch.testing.assert_close(got[4], so.normalize(x[0, 0], 2, b=b[4]))


def test_checkpoints_and_modes():
    from torch.utils.checkpoint import checkpoint

    x = torch.randn(5, 4, 4, requires_grad=True)
    y = checkpoint(lambda x: so.normalize(x).square(), x, use_reentrant=False)
    g = grads(y.sum(), x, None)[0]
    torch.testing.assert_close(g, grads(so.normalize(x).square().sum(), x, None)[0])
    with torch.no_grad():
        assert not so.normalize(x).requires_grad
    with torch.inference_mode():
        assert so.normalize(x).is_inference()
