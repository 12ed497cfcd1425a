"""What stands beside the kernels: plain PyTorch, published loops from their formulas, and packages.

None of this is the package's code. Published loops take every factor in a step of its own, as their
sources do; that is what is compared with.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def eager_sweep(C: Tensor, v: Tensor, log_a: Tensor, log_b: Tensor, inv_reg: Tensor) -> Tensor:
    """Return the next column potential (B, m): two log-sum-exps over a stored cost."""
    C = C.float() * inv_reg[:, None, None]
    u = log_a - torch.logsumexp(v[:, None, :] - C, 2)
    return log_b - torch.logsumexp(u[:, :, None] - C, 1)


def eager_solve(C: Tensor, log_a: Tensor, log_b: Tensor, inv_reg: Tensor, n_iter: int) -> Tensor:
    """Return the column potential after `n_iter` iterations."""
    E = -C.float() * inv_reg[:, None, None]
    v = log_b
    for _ in range(n_iter):
        u = log_a - torch.logsumexp(v[:, None, :] + E, 2)
        v = log_b - torch.logsumexp(u[:, :, None] + E, 1)
    return v


def eager_codes(S: Tensor, eps: float, n_iter: int, rows: int) -> Tensor:
    """Return the codes of the last rows of scores (N, K), in log domain."""
    E = S.float() / eps
    f, g = torch.zeros_like(E[0]), torch.zeros_like(E[:, 0])
    for _ in range(n_iter):
        f = -torch.logsumexp(E + g[:, None], 0)
        g = -torch.logsumexp(E + f, 1)
    return (E + f + g[:, None])[-rows:].exp()


def swav_loop(S: Tensor, eps: float, n_iter: int, rows: int) -> Tensor:
    """Return the codes of the last rows of scores (N, K), as SwAV's loop takes them.

    Source: M. Caron et al., NeurIPS 2020, appendix A. Nothing here keeps exp(S / eps) in range.
    """
    Q = (S.float() / eps).exp().t()
    K, N = Q.shape
    Q /= Q.sum()
    for _ in range(n_iter):
        Q /= Q.sum(1, keepdim=True)
        Q /= K
        Q /= Q.sum(0, keepdim=True)
        Q /= N
    Q *= N
    return Q.t()[-rows:]


def sela_loop(p: Tensor, beta: Tensor, log_a: Tensor) -> Callable[[], Tensor]:
    """Return SeLa's iteration on stored probabilities p^lambda (N, K), float64.

    Two matrix-vector products and its stopping sum. Source: Y. Asano et al., ICLR 2020, section 3.

    Args:
        p: Probabilities to the power lambda.
        beta: Scaling of the clusters (K, 1).
        log_a: Log of the weights of the samples, (N,).
    """
    N, K = p.shape
    a = log_a.double().exp()[:, None]

    def run() -> Tensor:
        alpha = a / (p @ beta)
        new = (1 / K) / (alpha.t() @ p).t()
        (beta / new - 1).abs().nansum()
        return new.log().t()

    return run


def blocks_sweep(
    x: Tensor, y: Tensor, v: Tensor, log_a: Tensor, log_b: Tensor, inv_reg: float,
    block: Callable[..., Tensor],
) -> Tensor:  # fmt: skip
    """Return the next column potential between two clouds, whose cost is made block by block."""
    step = max(1, (1 << 27) // len(y))
    u = torch.cat([a - block(r, y, v, inv_reg) for r, a in _parts(x, log_a, step)])
    return torch.cat([b - block(r, x, u, inv_reg) for r, b in _parts(y, log_b, step)])


def _parts(x: Tensor, w: Tensor, step: int) -> Any:
    return zip(x.split(step), w.split(step), strict=True)


def block_log_sum(x: Tensor, y: Tensor, v: Tensor, inv_reg: float) -> Tensor:
    """Return log sum_j exp(v_j - |x_i - y_j|^2 / reg), by one matrix product."""
    C = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.t())
    return torch.logsumexp(v - C * inv_reg, 1)


def keops_solve(
    x: Tensor, y: Tensor, log_a: Tensor, log_b: Tensor, reg: float, n_iter: int
) -> Callable[[], Tensor]:
    """Return KeOps' alternating iterations, the reductions that GeomLoss runs online."""
    from pykeops.torch import LazyTensor  # type: ignore[import-not-found]

    C = ((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)

    def run() -> Tensor:
        v = log_b
        for _ in range(n_iter):
            w = LazyTensor(v[None, :, None].contiguous())
            u = log_a - (w - C / reg).logsumexp(dim=1)[:, 0]
            w = LazyTensor(u[:, None, None].contiguous())
            v = log_b - (w - C / reg).logsumexp(dim=0)[:, 0]
        return v[None]

    return run


def geomloss_solve(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, reg: float, scaling: float
) -> Callable[[], None]:
    """Return a whole GeomLoss solve: annealed, symmetric, to its own end. Its reg is ours / 2."""
    from geomloss import SamplesLoss  # type: ignore[import-not-found]

    loss = SamplesLoss(
        "sinkhorn", p=2, blur=math.sqrt(reg / 2), scaling=scaling, debias=False, potentials=True,
        backend="online",
    )  # fmt: skip
    return lambda: loss(a, x, b, y)


def flash_solve(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, reg: float, n_iter: int, tf32: bool
) -> Callable[[], Tensor]:
    """Return FlashSinkhorn's alternating iterations."""
    from flash_sinkhorn.sinkhorn_solvers import (  # type: ignore[import-not-found]
        sinkhorn_flashstyle_alternating,
    )

    log_b = b.log()

    def run() -> Tensor:
        _, g = sinkhorn_flashstyle_alternating(x, y, a, b, eps=reg, n_iters=n_iter, allow_tf32=tf32)
        return (g / reg + log_b)[None]

    return run


def ott_solve(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, reg: float, n_iter: int
) -> Callable[[], None]:
    """Return OTT-JAX's iterations on a cloud in blocks; columns first, so other iterates."""
    # else JAX takes most of the card when it is first used
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax  # type: ignore[import-not-found]
    from ott.geometry import pointcloud  # type: ignore[import-not-found]
    from ott.problems.linear import linear_problem  # type: ignore[import-not-found]
    from ott.solvers.linear import sinkhorn  # type: ignore[import-not-found]

    jx, jy, ja, jb = (jax.numpy.asarray(t.cpu().numpy()) for t in (x, y, a, b))
    solver = sinkhorn.Sinkhorn(
        threshold=-1.0, min_iterations=n_iter, max_iterations=n_iter, inner_iterations=n_iter
    )

    @jax.jit
    def potentials(x: Any, y: Any, a: Any, b: Any) -> Any:
        geometry = pointcloud.PointCloud(x, y, epsilon=reg, batch_size=1024)
        out = solver(linear_problem.LinearProblem(geometry, a, b))
        return out.f, out.g

    return lambda: jax.block_until_ready(potentials(jx, jy, ja, jb))
