"""How a barycentre answers its histograms and weights: one linear system, nothing unrolled.

At the solution all column sums are q: s_k(psi_k) = q, and sum_k w_k psi_k = 0. Let H_k be the
derivative of s_k by psi_k, diag(q) - P_k^T diag(1 / a_k) P_k, y a loss's derivative by q, and let
z_k and l solve H_k z_k = l for all k, sum_k w_k z_k = y. Then its derivatives by a_k are the
means of z_k under the rows of P_k, times w_k, and those by w_k are -<l, psi_k>.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from sinkhorn_ot.results import Entropic, Transport
from sinkhorn_ot.sweeps import choose


if TYPE_CHECKING:
    from .result import Asked


Map = Callable[[Tensor], Tensor]

# steps of conjugate gradients, what they leave of the right side, and what they may leave at most
_STEPS, _END, _FAILED = 2000, 1e-12, 1e-6


def refuse(what: str, why: str = "") -> NoReturn:
    """Tell whoever asks for derivatives that there are none."""
    raise RuntimeError(
        f"{what} of a barycentre has no derivatives{why}: value has those by histograms, weights, "
        "cost, points and reg, and histogram by histograms and weights where it is not debiased"
    )


def pulled(transport: Transport, asked: "Asked", by: Tensor) -> dict[str, Tensor]:
    """Return derivatives by histograms "a" and weights "w" from those by the barycentres (G, m)."""
    others = [name for name in asked.waits if name not in ("a", "w")]
    if asked.debiased or others:
        why = " where it is debiased" if asked.debiased else f" by {' and '.join(others)}"
        refuse("histogram", why)
    with torch.no_grad():
        return _solved(transport, asked.w.detach(), by)


def _solved(transport: Transport, w: Tensor, by: Tensor) -> dict[str, Tensor]:
    k, held = transport.coupling, transport.problem
    assert isinstance(k, Entropic)
    share = w.to(held.work).reshape(-1, w.shape[-1], 1)
    psi = torch.where(held.b > 0, k.v, 0.0).view(*share.shape[:2], -1)
    q = held.b.view_as(psi)
    sweep = choose(held, 1e-9)
    sweep.sweep(k.u, k.v)
    times = sweep.curve_product(k.u, k.v)
    # column sums as they are, so that a constant stays without answer
    s = times(torch.ones_like(held.b)).view_as(psi)

    def bent(z: Tensor) -> Tensor:
        """Return H_k z_k."""
        return s * z - times(z.flatten(0, 1)).view_as(z)

    def agreed(x: Tensor) -> Tensor:
        """Return the weighted mean over histograms, (G, 1, m)."""
        return (share * x).sum(1, keepdim=True)

    y = by.to(held.work)[:, None].expand_as(psi)
    z = y + _conjugate(bent, agreed, share, q, y)
    joined = agreed(bent(z))
    means = k.conditional(z.flatten(0, 1)[..., None])[..., 0]
    over_a = share.flatten(0, 1) * means
    return {
        "a": over_a.view(*held.batch_shape, -1),
        "w": -(joined * psi).sum(-1).view(held.batch_shape),
    }


def _conjugate(bent: Map, agreed: Map, share: Tensor, q: Tensor, y: Tensor) -> Tensor:
    """Return t with sum_k w_k t_k = 0 for which H_k (y + t_k) is the same for all k.

    By conjugate gradients where that sum is zero, with the inner product sum_k w_k <., .>, divided
    by the diagonal q, which all H_k share and which therefore leads nowhere else.
    """

    def apart(x: Tensor) -> Tensor:
        return x - agreed(x)

    def inner(x: Tensor, z: Tensor) -> Tensor:
        return (share * x * z).sum((1, 2))[:, None, None]

    inverse = torch.where(q > torch.finfo(q.dtype).tiny / _END, 1 / q, 0.0)
    r = -apart(bent(y))
    t, d = torch.zeros_like(r), inverse * r
    size = first = inner(r, d)
    for _ in range(_STEPS):
        runs = size > _END**2 * first
        if not bool(runs.any()):
            break
        along = apart(bent(d))
        step = torch.where(runs, size / inner(d, along), 0.0)
        t, r = t + step * d, r - step * along
        before, size = size, torch.where(runs, inner(r, inverse * r), size)
        d = inverse * r + torch.where(runs, size / before, 0.0) * d
    left = (size / first).nan_to_num(nan=0.0).amax().sqrt()
    if not float(left) <= _FAILED:
        raise RuntimeError(
            "gradients of a barycentre were not found: their linear system was solved to "
            f"{float(left):.2g} of its right side: a larger reg helps"
        )
    return t
