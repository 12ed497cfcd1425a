"""Balanced codes from scores: the iterations of SwAV and its relatives, and the rows they keep.

The plan is `Q_ik = exp(S_ik / eps + f_k + g_i)`, whose rows are the samples, of weight one, and
whose columns are the prototypes, of weight r. The first prototype step reads S once, each further
step reads it once (samples and next prototypes together), and the last step of the samples reads
and writes only the rows that are kept. That is `codes_rows`, where rows stay on chip; where they do
not it is `codes_across` or `codes_tiles`.

The sums of a prototype need no rescue: after its own step a row holds at most all mass, which is
one, so making it one only raises what the prototypes hold.
"""

import torch
from torch import Tensor

from . import codes_across, codes_rows, codes_tiles
from .codes_tiles import Potentials


def codes(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int, last: int, *,
    soft: torch.dtype | None = torch.float32, hard: bool = False, keep: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Return what `write` makes of the last rows after `solve`, in as few launches as there can be.

    One where rows fit on chip and programs may meet; two for each iteration and two besides where
    they do not fit.
    """
    keep = None if keep is None else keep.contiguous()
    if codes_rows.plan(S) is not None:
        return codes_rows.iterate(S, r, inv_eps, n_iter, keep, last, soft, hard)[1:]
    rows = S[:, S.shape[1] - last :]
    kept = None if keep is None else keep[:, S.shape[1] - last :].contiguous()
    if not codes_across.fits(S):
        at = codes_tiles.iterate(S, r, inv_eps, n_iter, keep)
        return _write_long(rows, at, inv_eps, kept, soft, hard)
    at, g = codes_across.iterate(S, r, inv_eps, n_iter, keep)
    g = g[:, :, S.shape[1] - last :].contiguous()
    return codes_tiles.write(rows, at, g, inv_eps, kept, soft, hard)


def solve(
    S: Tensor, r: Tensor | None, inv_eps: Tensor | float, n_iter: int = 3,
    keep: Tensor | None = None,
) -> Tensor | Potentials:  # fmt: skip
    """Return the prototypes' potential that `n_iter` iterations lead to, as `write` takes it.

    The last step of the samples is left to `write`.

    Args:
        S: Scores (B, N, K), any strides, float32, float16 or bfloat16.
        r: Weights of the prototypes (B, K), float32; None for one each.
        inv_eps: 1 / eps, of all problems or of each (B,), float32.
        n_iter: Iterations, prototypes first.
        keep: Samples that count (B, N), bool; None for all.

    Returns:
        f (B, K), to base 2, where rows fit on chip, else with the prototypes' peaks.
    """
    keep = None if keep is None else keep.contiguous()
    if codes_rows.plan(S) is not None:
        return codes_rows.iterate(S, r, inv_eps, n_iter, keep)[0]
    if codes_across.fits(S):
        return codes_across.iterate(S, r, inv_eps, n_iter, keep)[0]
    return codes_tiles.iterate(S, r, inv_eps, n_iter, keep)


def write(
    S: Tensor, f: Tensor | Potentials, inv_eps: Tensor | float, *,
    soft: torch.dtype | None = torch.float32, hard: bool = False, keep: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Take the samples' last step, and write the codes exp(S / eps + f + g) of all rows of S.

    Args:
        S: Scores of the samples to be written (B, n, K); a slice of the rows that were swept.
        f: Potential of the prototypes, from `solve`.
        inv_eps: 1 / eps, of all problems or of each (B,), float32.
        soft: Dtype of the soft codes; None for none.
        hard: Whether to write labels, the first of the largest entries of a row.
        keep: Samples that count (B, n), bool; others get a code of zeros and the label -1.

    Returns:
        Soft codes (B, n, K), whose rows sum to one, or None; labels (B, n) int64, or None.
    """
    keep = None if keep is None else keep.contiguous()
    if isinstance(f, Tensor):
        return codes_rows.write(S, f.contiguous(), inv_eps, keep, soft, hard)
    return _write_long(S, f, inv_eps, keep, soft, hard)


def _write_long(
    S: Tensor, at: Potentials, inv_eps: Tensor | float, keep: Tensor | None,
    soft: torch.dtype | None, hard: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    g = codes_tiles.samples(S, at, inv_eps, keep) if soft is not None else None
    return codes_tiles.write(S, at, g, inv_eps, keep, soft, hard)
