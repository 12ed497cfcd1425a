"""Each method of the field: its call here, and its distance from dense float64 code.

`test_precision.py` holds every case to its bound; `docs/plots/precision.py` writes the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from adapters import oracles
from adapters.oracles import total_variation
from torch import Tensor
from torch.nn.functional import normalize

import sinkhorn_ot as so
from sinkhorn_ot import adapters


@dataclass(frozen=True)
class Case:
    """A method and how far its call is from its formula.

    Attributes:
        method: As its paper calls it.
        call: The call here.
        problem: What was measured, and in which unit.
        test: The test against the oracle, file::function under tests/adapters.
        error: Returns the error for scores times a factor.
        bound: What the error may be.
        large: Whether scores may be 10,000 times as large.
    """

    method: str
    call: str
    problem: str
    test: str
    error: Callable[[float], float]
    bound: float = 1e-6
    large: bool = True


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosines(N: int, K: int, d: int = 128) -> Tensor:
    return normalize(randn(N, d)) @ normalize(randn(K, d, seed=1)).T


def swav(scale: float) -> float:
    S = cosines(1024, 300) * scale
    return total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3))


def queue(scale: float) -> float:
    z, c, old = normalize(randn(64, 128)), normalize(randn(300, 128, seed=1)), randn(960, 128)
    held = so.SwAVQueue(960, 128)
    held.push(normalize(old))
    S = torch.cat([held.features, z]).double() @ c.double().T
    codes = so.swav_codes_from_features(z, c, held)
    return total_variation(codes, oracles.swav_codes(S, 0.05, 3)[-64:])


def swav_loss(scale: float) -> float:
    S = [cosines(64, 300) * scale, cosines(64, 300).roll(1, 0) * scale, -cosines(64, 300) * scale]
    codes = [oracles.swav_codes(s, 0.05, 3) for s in S[:2]]
    want = oracles.swapped_prediction(S, codes, 0.1, (0, 1))
    return abs(float(so.SwAVLoss()(S)) - want) / want


def dino(scale: float) -> float:
    x = randn(2, 64, 4096) * scale
    codes = adapters.dino_codes(x, 0.07).flatten(0, 1)
    return total_variation(codes, oracles.swav_codes(x.flatten(0, 1), 0.07, 3))


def ibot(scale: float) -> float:
    x, used = randn(300, 2048) * scale, torch.arange(300) < 211
    codes = adapters.dino_codes(x, 0.07, mask=used)
    return total_variation(codes, oracles.swav_codes(x, 0.07, 3, used))


def msn(scale: float) -> float:
    S = cosines(64, 1024) * scale
    return total_variation(adapters.msn_codes(S), oracles.msn(S, 0.1, 0.25, 3))


def capi(scale: float) -> float:
    x = randn(64, 16, 1024) * scale
    codes = adapters.capi_codes(x).transpose(0, 1)
    return total_variation(codes, oracles.swav_codes(x.transpose(0, 1), 0.06, 3))


def plan(S: Tensor, potentials: Tensor, lamb: float) -> Tensor:
    """Return each sample's row of SeLa's plan, from potentials in units of log-probabilities."""
    return torch.softmax(lamb * (S.double() + potentials), -1)


def sela(scale: float) -> float:
    S = torch.log_softmax(randn(2000, 20), -1)
    found = so.sela_labels(S, tol=1e-9)
    want = oracles.sela(S, 25.0, torch.full((20,), 0.05, dtype=torch.float64)) / 25
    return total_variation(plan(S, found.potentials, 25.0), plan(S, want, 25.0))


def selavi(scale: float) -> float:
    one, two = (torch.log_softmax(randn(2000, 20, seed=seed), -1) for seed in (0, 1))
    shares, S = so.gaussian_marginal(20), (one + two) / 2
    found = so.sela_labels(
        so.mean_log_probs(one, two), lamb=20.0, marginal=shares, align=True, tol=1e-9
    )
    sizes = torch.bincount(S.argmax(-1), minlength=20)
    order = sizes.argsort(descending=True, stable=True).argsort()
    want = oracles.sela(S, 20.0, shares.sort(descending=True).values[order]) / 20
    return total_variation(plan(S, found.potentials, 20.0), plan(S, want, 20.0))


def clot(scale: float) -> float:
    S = torch.log_softmax(randn(256, 10), -1)
    want = oracles.sela(S, 5.0, torch.full((10,), 0.1, dtype=torch.float64)) / 5
    return total_variation(adapters.clot_labels(S, tol=1e-9), plan(S, want, 5.0))


def nt_xent(scale: float) -> float:
    one, two = randn(32, 16), randn(32, 16, seed=1)
    want = oracles.nt_xent(one, two, 0.5)
    return abs(float(adapters.nt_xent(one, two)) - want) / want


def deepcluster(scale: float, metric: str = "sqeuclidean") -> float:
    x, c = randn(2000, 16) * scale, randn(50, 16, seed=1) * scale
    found = adapters.deepcluster_labels(x, c, metric=metric).labels
    return float((found != oracles.nearest(x, c, metric).argmin(1)).double().mean())


def bounded(scale: float) -> float:
    """The mass that the smallest cluster has too little, where one has nothing by itself."""
    x, c = randn(600, 2), torch.cat([randn(4, 2, seed=1), torch.tensor([[9.0, 0.0]])])
    found = adapters.deepcluster_labels(x, c, min_size=60, reg=0.05)
    S = (x.double() @ c.double().T - c.double().square().sum(1) / 2) / 0.05
    want = oracles.at_least(S, 60).topk(2, 1)
    # a label is in doubt where the two best are nearly equal
    clear = want.values[:, 0] - want.values[:, 1] > 0.01
    return float((found.labels[clear] != want.indices[clear, 0]).double().mean())


def deepercluster(scale: float) -> float:
    x, turn = randn(800, 8) * scale, torch.arange(800) % 4
    found = adapters.deepercluster_labels(x, 5, 3, max_iter=200)
    first = oracles.nearest(x, found.clusters.centroids(), "sqeuclidean").argmin(1)
    wrong = found.super_classes(turn) != 4 * first + turn
    for k in range(5):
        members = first == k
        inside = torch.stack([x[members & (found.sub == s)].double().mean(0) for s in range(3)])
        wrong[members] |= found.sub[members] != oracles.nearest(
            x[members], inside, "sqeuclidean"
        ).argmin(1)
    return float(wrong.double().mean())


def router(scale: float) -> float:
    x = randn(4096, 64) * scale
    got = adapters.moe_router(x, n_iter=5).log_plan.double().exp()
    return total_variation(4096 * got, 4096 * oracles.router(x, 5)[0].exp())


def mixing(scale: float) -> float:
    x, one = randn(4096, 4, 4) * scale, torch.ones(4)
    got = so.solve(-x, one, one, reg=1.0, n_iter=20).plan
    want = x.double()
    for _ in range(20):
        want = want - want.logsumexp(-1, keepdim=True)
        want = want - want.logsumexp(-2, keepdim=True)
    return total_variation(got, want.exp())


_SWAV, _HEIRS = "swav/test_codes.py::test_is_the_oracle", "test_heirs.py::"
_DEEP = "deepcluster/test_labels.py::"
CASES = (
    Case("SwAV", "`so.swav_codes(scores)`", "1024 x 300", _SWAV, swav),
    Case(
        "SwAV, with its queue",
        "`so.swav_codes_from_features(z, prototypes, queue)`",
        "64 + 960 x 300",
        "swav/test_loss.py::test_a_ready_queue_stands_in_front_and_is_rescored",
        queue,
        large=False,
    ),
    Case(
        "SwAV, its loss",
        "`so.SwAVLoss()(scores)`",
        "3 crops of 64 x 300, relative",
        "swav/test_loss.py::test_the_loss_is_the_formula",
        swav_loss,
        large=False,
    ),
    Case(
        "DINOv2, DINOv3 teacher",
        "`so.adapters.dino_codes(logits, 0.07)`",
        "2 x 64 x 4096",
        _HEIRS + "test_both_global_crops_are_one_problem",
        dino,
    ),
    Case(
        "iBOT patches",
        "`so.adapters.dino_codes(buffer, 0.07, mask=used)`",
        "211 of 300 x 2048",
        _HEIRS + "test_masked_patches_in_a_padded_buffer",
        ibot,
    ),
    Case("MSN", "`so.adapters.msn_codes(cosines)`", "64 x 1024", _HEIRS + "test_msn", msn),
    Case(
        "CAPI",
        "`so.adapters.capi_codes(logits)`",
        "16 of 64 x 1024",
        _HEIRS + "test_every_patch_position_is_a_problem",
        capi,
    ),
    Case(
        "SeLa",
        "`so.sela_labels(log_probs)`",
        "2000 x 20 to tol 1e-9, rows of the plan",
        "sela/test_labels.py::test_is_the_oracle",
        sela,
        large=False,
    ),
    Case(
        "SeLaVi",
        "`so.sela_labels(so.mean_log_probs(a, b), lamb=20, marginal=…, align=True)`",
        "2000 x 20 to tol 1e-9, rows of the plan",
        "sela/test_data.py::test_labels_of_aligned_shares",
        selavi,
        large=False,
    ),
    Case(
        "CLOT",
        "`so.adapters.clot_labels(logits)`",
        "256 x 10 to tol 1e-9",
        "test_clot.py::test_labels_are_the_oracle",
        clot,
        large=False,
    ),
    Case(
        "CLOT, its contrastive term",
        "`so.adapters.nt_xent(z1, z2)`",
        "32 pairs, relative",
        "test_clot.py::test_nt_xent_is_the_formula",
        nt_xent,
        large=False,
    ),
    Case(
        "DeepCluster",
        "`so.adapters.deepcluster_labels(features, centroids)`",
        "2000 x 50, labels that differ",
        _DEEP + "test_labels_are_the_nearest",
        deepcluster,
        0.0,
    ),
    Case(
        "DeepCluster-v2",
        '`so.adapters.deepcluster_labels(…, metric="cosine")`',
        "2000 x 50, labels that differ",
        _DEEP + "test_labels_are_the_nearest",
        lambda scale: deepcluster(scale, "cosine"),
        0.0,
    ),
    Case(
        "DeepCluster, sizes from below",
        "`so.adapters.deepcluster_labels(…, min_size=60)`",
        "600 x 5, clear labels that differ",
        _DEEP + "test_a_lower_bound_inside_the_problem",
        bounded,
        0.0,
        large=False,
    ),
    Case(
        "DeeperCluster",
        "`so.adapters.deepercluster_labels(features, 5, 3)`",
        "800 x 5 x 3, labels that differ",
        "deepcluster/test_deeper.py::test_inside_each_cluster_is_its_own_k_means",
        deepercluster,
        0.0,
    ),
    Case(
        "MoE router",
        "`so.adapters.moe_router(logits, n_iter=5)`",
        "4096 x 64, relative to a token's mass",
        "test_moe.py::test_is_the_oracle",
        router,
    ),
    Case(
        "mHC, values",
        "`so.solve(-logits, one, one, reg=1, n_iter=20).plan`",
        "4096 of 4 x 4",
        "test_precision.py::test_every_method_is_its_formula",
        mixing,
    ),
)


def cells(case: Case) -> list[str]:
    """Return the case's line of the table, measured now."""
    file, name = case.test.split("::")
    errors = [case.error(scale) for scale in ((1.0, 1e4) if case.large else (1.0,))]
    shown = [f"{error:.1e}" if error else "0" for error in errors]
    shown += [""] * (2 - len(shown))
    return [case.method, case.call, case.problem, *shown, f"`{file}`, `{name}`"]
