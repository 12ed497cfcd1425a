"""Codes straight from features: their cosines with the prototypes, and a queue of earlier ones."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from typing_extensions import Unpack

from sinkhorn_ot.adapters.arguments import Asked, at_least_single, checked, rows_that_count, sound
from sinkhorn_ot.adapters.constants import constant
from sinkhorn_ot.problem import ArrayLike, checks
from sinkhorn_ot.sweeps import ALONE

from .codes import Options, has_kernels, swav_codes


class SwAVQueue(nn.Module):
    """The last features that were pushed, for batches smaller than the number of prototypes.

    It holds zeros until `length` features have been pushed, and is used by nobody before: `ready`
    says so. Features are scored with the prototypes of the moment, never with old ones. One queue
    serves one crop. It is part of the `state_dict` of the module that holds it.

    Keep it outside of a model that is wrapped in `DistributedDataParallel`, which would overwrite
    every rank's queue with that of rank 0.
    """

    features: Tensor

    def __init__(self, length: int, dim: int) -> None:
        """Make an empty queue.

        Args:
            length: Features held; 3840 in the paper.
            dim: Width of a feature; 128 in the paper.
        """
        super().__init__()
        length, dim = checks.count("length", length), checks.count("dim", dim)
        self.register_buffer("features", torch.zeros(length, dim))
        # a number of the host: reading it never waits for a device
        self._pushed = 0

    @property
    def ready(self) -> bool:
        """Whether every row holds a feature."""
        return self._pushed >= len(self.features)

    @torch.no_grad()
    def push(self, features: ArrayLike) -> None:
        """Replace the oldest features; of more than fit, the last ones are kept.

        Args:
            features: What to hold, (B, dim).

        Raises:
            ValueError: If the width is another, or on a CPU a feature is not finite.
        """
        length, dim = self.features.shape
        z = _features(features)
        if z.ndim != 2 or z.shape[1] != dim:
            raise ValueError(f"features must have shape (B, {dim}), got {tuple(z.shape)}")
        checks.same_device("features", z, self.features.device, "the queue")
        dropped = max(0, len(z) - length)
        at, z = (self._pushed + dropped) % length, z[dropped:].to(self.features.dtype)
        until_end = min(len(z), length - at)
        self.features[at : at + until_end] = z[:until_end]
        self.features[: len(z) - until_end] = z[until_end:]
        self._pushed += dropped + len(z)

    @torch.no_grad()
    def scores(self, prototypes: ArrayLike) -> Tensor:
        """Return the products of what is held and prototypes (K, dim): (length, K).

        A linear layer without bias makes the same of a batch. Both are cosines where features and
        prototypes have length one, as in the paper.
        """
        z = self.features
        C = checks.same_device(
            "prototypes", _prototypes(prototypes, z.shape[1]), z.device, "the queue"
        )
        dtype = torch.promote_types(at_least_single(z.dtype), C.dtype)
        with torch.autocast(z.device.type, enabled=False):
            return z.to(dtype) @ C.to(dtype).mT

    def get_extra_state(self) -> int:
        """Return how many features were pushed, for `state_dict`."""
        return self._pushed

    def set_extra_state(self, state: int) -> None:
        """Take how many features were pushed, from `state_dict`."""
        self._pushed = state

    def extra_repr(self) -> str:
        """Say the sizes, and how full the queue is."""
        length, dim = self.features.shape
        return f"length={length}, dim={dim}, held={min(self._pushed, length)}"


@constant
def swav_codes_from_features(
    features: ArrayLike,
    prototypes: ArrayLike,
    queue: SwAVQueue | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Return SwAV's codes for a batch of features, scored by their cosine with each prototype.

    A queue that is ready takes part in the iterations, in front of the batch; one that is not is
    left out. It is only read: push the features when all that needs it has been computed.

    Args:
        features: One per sample, (N, D) or (..., N, D) without a queue, of any length.
        prototypes: One per row, (K, D), of any length.
        queue: Features of earlier batches, of the same width.
        **options: Those of `swav_codes`: eps, n_iter, mask and last (both of the batch), hard,
            out_dtype, on_fail, group. Features that the mask leaves out may hold anything.

    Returns:
        Codes of the batch, (..., N, K); float32 for half-precision features.

    Raises:
        ValueError: If an argument breaks a rule.
    """
    z = _shaped(features)
    C = _prototypes(prototypes, z.shape[-1])
    z, options = _without_others(z, len(C), options)
    queue = queue_or_none(queue)
    if queue is not None and queue.features.shape[1] != z.shape[-1]:
        # also while it is not used yet
        held, dim = queue.features.shape[1], z.shape[-1]
        raise ValueError(f"queue must hold features of width {dim}, got a queue of width {held}")
    if queue is not None and not queue.ready:
        queue = None
    if queue is not None and z.ndim != 2:
        raise ValueError(f"features must have shape (N, D) with a queue, got {tuple(z.shape)}")
    if queue is not None:
        options = _behind(queue, z, C, options)
    if _worth_it(z, C, queue, options):
        return _without_scores(z, C, queue, **options)
    scores = _cosines(z, C)
    if queue is not None:
        scores = torch.cat([_cosines(queue.features, C), scores])
    return swav_codes(scores, **options)


