"""One small barycentre on a CPU, whole, in NumPy: there a call costs more than its arithmetic.

The steps are those of `projections`, of scalings in place of logarithms, a few plain ones between
two extrapolations. What does not arrive soon is left to the others.

Source of the alternation: P. Pratapa, P. Suryanarayana, J. Pask, Anderson acceleration of the
Jacobi iterative method, J. Comput. Phys. 2016.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import Dense, Problem
from sinkhorn_ot.results import Status

from .projections import Found


Array = npt.NDArray[np.float64]

# entries of a kernel, and of all potentials, up to which calls are what takes time; exponents that
# products of a kernel and two scalings may span; sweeps allowed
_PAIRS, _MANY, _SPAN, _MOST = 1 << 16, 1 << 12, 150.0, 60
# plain steps from which one extrapolates
_MEMORY = 4
# an error above this many times the one before is that of a step to be taken back
_GROWTH = 2.0


def project_small(p: Problem, w: Tensor, tol: float, max_iter: int) -> Found | None:
    """Project one small barycentre from nothing until it is within tol; None if it is not soon.

    Args:
        p: The problem of every histogram, whose columns are free.
        w: Weights of the histograms, (1, k), that sum to one.
        tol: Error to reach.
        max_iter: Sweeps allowed.
    """
    k, n, m = p.shape
    few = n * m <= _PAIRS and k * m <= _MANY and len(w) == 1 and p.one_reg is not None
    if not few or not isinstance(p.cost, Dense) or p.a.device.type != "cpu":
        return None
    if p.bounds.high - p.bounds.low > _SPAN * p.least_reg:
        return None
    with np.errstate(all="ignore"):
        return _projected(p, w, tol, min(_MOST, max_iter))


def _projected(p: Problem, w: Tensor, tol: float, max_iter: int) -> Found | None:
    C = p.cost.rows(0, p.shape[1])[0].to(p.work).numpy()
    K = np.exp((p.bounds.low - C) / p.least_reg)
    a, share = p.a.numpy(), w.numpy()
    mass = np.add.reduce(a, 1)
    psi, past = np.zeros((len(a), K.shape[1])), Past()
    for used in range(1, max_iter + 1):
        y = np.exp(psi)
        sums = y @ K.T
        s = (a / sums) @ K
        log_s = np.log(s)
        log_q = share @ log_s
        q = np.exp(log_q)
        errors = np.add.reduce(np.abs(y * s - q), 1) / mass
        error = float(np.maximum.reduce(errors))
        if error <= tol:
            u = np.log(a) - np.log(sums) + (p.bounds.low - p.shift) / p.least_reg
            return Found(
                u=torch.from_numpy(u),
                psi=torch.from_numpy(psi[None]),
                log_q=torch.from_numpy(log_q),
                errors=torch.from_numpy(errors[None]),
                error=w.new_tensor([error]),
                n_iter=torch.tensor([used]),
                status=[Status.CONVERGED],
            )
        psi = past.step(psi, log_q - log_s, error, q[0])
    return None


class Past:
    """Where plain steps led, and by how much, since the last extrapolation."""

    def __init__(self) -> None:
        self._plain: list[Array] = []
        self._moved: list[Array] = []
        self._back: tuple[Array, float] | None = None

    def step(self, psi: Array, plain: Array, error: float, weight: Array) -> Array:
        """Return the next potentials, (k, m), where a plain step leads from psi to `plain`."""
        if self._back is not None:
            (back, before), self._back = self._back, None
            if not error <= _GROWTH * before:
                return back
        self._plain.append(plain)
        self._moved.append(plain - psi)
        if len(self._plain) <= _MEMORY:
            return plain
        g, r = (np.stack(t).reshape(len(t), -1) for t in (self._plain, self._moved))
        self._plain, self._moved = [], []
        self._back = plain, error
        dg, dr = np.diff(g, axis=0), np.diff(r, axis=0)
        scaled = (dr.reshape(-1, *plain.shape) * weight).reshape(dr.shape)
        gram = scaled @ dr.T
        gram.flat[:: len(gram) + 1] *= 1 + 1e-10
        try:
            mix = np.linalg.solve(gram, scaled @ r[-1])
        except np.linalg.LinAlgError:
            return plain
        return plain - (mix @ dg).reshape(plain.shape)
