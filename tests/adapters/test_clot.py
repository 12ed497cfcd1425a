"""CLOT's labels against the dense float64 fixed point, its losses against their formulas."""

import math

import pytest
import torch
from adapters import oracles
from torch import Tensor
from torch.nn import functional as F

import sinkhorn_ot as so


def logits(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=g, dtype=torch.float64)


def oracle(log_probs: Tensor, lamb: float) -> Tensor:
    return oracles.swav_codes(log_probs, 1 / lamb, 3000)


def variation(codes: Tensor, expected: Tensor) -> float:
    return float((codes.double() - expected).abs().sum(-1).max() / 2)


@pytest.mark.parametrize("shape", [(1, 1), (40, 2), (65, 17), (3, 130, 7)], ids=str)
@pytest.mark.parametrize("lamb", [1.0, 5.0, 25.0])
def test_labels_are_the_oracle(shape, lamb):
    S = torch.log_softmax(logits(*shape), -1)
    q = so.adapters.clot_labels(S, lamb=lamb, tol=1e-10)
    assert variation(q, oracle(S, lamb)) < 1e-8
    assert torch.allclose(
        q.sum(-2), torch.full_like(q[..., 0, :], shape[-2] / shape[-1]), rtol=1e-7
    )
    # logits do as well
    assert torch.allclose(
        so.adapters.clot_labels(logits(*shape), lamb=lamb, tol=1e-10), q, atol=1e-8
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_labels_in_other_dtypes(dtype):
    S = logits(200, 10).to(dtype)
    q = so.adapters.clot_labels(S)
    assert q.dtype == dtype
    limit = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    assert variation(q, oracle(S.double(), 5.0)) < limit


def test_labels_are_constants_and_swav_codes_to_convergence():
    S = logits(60, 6).requires_grad_()
    q = so.adapters.clot_labels(S, lamb=10)
    assert not q.requires_grad
    assert variation(q, so.swav_codes(S.detach(), eps=0.1, n_iter=None)) < 1e-5


@pytest.mark.parametrize("shift", [0.0, 1e5])
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_samples_left_out_count_for_nothing(junk, shift):
    S, mask = (
        logits(3, 40, 5) + shift,
        torch.arange(120).reshape(3, 40) % 7 > torch.arange(3)[:, None],
    )
    mask[2] = False
    S[~mask] = junk
    q = so.adapters.clot_labels(S, tol=1e-10, mask=mask)
    assert bool((q[~mask] == 0).all())
    for k in (0, 1):
        alone = so.adapters.clot_labels(S[k, mask[k]], tol=1e-10)
        torch.testing.assert_close(q[k, mask[k]], alone, rtol=1e-7, atol=1e-9)
        assert variation(alone, oracle(S[k, mask[k]] - shift, 5.0)) < 1e-8
    # one mask for all problems, as an array
    one = so.adapters.clot_labels(logits(3, 40, 5), mask=mask[0].numpy())
    torch.testing.assert_close(
        one, so.adapters.clot_labels(logits(3, 40, 5), mask=mask[0].expand(3, 40))
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("N", [1, 2, 13])
def test_nt_xent_is_the_formula(N, temperature):
    z1, z2 = logits(N, 5), logits(N, 5, seed=1)
    found = float(so.adapters.nt_xent(z1, z2, temperature))
    assert found == pytest.approx(oracles.nt_xent(z1, z2, temperature), abs=1e-12)


def test_nt_xent_known_values():
    # two samples, views agree and samples are orthogonal: one pair at 1, two others at 0
    eye = torch.eye(2).double()
    assert float(so.adapters.nt_xent(eye, eye, 1.0)) == pytest.approx(math.log(math.e + 2) - 1)
    # all equal: nobody can be told apart
    assert float(so.adapters.nt_xent(torch.ones(8, 3), torch.ones(8, 3))) == pytest.approx(
        math.log(15)
    )
    assert (
        so.adapters.nt_xent(torch.ones(8, 3).half(), torch.ones(8, 3).half()).dtype == torch.float32
    )


def test_gradients_of_the_losses():
    z = [logits(4, 3, seed=s).requires_grad_() for s in (0, 1)]
    assert torch.autograd.gradcheck(lambda a, b: so.adapters.nt_xent(a, b), z)
    p = [logits(6, 3, seed=s).requires_grad_() for s in (0, 1)]
    so.adapters.CLOTLoss(tol=1e-9).swapped(*p).backward()
    q = [oracle(torch.log_softmax(t.detach(), 1), 5.0) for t in p]
    # of a cross-entropy with constant targets: (softmax - target) / N, half for each way
    for own, other in ((0, 1), (1, 0)):
        expected = (torch.softmax(p[own].detach(), 1) - q[other]) / 6 / 2
        assert torch.allclose(p[own].grad, expected, atol=1e-8)


def test_loss_is_the_formula():
    a, b, z1, z2 = logits(30, 4), logits(30, 4, seed=1), logits(30, 8), logits(30, 8, seed=1)
    log_p, q = zip(*[(t := F.log_softmax(x, 1), oracle(t, 7.0)) for x in (a, b)], strict=True)
    swapped = -0.5 * ((q[0] * log_p[1]).sum(1) + (q[1] * log_p[0]).sum(1)).mean()
    loss = so.adapters.CLOTLoss(lamb=7.0, weight=0.3, temperature=0.2, tol=1e-10)
    expected = float(swapped) + 0.3 * oracles.nt_xent(z1, z2, 0.2)
    assert float(loss(a, b, z1, z2)) == pytest.approx(expected, abs=1e-8)
    assert float(loss(b, a, z2, z1)) == pytest.approx(expected, abs=1e-8)
    assert "lamb=7" in repr(loss)


def test_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        loss = so.adapters.CLOTLoss()(*(logits(30, 4, seed=s).bfloat16() for s in range(4)))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: so.adapters.clot_labels(torch.tensor([[0.0, math.nan]])),
            r"finite, got nan at .*\(0, 1\)",
        ),
        (lambda: so.adapters.clot_labels(torch.zeros(3)), r"shape \(..., N, K\)"),
        (lambda: so.adapters.clot_labels(torch.zeros(3, 0)), "not be empty"),
        (lambda: so.adapters.clot_labels(torch.zeros(3, 2), lamb=0), "lamb must be"),
        (
            lambda: so.adapters.clot_labels(torch.zeros(3, 2), mask=torch.ones(3)),
            "mask must be bool, true where a sample counts, got float32",
        ),
        (
            lambda: so.adapters.clot_labels(torch.zeros(3, 2), mask=torch.ones(2) > 0),
            r"mask must have shape \(3,\)",
        ),
        (
            lambda: so.adapters.clot_labels(
                torch.tensor([[math.nan], [math.nan]]), mask=torch.tensor([False, True])
            ),
            r"log_probs must be finite, got nan at index \(1, 0\)",
        ),
        (
            lambda: so.adapters.nt_xent(torch.zeros(3, 2), torch.zeros(4, 2)),
            "z1 and z2 must share shape",
        ),
        (
            lambda: so.adapters.nt_xent(torch.zeros(3), torch.zeros(3)),
            r"z1 must have shape \(N, d\)",
        ),
        (
            lambda: so.adapters.nt_xent([1.0], torch.zeros(3, 2)),
            "z1 must be a floating-point tensor",
        ),
        (
            lambda: so.adapters.nt_xent(torch.zeros(3, 2), torch.zeros(3, 2), -1.0),
            "temperature must be",
        ),
        (lambda: so.adapters.CLOTLoss(temperature=0.0), "temperature must be"),
        (
            lambda: so.adapters.CLOTLoss()(*[torch.zeros(k, 2) for k in (3, 4, 3, 3)]),
            "logits1 and logits2",
        ),
    ],
    ids=range(13),
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
