"""Every argument of every call, given every kind of nonsense: it works or a ValueError says why."""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

import sinkhorn_ot as so
from sinkhorn_ot import adapters
from sinkhorn_ot.adapters.swav import assign


C, S, X = torch.rand(6, 4), torch.randn(12, 4), torch.randn(12, 3)
HEADS = torch.randn(4, 3)


def nonsense() -> list[Any]:
    """Return arguments that are right nearly nowhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    numbers = [None, True, 10**400, -(10**400), -1, 0, 1.5, math.nan, math.inf, 1j, np.float32(2)]
    things = ["word", b"b", {}, {"a": 1}, set(), object(), range(3), iter([1]), bool]
    kinds = [torch.float32, torch.device("cpu"), so.Sinkhorn, so.Plain(), so.Status.CONVERGED]
    lists = [[], [[]], [[1.0], [2.0, 3.0]], (1, 2, 3), [None], ["a"]]
    arrays = [
        np.array(["a"]),
        np.array([None]),
        np.array("2020", dtype="datetime64[D]"),
        np.ones((2, 2), np.longdouble),
        np.ma.masked_array([1.0, 2.0]),
        scipy.sparse.eye_array(3),
    ]
    tensors = [
        torch.tensor(True),
        torch.tensor([True, False]),
        torch.tensor(1j),
        torch.ones(2, 2, 2, dtype=torch.complex64),
        torch.zeros(0),
        torch.ones(()),
        torch.ones(3, 3, 3, 3),
        torch.full((12, 4), math.nan),
        torch.eye(3).to_sparse(),
        torch.ones(3, device="meta"),
        torch.ones(12, 4, device="meta"),
        torch.ones(4, requires_grad=True),
        quantised,
    ]
    return [*numbers, *things, *kinds, *lists, *arrays, *tensors]


def _penalised(kl: Any = 1.0, tv: Any = 1.0, l2: Any = 1.0, low: Any = 0.1, high: Any = 1) -> None:
    for pair in ((so.KL(kl), so.TV(tv)), (so.L2(l2), so.Between(low, high))):
        so.solve(C, reg=0.1, unbalanced=pair)


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "solve": (so.solve, {"cost": C, "reg": 0.1}),
    "penalties": (_penalised, {}),
    "solve_exact": (so.solve_exact, {"cost": C}),
    "PointCloud": (so.PointCloud, {"x": X, "y": X}),
    "Streamed": (so.Streamed, {"source": C}),
    "Dense": (so.Dense, {"C": C}),
    "solve_1d": (so.solve_1d, {"x": S[:, 0], "y": S[:4, 1]}),
    "sliced_distance": (so.sliced_distance, {"x": X, "y": X}),
    "Transport.potential": (so.solve(so.PointCloud(X, X), reg=1.0).potential, {"x": X}),
    "Transport.map": (so.solve(so.PointCloud(X, X), reg=1.0).map, {"x": X}),
    "balanced_labels": (so.balanced_labels, {"scores": S}),
    "BalancedLabels.of": (so.balanced_labels(S).of, {"scores": S}),
    "SelaLabels.of": (so.sela_labels(S).of, {"log_probs": S}),
    "sela_labels": (so.sela_labels, {"log_probs": S}),
    "sela_labels_from_features": (so.sela_labels_from_features, {"features": X, "weight": HEADS}),
    "linear_heads": (so.linear_heads, {"features": X, "weight": HEADS}),
    "swav_codes": (so.swav_codes, {"scores": S}),
    "swav_codes_from_features": (
        so.swav_codes_from_features,
        {"features": X, "prototypes": HEADS, "queue": None},
    ),
    "SwAVLoss": (so.SwAVLoss, {}),
    "normalize_prototypes_": (so.normalize_prototypes_, {"weight": HEADS.clone()}),
    "assign": (assign, {"scores": S}),
    "dino_codes": (adapters.dino_codes, {"logits": S, "temperature": 0.05}),
    "capi_codes": (adapters.capi_codes, {"logits": S[:, None]}),
    "msn_codes": (adapters.msn_codes, {"scores": S}),
    "moe_router": (adapters.moe_router, {"logits": S}),
    "clot_labels": (adapters.clot_labels, {"log_probs": S}),
    "nt_xent": (adapters.nt_xent, {"z1": X, "z2": X}),
    "CLOTLoss": (adapters.CLOTLoss, {}),
    "deepcluster_labels": (adapters.deepcluster_labels, {"features": X, "centroids": X[:4]}),
    "deepercluster_labels": (
        adapters.deepercluster_labels,
        {"features": X, "clusters": 2, "sub_clusters": 2},
    ),
    "k_means": (adapters.k_means, {"features": X, "clusters": 3}),
    "gaussian_marginal": (so.gaussian_marginal, {"K": 4}),
    "zipf_marginal": (so.zipf_marginal, {"K": 4}),
    "align_marginal": (so.align_marginal, {"marginal": torch.ones(4), "sizes": torch.ones(4)}),
    "LabelBank": (so.LabelBank, {"N": 12, "K": 4}),
    "SwAVQueue": (so.SwAVQueue, {"length": 8, "dim": 3}),
    "SelaSchedule.power": (so.SelaSchedule.power, {"epochs": 4.0, "times": 3}),
    "SelaSchedule.geometric": (so.SelaSchedule.geometric, {"epochs": 4.0, "times": 3}),
    "Sinkhorn": (so.Sinkhorn, {}),
    "Anderson": (so.Anderson, {}),
    "Nesterov": (so.Nesterov, {}),
    "Newton": (so.Newton, {}),
    "Anneal": (so.Anneal, {}),
    "Switch": (so.Switch, {}),
}
_NO_NAMES = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@pytest.mark.slow(60)
@pytest.mark.filterwarnings("ignore::sinkhorn_ot.ConvergenceWarning")
@pytest.mark.parametrize("name", CALLS)
def test_nonsense_is_told(name):
    act, given = CALLS[name]
    parameters = inspect.signature(act).parameters.values()
    wrong = []
    for parameter in (p.name for p in parameters if p.kind not in _NO_NAMES):
        for x in nonsense():
            # a bar writes on the terminal
            if parameter == "progress" and x is True:
                continue
            try:
                act(**{**given, parameter: x})
            except ValueError:
                pass
            except Exception as error:  # noqa: BLE001
                kind = type(error).__name__
                wrong.append(f"{parameter}={type(x).__name__}: {kind} {error}"[:200])
    assert not wrong, "\n".join(wrong)
