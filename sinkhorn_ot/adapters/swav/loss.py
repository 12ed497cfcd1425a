"""SwAV's loss: every crop predicts the codes of the others."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sinkhorn_ot.adapters.arguments import at_least_single, mean_of_rows, sound
from sinkhorn_ot.adapters.arguments import temperature as _temperature
from sinkhorn_ot.problem import checks
from sinkhorn_ot.results import ON_FAIL, OnFail
from sinkhorn_ot.sweeps import ProcessGroup, Ranks

from .codes import swav_codes
from .features import SwAVQueue


# one for each crop
Scores = Sequence[Tensor] | Tensor


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
    temperature = checks.positive("temperature", temperature)
    assign = _crops(scores, assign)
    if len(codes) != len(assign):
        raise ValueError(f"codes must be one per assign crop, {len(assign)}, got {len(codes)}")
    for at, q in enumerate(codes):
        _same_shape("codes", at, q, scores[0])
    _sound("scores", scores)
    _sound("codes", codes)
    return _swapped(scores, codes, temperature, assign)


def _swapped(
    scores: Sequence[Tensor] | Tensor,
    codes: Sequence[Tensor] | Tensor,
    temperature: float,
    assign: Sequence[int],
) -> Tensor:
    with torch.autocast(scores[0].device.type, enabled=False):
        logs = [torch.log_softmax(S.to(at_least_single(S.dtype)) / temperature, -1) for S in scores]
        losses = [
            mean_of_rows(-(q.detach().to(p.dtype) * p).sum(-1))
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

    Several heads of prototypes, of any sizes, may score the same features: pass what there is one
    of per head as a list. The loss is the mean over the heads.
    """

    queues: nn.ModuleList

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        eps: float = 0.05,
        n_iter: int | None = 3,
        assign: Sequence[int] = (0, 1),
        queues: Sequence[SwAVQueue] | None = (),
        on_fail: OnFail = "warn",
        group: ProcessGroup | None = None,
    ) -> None:
        """Set the method's constants.

        Args:
            temperature: Of the prediction.
            eps: Of the codes.
            n_iter: Sinkhorn iterations of the codes; None iterates to a tolerance.
            assign: Crops whose codes are predicted.
            queues: None, or one per assign crop.
            on_fail: What to do where n_iter=None does not reach its tolerance; see `swav_codes`.
            group: Process group whose ranks share the codes; see `swav_codes`. The loss is the
                mean over this rank's samples, as `DistributedDataParallel` expects it, and zero
                where it has none.
        """
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)
        self.eps = _temperature("eps", eps)
        self.n_iter = None if n_iter is None else checks.count("n_iter", n_iter)
        self.on_fail = checks.one_of("on_fail", on_fail, ON_FAIL)
        self.assign, self.group = _different(assign), group
        self.queues = nn.ModuleList(_one_each(queues, len(self.assign)))

    def forward(
        self,
        scores: Scores | Sequence[Scores],
        features: Sequence[Tensor] | Tensor | None = None,
        prototypes: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return the loss.

        Args:
            scores: Products of features and prototypes, (B, K) for each crop; a queue's are made
                alike. In the paper both have length one, and scores are cosines. Or a list of
                these, one for each head, each with its own K.
            features: What was scored, (B, D) for each crop; None leaves the queues alone.
            prototypes: What it was scored with, (K, D), e.g. the weight of the last layer; one for
                each head if there is a list of them.

        Returns:
            The loss, a scalar in float32, or float64 for float64 scores.

        Raises:
            ValueError: If shapes or crops do not fit.
        """
        heads, weights = _heads(scores, prototypes)
        crops = [_crops(head, self.assign) for head in heads][0]
        held = cast(list[SwAVQueue], list(self.queues)) if features is not None else []
        views = len(heads[0])
        if features is not None and (prototypes is None or len(features) != views):
            raise ValueError(
                "features must come with prototypes, and one for each crop of scores, "
                f"got {len(features)} for {views}"
            )
        if features is not None and held:
            _score_as(weights, heads)

        def look() -> None:
            for at, head in enumerate(heads):
                _sound("scores" if len(heads) == 1 else f"scores[{at}]", head)
            if features is not None:
                _sound("features", features)

        # elsewhere nothing is looked at
        Ranks(self.group if heads[0][0].device.type == "cpu" else None).agree(look)
        losses = [
            self._of_head(head, held, weight) for head, weight in zip(heads, weights, strict=True)
        ]
        if features is not None and held and self.training:
            for t, queue in zip(crops, held, strict=True):
                queue.push(features[t].detach())
        return torch.stack(losses).mean()

    def _of_head(self, scores: Scores, held: list[SwAVQueue], prototypes: Tensor | None) -> Tensor:
        codes = [
            self._codes(scores[t].detach(), held[at] if held else None, prototypes)
            for at, t in enumerate(self.assign)
        ]
        return _swapped(scores, codes, self.temperature, self.assign)

    def _codes(self, S: Tensor, queue: SwAVQueue | None, prototypes: Tensor | None) -> Tensor:
        N = len(S)
        if queue is not None and queue.ready:
            assert prototypes is not None
            S = torch.cat([queue.scores(prototypes.detach()), S])
        # targets are read in single precision, and so are not rounded to that of the scores
        how: dict[str, Any] = {k: getattr(self, k) for k in ("eps", "n_iter", "on_fail", "group")}
        return swav_codes(S, last=N, out_dtype=at_least_single(S.dtype), **how)

    def extra_repr(self) -> str:
        """Say the method's constants."""
        constants = f"temperature={self.temperature:g}, eps={self.eps:g}, n_iter={self.n_iter}"
        return f"{constants}, assign={self.assign}"


def _heads(
    scores: Scores | Sequence[Scores], prototypes: Tensor | Sequence[Tensor] | None
) -> tuple[list[Scores], list[Tensor | None]]:
    """Return the scores and the prototypes of each head, which score as many crops."""
    _listed("scores", scores)
    first: Any = scores[0] if len(scores) else None
    several = isinstance(first, (list, tuple)) or (isinstance(first, Tensor) and first.ndim == 3)
    heads: list[Any] = [*scores] if several else [scores]
    for head in heads:
        if len(head) != len(heads[0]):
            lengths = [len(head) for head in heads]
            raise ValueError(f"scores must have as many crops in every head, got {lengths}")
    if prototypes is None:
        return heads, [None] * len(heads)
    given: list[Any] = [prototypes] if isinstance(prototypes, Tensor) else [*prototypes]
    if len(given) != len(heads):
        raise ValueError(f"prototypes must be one per head, {len(heads)}, got {len(given)}")
    return heads, given


def _score_as(weights: list[Tensor | None], heads: list[Scores]) -> None:
    """Require prototypes of as many labels as the scores that a queue's shall stand beside."""
    for at, (W, head) in enumerate(zip(weights, heads, strict=True)):
        shape, K = None if W is None else tuple(W.shape), head[0].shape[-1]
        if shape is None or len(shape) != 2 or shape[0] != K:
            name = "prototypes" if len(heads) == 1 else f"prototypes[{at}]"
            raise ValueError(f"{name} must be ({K}, D), a row for each score, got {shape}")


def _listed(name: str, x: Any) -> None:
    """Require tensors, one by one."""
    if not isinstance(x, (Sequence, Tensor)) or isinstance(x, (str, bytes)):
        raise ValueError(f"{name} must be tensors, one for each crop, got {type(x).__name__}")
    if isinstance(x, Tensor) and x.ndim == 0:
        raise ValueError(f"{name} must be tensors, one for each crop, got one number")


def _crops(scores: Scores, assign: Sequence[int]) -> tuple[int, ...]:
    """Return the assign crops, of at least two crops whose scores have one shape."""
    _listed("scores", scores)
    for at, S in enumerate(scores):
        if not isinstance(S, Tensor) or not S.is_floating_point():
            kind = S.dtype if isinstance(S, Tensor) else type(S).__name__
            raise ValueError(f"scores must be floating-point tensors, got {kind} at index {at}")
    if len(scores) < 2 or scores[0].ndim != 2:
        shapes = [tuple(S.shape) for S in scores]
        raise ValueError(f"scores must be (B, K) for each of two crops or more, got {shapes}")
    for at, S in enumerate(scores):
        _same_shape("scores", at, S, scores[0])
    return _different(assign, len(scores))


def _different(assign: Any, scored: int | None = None) -> tuple[int, ...]:
    """Require numbers of different crops, and of those that are scored, once they are."""
    if not isinstance(assign, Sequence) or isinstance(assign, (str, bytes)):
        kind = type(assign).__name__
        raise ValueError(f"assign must be the numbers of crops, as in (0, 1), got {kind}")
    crops = tuple(checks.count("assign", t, at_least=0) for t in assign)
    below = "" if scored is None else f" below {scored}, the number of scores"
    if not crops or len(set(crops)) < len(crops) or (scored is not None and max(crops) >= scored):
        raise ValueError(f"assign must be different crops{below}, got {crops}")
    return crops


def _one_each(queues: Any, crops: int) -> list[SwAVQueue]:
    """Require a queue for each assign crop, or none at all."""
    many = isinstance(queues, (Sequence, nn.ModuleList))
    held: list[Any] = [] if queues is None else list(queues) if many else [queues]
    for queue in held:
        if not isinstance(queue, SwAVQueue):
            raise ValueError(f"queues must be SwAVQueues, got {type(queue).__name__}")
    if len(held) not in (0, crops):
        raise ValueError(f"queues must be one per assign crop, {crops}, or none, got {len(held)}")
    return held


def _sound(name: str, crops: Sequence[Tensor] | Tensor) -> None:
    for at, x in enumerate(crops):
        sound(f"{name}[{at}]", x)


def _same_shape(name: str, at: int, x: Tensor, first: Tensor) -> None:
    if x.shape != first.shape:
        raise ValueError(
            f"{name} must have the shape of scores[0], {tuple(first.shape)}, got {tuple(x.shape)} "
            f"at index {at}"
        )
