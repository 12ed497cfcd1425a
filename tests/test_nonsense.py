"""Every argument of every call, given every kind of nonsense: it works or a ValueError says why."""

import inspect
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from matplotlib.figure import Figure

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


def _penalised(kind: type) -> Callable[..., Any]:
    def strong(rho: Any) -> so.Transport:
        return so.solve(C, reg=0.1, unbalanced=kind(rho))

    return strong


def _between(low: Any = 0.1, high: Any = 1) -> so.Transport:
    return so.solve(C, reg=0.1, unbalanced=so.Between(low, high))


CLOUDS = so.solve(so.PointCloud(X, X), reg=1.0)
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "solve": (so.solve, {"cost": C, "reg": 0.1}),
    "KL": (_penalised(so.KL), {"rho": 1.0}),
    "TV": (_penalised(so.TV), {"rho": 1.0}),
    "L2": (_penalised(so.L2), {"rho": 1.0}),
    "Between": (_between, {}),
    "sinkhorn_distance": (so.sinkhorn_distance, {"cost": C, "alpha": 0.3}),
    "sinkhorn_divergence": (so.sinkhorn_divergence, {"x": X, "y": X, "reg": 0.1}),
    "SinkhornDivergence": (so.SinkhornDivergence, {"reg": 0.1}),
    "barycenter": (
        so.barycenter,
        {"histograms": torch.rand(3, 6).softmax(-1), "cost": torch.rand(6, 6), "reg": 0.5},
    ),
    "free_barycenter": (so.free_barycenter, {"clouds": torch.rand(2, 5, 2)}),
    "normalize": (so.normalize, {"logits": C}),
    "GridCost": (so.GridCost, {"axes": [3, 4]}),
    "Checkpoint": (so.Checkpoint, {"path": "solve.checkpoint"}),
    "solve_exact": (so.solve_exact, {"cost": C}),
    "PointCloud": (so.PointCloud, {"x": X, "y": X}),
    "Streamed": (so.Streamed, {"source": C}),
    "Dense": (so.Dense, {"C": C}),
    "solve_1d": (so.solve_1d, {"x": S[:, 0], "y": S[:4, 1]}),
    "sliced_distance": (so.sliced_distance, {"x": X, "y": X}),
    "Transport.potential": (CLOUDS.potential, {"x": X}),
    "Transport.map": (CLOUDS.map, {"x": X}),
    "Transport.apply": (CLOUDS.apply, {"x": X}),
    "Transport.apply_transpose": (CLOUDS.apply_transpose, {"x": X}),
    "Transport.barycentric": (CLOUDS.barycentric, {"y": X}),
    "Transport.to": (CLOUDS.to, {"device": "cpu"}),
    "Transport.state_dict": (CLOUDS.state_dict, {}),
    "Transport.plot": (CLOUDS.plot, {"ax": Figure().add_subplot()}),
    "plot": (so.plot, {"result": CLOUDS, "ax": Figure().add_subplot()}),
    "from_state_dict": (so.from_state_dict, {"state": CLOUDS.state_dict(cost=False)}),
    "DeepClusterLabels.centroids": (adapters.deepcluster_labels(X, X[:4]).centroids, {}),
    "Routing.top_k": (adapters.moe_router(S).top_k, {"k": 2}),
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
def test_nonsense_is_told(name, tmp_path, monkeypatch):
    # a word is a path too
    monkeypatch.chdir(tmp_path)
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
            except ValueError as error:
                # the name is that of the argument, whatever it is inside
                names = f"{parameter}|unbalanced" if name == "Between" else parameter
                if not re.search(rf"\b({names})\b", str(error)):
                    wrong.append(f"{parameter}={type(x).__name__} is not named: {error}"[:200])
            except Exception as error:  # noqa: BLE001
                kind = type(error).__name__
                wrong.append(f"{parameter}={type(x).__name__}: {kind} {error}"[:200])
    assert not wrong, "\n".join(wrong)


# what takes nothing that could be wrong, or is told by the call that it is given to
PLAIN = {
    *("Barycenter", "Certificate", "ConvergenceError", "ConvergenceWarning", "Divergence"),
    *("FreeBarycenter", "LineTransport", "Plain", "Progress", "SelaLabels", "SinkhornDistance"),
    *("SlicedDistance", "Status", "Transport", "BalancedLabels", "SelaSchedule", "adapters"),
    *("mean_log_probs", "swapped_prediction_loss"),
}


def test_every_public_call_is_among_them():
    assert set(so.__all__) - PLAIN <= set(CALLS)
    for kind in (so.Transport, so.SelaLabels, so.BalancedLabels):
        public = {name for name in vars(kind) if name[0] != "_"}
        methods = {name for name in public if inspect.isfunction(vars(kind)[name])}
        asks = {name for name in methods if len(inspect.signature(vars(kind)[name]).parameters) > 1}
        assert {f"{kind.__name__}.{name}" for name in asks} <= set(CALLS)
