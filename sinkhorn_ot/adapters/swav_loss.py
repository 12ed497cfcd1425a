"""SwAV around its codes: features, their queue, the swapped prediction, and all as one loss."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sinkhorn_ot import _check

from ._call import at_least_single, rows_that_count
from .swav import swav_codes


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
        length, dim = _check.count("length", length), _check.count("dim", dim)
        self.register_buffer("features", torch.zeros(length, dim))
        # a number of the host: reading it never waits for a device
        self._pushed = 0

    @property
    def ready(self) -> bool:
        """Whether every row holds a feature."""
        return self._pushed >= len(self.features)

    @torch.no_grad()
    def push(self, features: Any) -> None:
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
        _check.same_device("features", z, self.features.device, "the queue")
        dropped = max(0, len(z) - length)
        at, z = (self._pushed + dropped) % length, z[dropped:].to(self.features.dtype)
        until_end = min(len(z), length - at)
        self.features[at : at + until_end] = z[:until_end]
        self.features[: len(z) - until_end] = z[until_end:]
        self._pushed += dropped + len(z)

    @torch.no_grad()
    def scores(self, prototypes: Any) -> Tensor:
        """Return the cosines of what is held and prototypes (K, dim): (length, K)."""
        return _cosines(self.features, _prototypes(prototypes, self.features.shape[1]))

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


@torch.no_grad()
def swav_codes_from_features(
    features: Any, prototypes: Any, queue: SwAVQueue | None = None, **options: Any
) -> Tensor:
    """Return SwAV's codes for a batch of features, scored by their cosine with each prototype.

    A queue that is ready takes part in the iterations, in front of the batch; one that is not is
    left out. It is only read: push the features when all that needs it has been computed.

    Args:
        features: One per sample, (N, D) or (..., N, D) without a queue, of any length.
        prototypes: One per row, (K, D), of any length.
        queue: Features of earlier batches, of the same width.
        **options: Those of `swav_codes`: eps, n_iter, mask (of the batch), hard, out_dtype, group.

    Returns:
        Codes of the batch, (..., N, K); float32 for half-precision features.

    Raises:
        ValueError: If an argument breaks a rule.
    """
    z = _features(features)
    C = _prototypes(prototypes, z.shape[-1])
    scores = _cosines(z, C)
    if queue is None or not queue.ready:
        return swav_codes(scores, **options)
    if z.ndim != 2:
        raise ValueError(f"features must have shape (N, D) with a queue, got {tuple(z.shape)}")
    if options.get("mask") is not None:
        mask = rows_that_count(options["mask"], scores.shape, scores.device)
        options["mask"] = torch.cat([mask.new_ones(len(queue.features)), mask])
    return swav_codes(torch.cat([queue.scores(C), scores]), last=len(z), **options)


@torch.no_grad()
def normalize_prototypes_(weight: Tensor) -> None:
    """Scale prototypes (K, D) to length one, in place: what SwAV does before every step.

    Args:
        weight: One prototype per row, e.g. the weight of a linear layer without bias.

    Raises:
        ValueError: If it is no matrix of floating-point numbers.
    """
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        kind = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight must be a floating-point tensor of shape (K, D), got {kind}")
    weight.copy_(normalize(weight, dim=-1))


def swapped_prediction_loss(
    scores: Sequence[Tensor] | Tensor,
    codes: Sequence[Tensor] | Tensor,
    *,
    temperature: float = 0.1,
    assign: Sequence[int] = (0, 1),
) -> Tensor:
    """Return SwAV's loss: every crop predicts the codes of every assign crop but itself.

    The cross-entropy of codes and softmax(scores / temperature), averaged over samples, then over
    the other crops, then over the assign crops.

    Args:
        scores: Scores of each crop, V of them, (B, K); gradients flow through these.
        codes: Codes of each assign crop, (B, K), in the order of `assign`.
        temperature: Of the prediction, the paper's tau.
        assign: Which crops the codes belong to.

    Returns:
        The loss, a scalar in float32, or float64 for float64 scores.

    Raises:
        ValueError: If shapes or crops do not fit.
    """
    temperature = _check.positive("temperature", temperature)
    assign = _crops(scores, assign)
    if len(codes) != len(assign):
        raise ValueError(f"codes must be one per assign crop, {len(assign)}, got {len(codes)}")
    for at, q in enumerate(codes):
        _same_shape("codes", at, q, scores[0])
    with torch.autocast(scores[0].device.type, enabled=False):
        logs = [torch.log_softmax(S.to(at_least_single(S)) / temperature, -1) for S in scores]
        losses = [
            -(q.detach().to(p.dtype) * p).sum(-1).mean()
            for t, q in zip(assign, codes, strict=True)
            for s, p in enumerate(logs)
            if s != t
        ]
        # every assign crop has equally many others
        return torch.stack(losses).mean()


class SwAVLoss(nn.Module):
    """SwAV's loss from the scores of all crops: codes of the assign crops, predicted by the others.

    With queues, pass features and prototypes too once the queues shall be used; in the paper from
    epoch 15 on. In training mode the features are pushed after all scores were read.
    """

    queues: nn.ModuleList

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        eps: float = 0.05,
        n_iter: int = 3,
        assign: Sequence[int] = (0, 1),
        queues: Sequence[SwAVQueue] = (),
        group: Any = None,
    ) -> None:
        """Set the method's constants.

        Args:
            temperature: Of the prediction.
            eps: Of the codes.
            n_iter: Sinkhorn iterations of the codes.
            assign: Crops whose codes are predicted.
            queues: None, or one per assign crop.
            group: Process group whose ranks share the codes; see `swav_codes`. The loss is the
                mean over this rank's samples, as `DistributedDataParallel` expects it.
        """
        super().__init__()
        if len(queues) not in (0, len(assign)):
            raise ValueError(
                f"queues must be one per assign crop, {len(assign)}, or none, got {len(queues)}"
            )
        self.temperature = _check.positive("temperature", temperature)
        self.eps, self.n_iter, self.assign, self.group = eps, n_iter, tuple(assign), group
        self.queues = nn.ModuleList(queues)

    def forward(
        self,
        scores: Sequence[Tensor] | Tensor,
        features: Sequence[Tensor] | Tensor | None = None,
        prototypes: Tensor | None = None,
    ) -> Tensor:
        """Return the loss.

        Args:
            scores: Cosines of features and prototypes, (B, K) for each crop.
            features: What was scored, (B, D) for each crop; None leaves the queues alone.
            prototypes: What it was scored with, (K, D), e.g. the weight of the last layer.

        Returns:
            The loss, a scalar in float32, or float64 for float64 scores.

        Raises:
            ValueError: If shapes or crops do not fit.
        """
        crops = _crops(scores, self.assign)
        held = cast(list[SwAVQueue], list(self.queues)) if features is not None else []
        if features is not None and (prototypes is None or len(features) != len(scores)):
            raise ValueError(
                "features must come with prototypes, and one for each crop of scores, "
                f"got {len(features)} for {len(scores)}"
            )
        codes = [
            self._codes(scores[t].detach(), held[at] if held else None, prototypes)
            for at, t in enumerate(crops)
        ]
        if features is not None and held and self.training:
            for t, queue in zip(crops, held, strict=True):
                queue.push(features[t].detach())
        return swapped_prediction_loss(
            scores, codes, temperature=self.temperature, assign=self.assign
        )

    def _codes(self, S: Tensor, queue: SwAVQueue | None, prototypes: Tensor | None) -> Tensor:
        N = len(S)
        if queue is not None and queue.ready:
            assert prototypes is not None
            S = torch.cat([queue.scores(prototypes.detach()), S])
        return swav_codes(S, eps=self.eps, n_iter=self.n_iter, last=N, group=self.group)


def _crops(scores: Sequence[Tensor] | Tensor, assign: Sequence[int]) -> tuple[int, ...]:
    """Return the assign crops, of at least two crops whose scores have one shape."""
    if len(scores) < 2 or scores[0].ndim != 2:
        shapes = [tuple(S.shape) for S in scores]
        raise ValueError(f"scores must be (B, K) for each of two crops or more, got {shapes}")
    for at, S in enumerate(scores):
        _same_shape("scores", at, S, scores[0])
    crops = tuple(_check.count("assign", t, at_least=0) for t in assign)
    if not crops or len(set(crops)) < len(crops) or max(crops) >= len(scores):
        raise ValueError(
            f"assign must be different crops below {len(scores)}, the number of scores, got {crops}"
        )
    return crops


def _same_shape(name: str, at: int, x: Tensor, first: Tensor) -> None:
    if x.shape != first.shape:
        raise ValueError(
            f"{name} must have the shape of scores[0], {tuple(first.shape)}, got {tuple(x.shape)} "
            f"at index {at}"
        )


def _features(features: Any) -> Tensor:
    """Return features, (..., D), none of them broken as far as a look is free."""
    z = _check.tensor("features", features)
    if z.ndim < 2 or z.shape[-1] == 0:
        raise ValueError(f"features must have shape (..., N, D), got {tuple(z.shape)}")
    if z.device.type == "cpu" and z.numel() and not torch.compiler.is_compiling():
        _check.finite("features", z)
    return z


def _prototypes(prototypes: Any, dim: int) -> Tensor:
    C = _check.at_least_dims("prototypes", _check.tensor("prototypes", prototypes), 2, "(K, D)")
    if C.ndim != 2 or C.shape[1] != dim:
        raise ValueError(
            f"prototypes must have shape (K, {dim}) to fit features of width {dim}, "
            f"got {tuple(C.shape)}"
        )
    return C


def _cosines(z: Tensor, C: Tensor) -> Tensor:
    """Return the cosines of features (..., N, D) and prototypes (K, D) in at least float32."""
    _check.same_device("prototypes", C, z.device, "features")
    dtype = torch.promote_types(at_least_single(z), C.dtype)
    with torch.autocast(z.device.type, enabled=False):
        return normalize(z.to(dtype), dim=-1) @ normalize(C.to(dtype), dim=-1).mT
