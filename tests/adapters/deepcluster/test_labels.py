"""DeepCluster's labels against all distances, its policies by hand, k-means against a library."""

import math

import hypothesis.strategies as st
import pytest
import torch
from adapters import oracles
from hypothesis import given
from sklearn.cluster import KMeans
from torch import Tensor

import sinkhorn_ot as so


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(per: int, K: int, d: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around K centres far apart, and which centre."""
    label = torch.arange(K).repeat_interleave(per)
    return 20 * torch.eye(K, d).double()[label] + normal(per * K, d, seed=seed), label


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize(("N", "K", "d"), [(1, 1, 1), (65, 17, 3), (3, 9, 2), (5000, 130, 8)])
def test_labels_are_the_nearest(metric, N, K, d):
    x, c = normal(N, d), normal(K, d, seed=1)
    found = so.adapters.deepcluster_labels(x, c, metric=metric)
    cost = oracles.nearest(x, c, metric)
    chosen = cost.gather(1, found.labels[:, None])[:, 0]
    assert float((chosen - cost.amin(1)).max()) < 1e-12
    assert torch.equal(found.counts, torch.bincount(found.labels, minlength=K))
    unit = x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x
    onehot = torch.nn.functional.one_hot(found.labels, K).double()
    assert torch.allclose(found.sums, onehot.T @ unit, atol=1e-10)
    scale = 0.5 if metric == "sqeuclidean" else 1.0
    assert float(found.cost) == pytest.approx(float(scale * chosen.mean()), rel=1e-10)


def test_is_transport_with_a_free_marginal():
    x, c = normal(50, 3), normal(4, 3, seed=1)
    r = so.solve(so.PointCloud(x, c), reg=1e-3, unbalanced=(None, 0))
    assert torch.equal(r.plan.argmax(1), so.adapters.deepcluster_labels(x, c).labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_and_arrays(dtype):
    x, c = normal(90, 4).to(dtype), normal(5, 4, seed=1).to(dtype)
    found = so.adapters.deepcluster_labels(x, c)
    assert torch.equal(found.labels, so.adapters.deepcluster_labels(x.double(), c.double()).labels)
    if dtype == torch.float32:
        assert torch.equal(
            found.labels, so.adapters.deepcluster_labels(x.numpy(), c.numpy()).labels
        )


def test_an_empty_cluster_is_kept_or_splits_the_largest():
    x, c = torch.tensor([[0.0], [0.2], [4.0]]).double(), torch.tensor([[0.0], [4.0], [99.0]])
    found = so.adapters.deepcluster_labels(x, c)
    assert found.counts.tolist() == [2, 1, 0]
    assert torch.allclose(found.centroids("keep"), torch.tensor([[0.1], [4.0], [99.0]]).double())
    split = found.centroids("split")
    assert torch.allclose(split, torch.tensor([[0.1], [4.0], [0.1]]).double(), atol=1e-6)
    assert float((split[0] - split[2]).abs()) == pytest.approx(2e-8)
    # the halves then part
    assert so.adapters.deepcluster_labels(x, split).counts.tolist() == [1, 1, 1]


def test_several_empty_clusters_share_the_largest():
    x = torch.cat([normal(90, 2), 50 + normal(10, 2)])
    c = torch.tensor([[0.0, 0.0], [50.0, 50.0], [900.0, 0.0], [901.0, 0.0], [902.0, 0.0]])
    split = so.adapters.deepcluster_labels(x, c).centroids("split")
    assert len(split.unique(dim=0)) == 5
    assert int((split.norm(dim=1) < 1).sum()) == 4


def test_cosine_centroids_are_unit_vectors():
    found = so.adapters.deepcluster_labels(normal(40, 3), normal(6, 3, seed=1), metric="cosine")
    assert torch.allclose(found.centroids().norm(dim=1), torch.ones(6).double())


def test_sample_weights_make_clusters_equal():
    found = so.adapters.deepcluster_labels(
        normal(300, 2), torch.cat([normal(5, 2), torch.full((1, 2), 99.0)])
    )
    w = found.sample_weights()
    mass = torch.zeros(6).double().index_add_(0, found.labels, w)
    used = found.counts > 0
    assert torch.allclose(mass[used], torch.full_like(mass[used], 1 / int(used.sum())))
    assert float(mass.sum()) == pytest.approx(1.0)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_matching_undoes_a_renaming(seed, K):
    found = so.adapters.deepcluster_labels(normal(60, 2, seed=seed), normal(K, 2, seed=seed + 1))
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    renamed = so.adapters.deepcluster_labels(
        normal(60, 2, seed=seed), normal(K, 2, seed=seed + 1)[order]
    )
    back = renamed.matched(found.labels)
    assert torch.equal(back.labels, found.labels)
    assert torch.equal(back.counts, found.counts)
    used = found.counts > 0
    assert torch.equal(back.sums[used], found.sums[used])
    assert torch.equal(back.origin[used], found.origin[used])
    again = so.adapters.deepcluster_labels(normal(60, 2, seed=seed), back.origin)
    assert torch.equal(again.labels, back.labels)


def test_matching_keeps_as_many_labels_as_any_renaming():
    a = so.adapters.deepcluster_labels(normal(500, 3), normal(4, 3, seed=1))
    b = so.adapters.deepcluster_labels(normal(500, 3), normal(4, 3, seed=2)).matched(a.labels)
    kept = int((a.labels == b.labels).sum())
    for order in torch.cartesian_prod(*[torch.arange(4)] * 4):
        if len(order.unique()) == 4:
            assert int((a.labels == order[b.labels]).sum()) <= kept


@pytest.mark.slow(1)
@pytest.mark.parametrize("min_size", [1, 20, 50])
def test_a_lower_bound_inside_the_problem(min_size):
    x, c = (
        normal(300, 2),
        torch.tensor([[0.0, 0.0], [0.5, 0.5], [9.0, 0.0], [0.0, 12.0], [1.0, -1]]),
    )
    free = so.adapters.deepcluster_labels(x, c)
    assert free.counts.min() == 0
    found = so.adapters.deepcluster_labels(x, c, min_size=min_size, reg=0.05)
    S = (x @ c.double().T - c.double().square().sum(1) / 2) / 0.05
    plan = oracles.at_least(S, min_size)
    assert float(plan.sum(0).min()) > min_size * (1 - 1e-3)
    clear = plan.topk(2, 1).values
    clear = clear[:, 0] - clear[:, 1] > 0.1
    assert torch.equal(found.labels[clear], plan.argmax(1)[clear])
    assert int(found.counts.min()) >= 0.8 * min_size - 1
    # the reg it chooses by itself follows the far centroids: the labels keep the bound less well
    loose = so.adapters.deepcluster_labels(x, c, min_size=min_size)
    assert int(loose.counts.min()) >= 0.6 * min_size - 1


def test_a_bound_that_nobody_breaks_changes_nothing():
    x, _ = blobs(50, 4)
    c = 20 * torch.eye(4)
    assert torch.equal(
        so.adapters.deepcluster_labels(x, c, min_size=30).labels,
        so.adapters.deepcluster_labels(x, c).labels,
    )


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_k_means_finds_blobs(metric):
    x, label = blobs(40, 4)
    found = so.adapters.k_means(x, 4, metric=metric)
    assert torch.equal(found.matched(label).labels, label)
    assert found.counts.tolist() == [40] * 4


def test_k_means_is_the_library_from_the_same_start():
    x = normal(400, 5)
    start = x[:7].clone()
    found = so.adapters.k_means(x, 7, init=start, max_iter=200)
    peer = KMeans(7, init=start.numpy(), n_init=1, max_iter=200, tol=0).fit(x.numpy())
    assert torch.equal(found.labels, torch.from_numpy(peer.labels_).long())
    assert 2 * float(found.cost) * 400 == pytest.approx(peer.inertia_, rel=1e-10)


def test_k_means_never_gets_worse_and_starts_where_it_is_told():
    x = normal(500, 3)
    costs = [float(so.adapters.k_means(x, 9, max_iter=k).cost) for k in (1, 2, 4, 8, 16)]
    assert costs == sorted(costs, reverse=True)
    once = so.adapters.k_means(x, 9, max_iter=50)
    assert torch.equal(so.adapters.k_means(x, 9, init=once).labels, once.labels)
    assert torch.equal(
        so.adapters.k_means(x, 9, seed=3).labels, so.adapters.k_means(x, 9, seed=3).labels
    )


def test_k_means_of_equal_points_and_of_as_many_clusters_as_points():
    assert int(so.adapters.k_means(torch.ones(6, 2), 3).counts.sum()) == 6
    assert so.adapters.k_means(normal(5, 2), 5).counts.tolist() == [1] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(features=torch.tensor([[0.0, math.nan]])), r"features must be finite.*\(0, 1\)"),
        (dict(centroids=torch.tensor([[math.inf, 0.0]])), r"centroids must be finite.*\(0, 0\)"),
        (dict(features=torch.zeros(3)), r"features must have shape \(N, d\)"),
        (dict(features=torch.zeros(2, 3, 2)), r"features must have shape \(N, d\)"),
        (dict(centroids=torch.zeros(0, 2)), "centroids must not be empty"),
        (dict(centroids=torch.zeros(3, 5)), "one width, got 2 and 5"),
        (dict(metric="dot"), "'sqeuclidean', 'cosine'"),
        (dict(min_size=3), "2 clusters of at least 3 need 6, got 4"),
        (dict(min_size=-1), "min_size must be"),
        (dict(min_size=1, reg=0.0), "reg must be"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        so.adapters.deepcluster_labels(
            **{"features": torch.zeros(4, 2), "centroids": torch.eye(2), **change}
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: so.adapters.k_means(torch.zeros(3, 2), 4), "at most the 3 samples, got 4"),
        (lambda: so.adapters.k_means(torch.zeros(3, 2), 0), "clusters must be a whole number"),
        (lambda: so.adapters.k_means(torch.zeros(3, 2), 2, empty="drop"), "'split', 'keep'"),
        (
            lambda: so.adapters.k_means(torch.zeros(3, 2), 2, init=torch.eye(2)[:1]),
            "init must hold 2",
        ),
        (lambda: found().centroids("drop"), "'split', 'keep'"),
        (lambda: found().matched(torch.zeros(3)), "previous must hold int64 labels"),
        (lambda: found().matched(torch.tensor([0, 1, 2])), r"labels in 0..1, got 2 at index 2"),
    ],
    ids=range(7),
)
def test_bad_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def found() -> so.adapters.DeepClusterLabels:
    return so.adapters.deepcluster_labels(torch.zeros(3, 2), torch.eye(2))
