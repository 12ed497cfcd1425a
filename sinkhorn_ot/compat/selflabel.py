"""SeLa's and SeLaVi's own steps of labelling, for loops that already have them: change the import.

Both hold probabilities, of which powers and products underflow, and iterate them; here their
logarithms are solved.
"""

from typing import Any

import torch
from torch import Tensor

from sinkhorn_ot.adapters import SelaLabels, sela_labels
from sinkhorn_ot.results import missed


# their rule is a sum over samples
_SUM = 0.1


def optimize_L_sk(self: Any, nh: int = 0) -> None:
    """Label a data set anew, as the method of SeLa's optimiser does: `self.L[nh]`.

    Args:
        self: What has `PS`, probabilities of each sample and label, (N, K), an array or a tensor,
            which are not changed; `L`, labels (heads, N), int64, of which row nh is written; and
            `lamb`. Its `outs`, `dtype` and `dev` are not needed.
        nh: Number of the head.

    Raises:
        ValueError: If an argument breaks a rule; see `sela_labels`.

    Source: Y. M. Asano, C. Rupprecht, A. Vedaldi, Self-labelling via simultaneous clustering and
    representation learning, ICLR 2020.
    """
    PS = torch.as_tensor(self.PS)
    if PS.ndim != 2 or len(PS) != self.L.shape[-1]:
        raise ValueError(
            f"PS must have shape (N, K) with the N of L, {self.L.shape[-1]}, got {tuple(PS.shape)}"
        )
    self.L[nh] = _labelled(_log("PS", PS), self.lamb).labels.to(self.L.device)


def optimize_L_sk_gpu(
    args: Any, PS: Tensor, hc: int = 0, logger: object = None
) -> tuple[float, Tensor]:
    """Label a data set anew, as SeLaVi's function does.

    Args:
        args: What has `lamb`, and `distribution`, "default".
        PS: Products of the probabilities of two modalities, (N, K), which are not changed.
        hc: Number of the head; it decides nothing.
        logger: Taken, and nothing is said.

    Returns:
        The mean of minus the logarithms of what the labels have, each modality's half, and the
        labels, (N,), int64.

    Raises:
        ValueError: If an argument breaks a rule, or asks for unequal shares.

    Source: Y. M. Asano, M. Patrick, C. Rupprecht, A. Vedaldi, Labelling unlabelled videos from
    scratch with multi-modal self-supervision, NeurIPS 2020.
    """
    kind = getattr(args, "distribution", "default")
    if kind != "default":
        raise ValueError(
            f"distribution must be 'default', got {kind!r}: for unequal shares call "
            "sela_labels(marginal=gaussian_marginal(K), align=True)"
        )
    # each modality counts half
    log_p = _log("PS", torch.as_tensor(PS)) / 2
    labels = _labelled(log_p, args.lamb).labels
    cost = -log_p.gather(1, labels[:, None]).mean(dtype=torch.float64)
    return float(cost), labels


def _log(name: str, p: Tensor) -> Tensor:
    """Return logarithms of probabilities, which may be zero."""
    if not bool((p >= 0).all()):
        raise ValueError(f"{name} must hold probabilities, got one below zero or NaN")
    return p.detach().log()


def _labelled(log_p: Tensor, lamb: float) -> SelaLabels:
    found = sela_labels(log_p, lamb=float(lamb), tol=_SUM / len(log_p), on_fail="ignore")
    if not bool(found.converged):
        off, sweeps = float(found.marginal_error), int(found.n_iter)
        said = f"labels have their shares to {off:.3g} only, after {sweeps} sweeps"
        missed(said, found, "warn")
    return found
