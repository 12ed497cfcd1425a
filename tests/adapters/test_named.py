"""A number that is none, planted in each argument: the message names the argument and the index."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot import adapters
from sinkhorn_ot.adapters.swav import assign
from sinkhorn_ot.compat.swav import distributed_sinkhorn


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def queue() -> so.SwAVQueue:
    found = so.SwAVQueue(12, 6)
    found.push(randn(12, 6))
    return found


def listed(call: Callable[..., Any], **groups: int) -> Callable[..., Any]:
    """Return a call whose list arguments are given as name[0], name[1], ..., as messages do."""

    def f(**given: Any) -> Any:
        lists = {name: [given.pop(f"{name}[{k}]") for k in range(n)] for name, n in groups.items()}
        return call(**lists, **given)

    return f


N, K, D = 8, 4, 6
LABELS = torch.zeros(N, dtype=torch.int64)
SCORES = {f"scores[{k}]": randn(N, K) for k in range(3)}
FEATURES = {f"features[{k}]": randn(N, D) for k in range(3)}
CODES = {f"codes[{k}]": randn(N, K).softmax(1) for k in range(2)}
C, Z = randn(K, D), randn(N, D)
# each call, and its arguments
FINITE: dict[str, tuple[Callable[..., Any], dict[str, Tensor]]] = {
    "swav_codes": (so.swav_codes, {"scores": randn(N, K)}),
    "assign": (assign, {"scores": randn(N, K)}),
    "swav_codes_from_features": (
        so.swav_codes_from_features,
        {"features": Z, "prototypes": C},
    ),
    "with a queue": (
        lambda **given: so.swav_codes_from_features(**given, queue=queue()),
        {"features": Z, "prototypes": C},
    ),
    "SwAVQueue.push": (lambda features: queue().push(features), {"features": Z}),
    "SwAVQueue.scores": (lambda prototypes: queue().scores(prototypes), {"prototypes": C}),
    "normalize_prototypes_": (so.normalize_prototypes_, {"weight": C}),
    "SwAVLoss": (
        listed(so.SwAVLoss(queues=[queue(), queue()]), scores=3, features=3),
        SCORES | FEATURES | {"prototypes": C},
    ),
    "swapped_prediction_loss": (
        listed(so.swapped_prediction_loss, scores=3, codes=2),
        SCORES | CODES,
    ),
    "dino_codes": (lambda logits: adapters.dino_codes(logits, 0.1), {"logits": randn(3, N, K)}),
    "capi_codes": (adapters.capi_codes, {"logits": randn(N, 3, K)}),
    "msn_codes": (adapters.msn_codes, {"scores": randn(N, K)}),
    "clot_labels": (adapters.clot_labels, {"log_probs": randn(N, K)}),
    "nt_xent": (adapters.nt_xent, {"z1": Z, "z2": Z + 1}),
    "CLOTLoss": (
        adapters.CLOTLoss(),
        {"logits1": randn(N, K), "logits2": -randn(N, K), "z1": Z, "z2": Z + 1},
    ),
    "CLOTLoss.swapped": (
        adapters.CLOTLoss().swapped,
        {"logits1": randn(N, K), "logits2": -randn(N, K)},
    ),
    "sela_labels": (
        lambda **given: so.sela_labels(randn(N, K), **given),
        {"marginal": randn(K).abs(), "align": randn(K).abs()},
    ),
    "align_marginal": (
        adapters.align_marginal,
        {"marginal": randn(K).softmax(0), "sizes": randn(K).abs()},
    ),
    "sela_labels_from_features": (
        so.sela_labels_from_features,
        {"features": Z, "weight": C},
    ),
    "deepcluster_labels": (adapters.deepcluster_labels, {"features": Z, "centroids": C}),
    "k_means": (
        lambda features, init: adapters.k_means(features, K, init=init),
        {"features": Z, "init": C},
    ),
    "deepercluster_labels": (
        lambda features: adapters.deepercluster_labels(features, 2, 2),
        {"features": Z},
    ),
    "distributed_sinkhorn": (distributed_sinkhorn, {"out": randn(N, K)}),
}
# those in which -inf forbids
BELOW_INF: dict[str, tuple[Callable[..., Any], dict[str, Tensor]]] = {
    "sela_labels": (so.sela_labels, {"log_probs": randn(N, K)}),
    "of blocks": (
        lambda log_probs: so.sela_labels([*log_probs.split(3)]),
        {"log_probs": randn(N, K)},
    ),
    "of linear heads": (
        lambda bias: so.sela_labels_from_features(Z, C, bias),
        {"bias": randn(K)},
    ),
    "mean_log_probs": (
        lambda **given: so.sela_labels(so.mean_log_probs(*given.values())),
        {"modality 0": randn(N, K), "modality 1": -randn(N, K)},
    ),
    "LabelBank.update": (
        lambda log_probs: so.LabelBank(N, K).update(log_probs),
        {"log_probs": randn(N, K)},
    ),
    "balanced_labels": (so.balanced_labels, {"scores": randn(N, K), "init": randn(K)}),
    "deepercluster_loss": (
        lambda **given: adapters.deepercluster_loss(**given, super_classes=LABELS, sub=LABELS),
        {"super_logits": randn(N, K), "sub_logits": randn(N, K, 3)},
    ),
}
PLANTED = [
    pytest.param(call, given, name, value, id=f"{of} {name} {value}")
    for calls, values in (
        (FINITE, (math.nan, math.inf, -math.inf)),
        (BELOW_INF, (math.nan, math.inf)),
    )
    for of, (call, given) in calls.items()
    for name in given
    for value in values
]


@pytest.mark.parametrize(("call", "given", "name", "value"), PLANTED)
def test_the_callers_argument_and_index_are_named(call, given, name, value):
    given = {key: t.clone() for key, t in given.items()}
    at = (2,) * given[name].ndim
    given[name][at] = value
    with pytest.raises(ValueError, match=f"got {value:.4g}") as error:
        call(**given)
    said = f"got {value:.4g} at index {at if len(at) > 1 else at[0]}"
    assert str(error.value).startswith(f"{name} must "), error.value
    assert str(error.value).endswith(said), error.value


def test_rows_of_later_blocks_keep_their_number():
    blocks = [randn(5, D), randn(5, D)]
    blocks[1][3, 1] = math.nan
    with pytest.raises(ValueError, match=r"features must be finite, got nan at index \(8, 1\)"):
        so.sela_labels_from_features(blocks, C)