def _behind(queue: SwAVQueue, z: Tensor, C: Tensor, options: Options) -> Options:
    """Return the options of a batch as those of queue and batch together."""
    last = options.get("last")
    last = len(z) if last is None else checks.count("last", last)
    if last > len(z):
        raise ValueError(f"last must be at most the batch, {len(z)}, got {last}")
    # checked by now
    mask = cast("Tensor | None", options.get("mask"))
    if mask is not None:
        mask = torch.cat([mask.new_ones(len(queue.features)), mask])
    return options | {"last": last, "mask": mask}


def queue_or_none(queue: Any) -> SwAVQueue | None:
    """Require a queue, if anything."""
    if queue is not None and not isinstance(queue, SwAVQueue):
        raise ValueError(f"queue must be a SwAVQueue or None, got {type(queue).__name__}")
    return queue


def _without_others(z: Tensor, K: int, options: Options) -> tuple[Tensor, Options]:
    """Return features, zero where the mask leaves them out, and the options with it checked."""
    mask = options.get("mask")
    if mask is None:
        return sound("features", z), options
    mask = rows_that_count(mask, torch.Size((*z.shape[:-1], K)), z.device)
    return sound("features", z.masked_fill(~mask[..., None], 0.0)), options | {"mask": mask}


# scores above which they are not stored: 256 MB
_MANY = 1 << 26
# the widest features that stay on chip
_WIDE = 128


def _worth_it(z: Tensor, C: Tensor, queue: SwAVQueue | None, options: Options) -> bool:
    """Say whether to make scores again at every step; kernels/README.md has the reckoning."""
    held = 0 if queue is None else len(queue.features)
    many = (z.shape[:-1].numel() + held) * len(C) >= _MANY and z.shape[-1] <= _WIDE
    served = has_kernels(z) and has_kernels(C) and options.get("n_iter", 3) is not None
    return many and served and options.get("group") is None


def _without_scores(z: Tensor, C: Tensor, queue: SwAVQueue | None, **options: Any) -> Tensor:
    """Return the codes asked for by the operator that stores no scores."""
    # imported here: it registers operators, which only CUDA tensors need
    from . import operators

    checks.same_device("prototypes", C, z.device, "features")
    rows = z if queue is None else torch.cat([queue.features.to(z.dtype), z])
    p = _options(z.new_empty((), dtype=torch.float32).expand(*rows.shape[:-1], len(C)), **options)
    with torch.autocast(z.device.type, enabled=False):
        units = _units(rows.float()).reshape(-1, *rows.shape[-2:])
        keep = None if p.mask is None else p.mask.reshape(units.shape[:2])
        last = rows.shape[-2] - p.start
        at = units, _units(C.float())[None], keep
        launched = operators.launched(operators.feature_codes_by_triton)
        act = torch.ops.sinkhorn_ot.feature_codes if checks.seen_through(*at) else launched
        codes: Tensor = act(*at, 1.0 / p.eps, p.n_iter, last, p.hard, p.out_dtype)
    return codes.reshape(*z.shape[:-2], last, len(C))


def _options(  # noqa: PLR0913
    S: Tensor, eps: Any = 0.05, n_iter: Any = 3, mask: Any = None, last: Any = None,
    hard: bool = False, out_dtype: Any = None, on_fail: Any = "warn", group: None = None,
) -> Asked:  # fmt: skip
    """Return the checked options of `swav_codes`, with scores `S` in place of those not made."""
    named = "scores", "eps", "swav_codes_from_features"
    return checked(ALONE, S, eps, n_iter, mask, last, out_dtype, hard, *named, on_fail)


@torch.no_grad()
def normalize_prototypes_(weight: Tensor) -> None:
    """Scale prototypes (K, D) to length one, in place: what SwAV does before every step.

    Args:
        weight: One prototype per row, e.g. the weight of a linear layer without bias.

    Raises:
        ValueError: If it is no dense matrix of floating-point numbers, on a CPU of finite ones.
    """
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        kind = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight must be a floating-point tensor of shape (K, D), got {kind}")
    checks.plain("weight", weight)
    weight.copy_(normalize(sound("weight", weight), dim=-1))


def _features(features: Any) -> Tensor:
    """Return features, (..., D), none of them broken as far as a look is free."""
    return sound("features", _shaped(features))


def _shaped(features: Any) -> Tensor:
    z = checks.tensor("features", features)
    if z.ndim < 2 or z.shape[-1] == 0:
        raise ValueError(f"features must have shape (..., N, D), got {tuple(z.shape)}")
    return z


def _prototypes(prototypes: Any, dim: int) -> Tensor:
    C = checks.at_least_dims("prototypes", checks.tensor("prototypes", prototypes), 2, "(K, D)")
    if C.ndim != 2 or C.shape[1] != dim:
        raise ValueError(
            f"prototypes must have shape (K, {dim}) to fit features of width {dim}, "
            f"got {tuple(C.shape)}"
        )
    return sound("prototypes", C)


def _cosines(z: Tensor, C: Tensor) -> Tensor:
    """Return the cosines of features (..., N, D) and prototypes (K, D) in at least float32."""
    checks.same_device("prototypes", C, z.device, "features")
    dtype = torch.promote_types(at_least_single(z.dtype), C.dtype)
    with torch.autocast(z.device.type, enabled=False):
        return _units(z.to(dtype)) @ _units(C.to(dtype)).mT


def _units(x: Tensor) -> Tensor:
    """Return vectors of length one, however long or short they were; zero stays zero."""
    largest = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return normalize(x / largest, dim=-1)
