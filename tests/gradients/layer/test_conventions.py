"""The table of conventions in docs/layers.md: what others compute, from their formulas."""

import pytest
import torch

import sinkhorn_ot as so


def near(theirs, ours, *inputs):
    """Compare values and gradients to 1e-6."""
    at = [t.clone().requires_grad_() for t in inputs]
    want, got = theirs(*at), ours(*at)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    G = torch.randn_like(want)
    pairs = zip(torch.autograd.grad(got, at, G), torch.autograd.grad(want, at, G), strict=True)
    for g, w in pairs:
        torch.testing.assert_close(g, w, rtol=1e-6, atol=1e-6)


@pytest.fixture
def x():
    return torch.randn(50, 4, 4, dtype=torch.float64)


def test_mixing_as_in_the_paper(x):
    def theirs(x):
        M = x.exp()
        for _ in range(20):
            M = M / M.sum(-1, keepdim=True)
            M = M / M.sum(-2, keepdim=True)
        return M

    near(theirs, so.normalize, x)


def test_mixing_with_eps(x):
    eps = 1e-6

    def theirs(x, eps_below=eps):
        M = x.softmax(-1) + eps
        M = M / (M.sum(-2, keepdim=True) + eps_below)
        for _ in range(19):
            M = M / (M.sum(-1, keepdim=True) + eps_below)
            M = M / (M.sum(-2, keepdim=True) + eps_below)
        return M

    def ours(x):
        return so.normalize((x.softmax(-1) + eps).log())

    near(theirs, ours, x)
    # what is not imitated is all that is left of a difference
    near(lambda x: theirs(x, 0.0), ours, 6 * x)
    assert (theirs(6 * x) - ours(6 * x)).abs().max() > 1e-6


def test_relaxed_permutations(x):
    def theirs(x):
        x = x / 0.3
        for _ in range(10):
            x = x.log_softmax(-1).log_softmax(-2)
        return x.exp()

    near(theirs, lambda x: so.normalize(x, 10, reg=0.3), x)


def test_matches_with_dustbins():
    n, m = 6, 9
    dustbins = torch.zeros(n + 1, m + 1, dtype=torch.bool)
    dustbins[-1], dustbins[:, -1] = True, True

    def padded(scores, score):
        return torch.where(dustbins, score, torch.nn.functional.pad(scores, (0, 1, 0, 1)))

    def theirs(scores, score):
        """Masses of one over all points, and the log of the matrix times all points in the end."""
        Z, total = padded(scores, score), float(n + m)
        log_a = torch.tensor([1.0] * n + [m], dtype=torch.float64).div(total).log()
        log_b = torch.tensor([1.0] * m + [n], dtype=torch.float64).div(total).log()
        u, v = torch.zeros_like(Z[..., :1]), torch.zeros_like(Z[..., :1, :])
        for _ in range(50):
            u = log_a[:, None] - torch.logsumexp(Z + v, -1, keepdim=True)
            v = log_b - torch.logsumexp(Z + u, -2, keepdim=True)
        return Z + u + v + torch.tensor(total).log()

    def ours(scores, score):
        a, b = torch.ones(n + 1), torch.ones(m + 1)
        a[-1], b[-1] = m, n
        return so.normalize(padded(scores, score), 50, a, b, log=True)

    scores = 3 * torch.randn(4, n, m, dtype=torch.float64)
    near(theirs, ours, scores, torch.tensor(1.0, dtype=torch.float64))
