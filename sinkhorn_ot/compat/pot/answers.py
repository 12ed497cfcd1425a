"""One way from a call of POT to `solve`: their limits, their words, their logs."""

import contextlib
import importlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.problem import checks, needs
from sinkhorn_ot.results import Status, Transport, missed
from sinkhorn_ot.solve import solve

from .arrays import Form


# no marginal is met more closely, in float64 and in what a GPU computes in single precision
_LEAST = {True: 1e-13, False: 1e-6}
# what POT calls our arguments
WORDS = {"cost": "M", "unbalanced": "reg_m", "tol": "stopThr", "max_iter": "numItermax"}


@dataclass(frozen=True)
class How:
    """When a call is content, and what it says.

    Attributes:
        stop: Relative L1 error of the marginals to reach.
        most: Sweeps allowed.
        verbose: Whether to show a progress bar.
        warn: Whether to warn where the error was not reached.
    """

    stop: float
    most: int
    verbose: bool = False
    warn: bool = True


def answered(
    cost: Any, a: Any, b: Any, reg: Any, how: How, words: dict[str, str] = WORDS, **more: Any
) -> Transport:
    """Return what `solve` finds, with messages that name their arguments."""
    checks.count(words.get("max_iter", "max_iter"), how.most)
    # a threshold of zero asks for all that there is
    checks.number(words.get("tol", "tol"), how.stop)
    more["tol"] = max(how.stop, least(cost))
    with their(words):
        r = solve(
            cost,
            a,
            b,
            reg,
            max_iter=how.most,
            on_fail="ignore",
            progress=bool(how.verbose),
            **more,
        )
    if how.warn and any(s is not Status.CONVERGED for s in r.statuses):
        missed(f"Sinkhorn did not converge. {r.message}", r, "warn")
    return r


class their:  # noqa: N801
    """A context in which messages begin with the names that a caller gave his arguments."""

    def __init__(self, words: dict[str, str]) -> None:
        self._words = words

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Raise the same error in other words."""
        if isinstance(error, ValueError):
            first, _, rest = str(error).partition(" ")
            if first in self._words:
                raise ValueError(f"{self._words[first]} {rest}") from None


def scaled(r: Transport, a: Any, b: Any, reg: Any) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the scalings of exp(-M / reg), (..., n) and (..., m)."""
    log_a, log_b = (log_of(w, size, r) for w, size in zip((a, b), r.problem.shape[1:], strict=True))
    return r.f / reg + log_a, r.g / reg + log_b


def log_of(w: Any, size: int, r: Transport) -> Tensor | float:
    """Return the logarithms of weights, as functions of them."""
    if w is None:
        return -math.log(size)
    return torch.as_tensor(w, dtype=torch.float64, device=r.problem.a.device).log()


def references(M: Any, a: Any, b: Any, reg: Any, c: Any) -> Tensor:
    """Return the cost at which KL(P | a b^T) is KL(P | c) at M, up to masses of the references.

    <P, M> + reg KL(P | c) is <P, C> + reg KL(P | a b^T) for C = M - reg log(c / (a b^T)).

    Args:
        M: Costs, (n, m).
        a: Source weights, (n,), or None.
        b: Target weights, (m,) or (k, m), or None.
        reg: Regularisation.
        c: The reference, of any shape that broadcasts.
    """
    C, c = torch.as_tensor(M), torch.as_tensor(c)
    log_a, log_b = (_log(w, size, C.device) for w, size in zip((a, b), C.shape, strict=True))
    shift = log_a[:, None] + log_b[..., None, :] - c.to(C.device).log()
    return torch.add(C, reg * shift)


def _log(w: Any, size: int, device: torch.device) -> Tensor:
    """Return logarithms of weights; what has none has no pairs, whatever they cost."""
    if w is None:
        return torch.full((size,), -math.log(size), dtype=torch.float64, device=device)
    t = torch.as_tensor(w, dtype=torch.float64, device=device)
    return torch.where(t > 0, t, 1.0).log()


def two_sides(name: str, given: Any, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return where a call starts, (..., n) and (..., m), of which several targets are columns."""
    if not hasattr(given, "__len__") or len(given) != 2:
        raise ValueError(f"{name} must be a pair, of sources and of targets, got {given!r:.60}")
    found = []
    for x, size, side in zip(given, shape, ("sources", "targets"), strict=True):
        t = torch.as_tensor(x, dtype=torch.float64).detach()
        t = t.mT if t.ndim == 2 else t
        if t.shape[-1:] != (size,):
            raise ValueError(f"{name} must have {size} numbers of {side}, got shape {(*t.shape,)}")
        found.append(t)
    return found[0], found[1]


def potentials(scalings: Any, w: Any, size: int, reg: float) -> Tensor:
    """Return potentials of logarithms of scalings, (..., n)."""
    log_u = torch.as_tensor(scalings, dtype=torch.float64).detach()
    if w is None:
        return reg * (log_u + math.log(size))
    w = torch.as_tensor(w, dtype=torch.float64, device=log_u.device).detach()
    # what has no weight has no scaling, and may start anywhere
    f = reg * (log_u - w.log())
    return torch.where(w > 0, f, 0.0)


def absent(module: str, name: str) -> AttributeError:
    """Return an error that says whether POT's module of that name has what ours has not."""
    where = ""
    # Python looks for names of its own, which need no POT
    if not name.startswith("_"):
        with contextlib.suppress(ImportError), needs("ot"):
            theirs = importlib.import_module("ot" + module.partition(".compat.pot")[2])
            where = ": it is in POT itself" if hasattr(theirs, name) else ""
    return AttributeError(f"{module} has no {name!r}{where}")


def logged(form: Form, r: Transport, log_u: Tensor, log_v: Tensor, reg: Any) -> dict[str, Any]:
    """Return what all of POT's methods write down, and our result."""
    n_iter = int(r.n_iter.max())
    pairs = {"log_u": log_u, "log_v": log_v, "alpha": reg * log_u, "beta": reg * log_v}
    found = {name: form.out(t) for name, t in pairs.items()}
    return {
        **found,
        "u": form.out(log_u.exp()),
        "v": form.out(log_v.exp()),
        "logu": found["log_u"],
        "logv": found["log_v"],
        "err": [float(r.marginal_error.max())],
        "niter": n_iter,
        "n_iter": n_iter,
        "result": r,
    }


def least(cost: Any) -> float:
    """Return the least error that can be asked for at these costs."""
    device = getattr(cost, "device", None)
    host = not isinstance(device, torch.device) or device.type == "cpu"
    return _LEAST[bool(host or cost.dtype == torch.float64)]
