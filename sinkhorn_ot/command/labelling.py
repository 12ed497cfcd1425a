"""`labels`: labels of a file of logits, in equal or in given shares."""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import sinkhorn_ot as so

from . import ending, files, many
from .files import Array


def act(options: argparse.Namespace) -> int:
    """Label, write and say how it ended."""
    start = time.perf_counter()
    _require(options)
    S = files.mapped("logits", options.logits, (2, 3))
    with many.group(options.device) as group:
        own = S[..., many.share(S.shape[-2], group), :]
        found, said = (_counted if options.counts else _BY[options.method])(own, options, group)
        labels = many.joined(found.pop("labels"), group)
        if many.first(group) and options.out is not None:
            files.write(options.out, "labels", labels=labels, **found)
        status = said.pop("status")
        return (
            ending.told(options, start, status, **said)
            if many.first(group)
            else max(ending.CODES[s] for s in status)
        )


def _require(options: argparse.Namespace) -> None:
    """Require arguments that go together."""
    files.writable(options.out, ".npy", ".npz", ".parquet")
    if options.counts and options.marginal:
        raise ValueError("--counts must not be given with --marginal")
    if options.checkpoint and (options.counts or options.method != "sela"):
        raise ValueError("--checkpoint must be given for SeLa's labels only")


def _sela(S: Array, options: argparse.Namespace, group: Any) -> tuple[dict[str, Any], Any]:
    limits = {name: getattr(options, name) for name in ("tol", "max_iter")}
    found = so.sela_labels(
        files.blocks(S, options.dtype, options.device),
        lamb=options.lamb,
        marginal=files.vector("--marginal", options.marginal, S.shape[-1]),
        progress=options.progress,
        checkpoint=options.checkpoint,
        group=group,
        on_fail="ignore",
        **{name: limit for name, limit in limits.items() if limit is not None},
    )
    said = {"marginal_error": found.marginal_error, "n_iter": found.n_iter, "counts": found.counts}
    written = {"labels": found.labels, "potentials": found.potentials, "counts": found.counts}
    return written, {"status": found.statuses, **said}


def _swav(S: Array, options: argparse.Namespace, group: Any) -> tuple[dict[str, Any], Any]:
    codes = so.swav_codes(
        files.held(S, options.dtype, options.device), eps=1 / options.lamb, group=group
    )
    labels = codes.argmax(-1)
    counts = torch.nn.functional.one_hot(labels, S.shape[-1]).sum(-2)
    return {"labels": labels, "counts": counts}, {"status": [so.Status.FIXED], "counts": counts}


def _counted(S: Array, options: argparse.Namespace, group: Any) -> tuple[dict[str, Any], Any]:
    if group is not None:
        raise ValueError("--counts must not be given where rows are spread over ranks")
    if options.counts == "balanced":
        counts = None
    else:
        counts = files.vector("--counts", Path(options.counts), S.shape[-1])
    scores = files.held(S, options.dtype, options.device)
    found = so.balanced_labels(scores, counts, on_fail="ignore", progress=options.progress)
    proved = found.proved.reshape(-1).tolist()
    status = [so.Status.OPTIMAL if good else so.Status.STALLED for good in proved]
    said = {"value": found.value, "gap": found.gap, "counts": found.counts}
    return {"labels": found.labels, "counts": found.counts}, {"status": status, **said}


_BY = {"sela": _sela, "swav": _swav}
