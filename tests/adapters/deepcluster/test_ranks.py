"""CLOT, DeepCluster, DeeperCluster and SwAV's loss over ranks: what one process comes to."""

import pytest
import torch
from ranks import run

import sinkhorn_ot as so


pytestmark = pytest.mark.slow(15, shared=True)
DATA = """
from sinkhorn_ot import adapters

g = torch.Generator().manual_seed(0)
centres = torch.randn(9, 6, generator=g, dtype=torch.float64)
x = centres[torch.randint(9, (403,), generator=g)] + 0.4 * torch.randn(403, 6, generator=g)
far = torch.cat([x[:7], torch.full((1, 6), 30.0, dtype=x.dtype)])
logits, other = torch.randn(2, 403, 8, generator=g)
before = torch.randint(8, (403,), generator=g)
cuts = {1: [0, 403], 2: [0, 40, 403], 4: [0, 0, 300, 301, 403]}[world]
own = slice(cuts[rank], cuts[rank + 1])
mine = x[own]
"""

CALLS = """
clot = adapters.CLOTLoss(tol=1e-9, group=group)
labels = adapters.deepcluster_labels(mine, x[:8], group=group)
batch = [t[own].clone().requires_grad_() for t in (logits, other)]
loss = clot(*batch, *(t[own, :3].clone() for t in (logits, other)))
loss.backward()
crops = [logits[own].clone().requires_grad_(), other[own]]
swapped = so.SwAVLoss(group=group)(crops)
swapped.backward()
said["answers"] = {
    "clot": adapters.clot_labels(logits[own], tol=1e-9, group=group),
    "clot heads": adapters.clot_labels(
        torch.stack([logits, other])[:, own], tol=1e-9, group=group
    ).transpose(0, 1),
    "clot swapped": clot.swapped(*batch).detach() * len(mine),
    "swav": swapped.detach() * len(mine),
    "finite": all(bool(torch.isfinite(t).all()) for t in (loss, batch[0].grad, crops[0].grad)),
    "labels": labels,
    "cosine": adapters.deepcluster_labels(mine, x[:8], metric="cosine", group=group),
    "bounded": adapters.deepcluster_labels(mine, far, min_size=20, reg=1.0, group=group),
    "bounded by itself": adapters.deepcluster_labels(mine, far, min_size=20, group=group),
    "k-means": adapters.k_means(mine, 12, max_iter=100, seed=3, group=group),
    "spherical": adapters.k_means(mine, 12, metric="cosine", max_iter=100, group=group),
    "as many as asked": adapters.k_means(mine, 12, init=far[:1].repeat(12, 1), group=group),
    "matched": labels.matched(before[own], group=group),
    "weights": labels.sample_weights(),
    "deeper": adapters.deepercluster_labels(mine, 4, 3, max_iter=100, group=group),
    "alike": adapters.k_means(torch.ones(len(mine), 2), 3, group=group).counts,
}
"""

REFUSED = """
last = rank == world - 1
nan = mine.clone()
if last:
    nan[0, 2] = torch.nan
said["refused"] = {
    "clot K": refused(lambda: adapters.clot_labels(logits[own, : 8 - last], group=group)),
    "clot nan": refused(lambda: adapters.clot_labels(nan, group=group)),
    "clot lamb": refused(lambda: adapters.clot_labels(mine, lamb=5.0 + last, group=group)),
    "clot short": refused(lambda: adapters.clot_labels(mine, tol=1e-12, max_iter=2, group=group)),
    "clot nobody": refused(lambda: adapters.clot_labels(mine[:0], group=group)),
    "clot loss": refused(lambda: clot(mine, mine[:, : 6 - last], mine, mine)),
    "nan": refused(lambda: adapters.deepcluster_labels(nan, x[:8], group=group)),
    "K": refused(lambda: adapters.deepcluster_labels(mine, x[: 8 - last], group=group)),
    "centroids": refused(lambda: adapters.deepcluster_labels(mine, x[last:][:8], group=group)),
    "metric": refused(lambda: adapters.k_means(
        mine, 3, metric="cosine" if last else "sqeuclidean", group=group)),
    "clusters": refused(lambda: adapters.k_means(mine, 3 + last, group=group)),
    "too many": refused(lambda: adapters.k_means(mine, 404, group=group)),
    "min_size": refused(lambda: adapters.deepcluster_labels(mine, x[:8], min_size=51, group=group)),
    "nobody": refused(lambda: adapters.deepcluster_labels(mine[:0], x[:8], group=group)),
    "previous": refused(lambda: labels.matched(before[own] + 9 * last, group=group)),
    "deeper": refused(lambda: adapters.deepercluster_labels(mine, 4, 3 + last, group=group)),
    "deeper nan": refused(lambda: adapters.deepercluster_labels(nan, 4, 3, group=group)),
    # and after all that, the group still works
    "none": refused(lambda: adapters.deepcluster_labels(mine, x[:8], group=group)),
}
"""


@pytest.fixture(scope="module", params=[2, 4])
def said(request):
    return run(request.param, DATA + CALLS + REFUSED)


@pytest.fixture(scope="module")
def alone():
    scope = {"torch": torch, "so": so, "world": 1, "rank": 0, "group": None, "said": {}}
    exec(DATA + CALLS, scope)
    return scope["said"]["answers"]


def joined(said, name, field=None):
    answers = [rank["answers"][name] for rank in said]
    return torch.cat([a if field is None else getattr(a, field) for a in answers])


@pytest.mark.parametrize("name", ["clot", "clot heads"])
def test_soft_labels_of_the_whole_batch(said, alone, name):
    torch.testing.assert_close(joined(said, name), alone[name], rtol=0, atol=1e-6)


def test_losses_add_up_to_that_of_the_whole_batch(said, alone):
    for name in ("clot swapped", "swav"):
        total = sum(float(rank["answers"][name]) for rank in said)
        assert total == pytest.approx(float(alone[name]), rel=1e-5)
    assert all(rank["answers"]["finite"] for rank in said)


@pytest.mark.parametrize(
    "name", ["labels", "cosine", "bounded", "k-means", "spherical", "as many as asked", "matched"]
)
def test_hard_labels_are_those_of_one_process(said, alone, name):
    want = alone[name]
    assert torch.equal(joined(said, name, "labels"), want.labels)
    for rank in said:
        found = rank["answers"][name]
        assert torch.equal(found.counts, want.counts)
        for field in ("sums", "cost", "origin"):
            torch.testing.assert_close(getattr(found, field), getattr(want, field))
            # to the last digit: what comes next must not differ between ranks
            assert torch.equal(getattr(found, field), getattr(said[0]["answers"][name], field))


def test_bounded_sizes_with_the_reg_they_choose(said, alone):
    # which rows the reg looks at depends on the ranks, what it promises does not
    for rank in said:
        counts = rank["answers"]["bounded by itself"].counts
        assert torch.equal(counts, said[0]["answers"]["bounded by itself"].counts)
        assert int(counts[-1]) >= 0.6 * 20
    assert int(alone["labels"].counts.sum()) == 403


def test_weights_add_up_to_one(said, alone):
    torch.testing.assert_close(joined(said, "weights"), alone["weights"])
    assert float(joined(said, "weights").sum()) == pytest.approx(1.0)


def test_two_levels(said, alone):
    want = alone["deeper"]
    assert torch.equal(joined(said, "deeper", "sub"), want.sub)
    for rank in said:
        found = rank["answers"]["deeper"]
        assert torch.equal(found.sub_counts, want.sub_counts)
        assert torch.equal(found.clusters.counts, want.clusters.counts)


def test_equal_samples(said):
    for rank in said:
        assert int(rank["answers"]["alike"].sum()) == 403


HEARD = {
    "clot K": "K must be the same on every rank of the group, got 8 on rank 0 and 7 on rank {last}",
    "clot nan": "log_probs must be finite, got nan at index (0, 2), on rank {last} of the group",
    "clot lamb": "lamb must be the same on every rank of the group, got 5.0 on rank 0 and 6.0 on",
    "clot short": "clot_labels: ran out of iterations, with a marginal_error of",
    "clot nobody": "log_probs must not be empty, got no sample on any rank of the group",
    "clot loss": "logits1 and logits2 must share shape and dtype",
    "nan": "features must be finite, got nan at index (0, 2), on rank {last} of the group",
    "K": "K must be the same on every rank of the group, got 8 on rank 0 and 7 on rank {last}",
    "centroids": "sum of the centroids must be the same on every rank of the group",
    "metric": "metric must be the same on every rank of the group, got sqeuclidean on rank 0 and",
    "clusters": "clusters must be the same on every rank of the group, got 3 on rank 0 and 4 on",
    "too many": "clusters must be at most the 403 samples, got 404",
    "min_size": "8 clusters of at least 51 need 408, got 403",
    "nobody": "features must not be empty, got no sample on any rank of the group",
    "previous": "previous must hold labels in 0..7",
    "deeper": "sub_clusters must be the same on every rank of the group, got 3 on rank 0 and 4",
    "deeper nan": "features must be finite, got nan at index (0, 2), on rank {last} of the group",
    "none": "nothing",
}


@pytest.mark.parametrize("name", HEARD)
def test_every_rank_hears_of_a_mistake(said, name):
    for rank in said:
        assert HEARD[name].format(last=len(said) - 1) in rank["refused"][name]


LOST = """
import os, time
dist.barrier()
if rank == 1:
    # not before the other has left the barrier
    time.sleep(1)
    os._exit(0)
said["clot"] = refused(lambda: adapters.clot_labels(logits[own], group=group))
said["deepcluster"] = refused(lambda: adapters.deepcluster_labels(mine, x[:8], group=group))
said["k-means"] = refused(lambda: adapters.k_means(mine, 5, group=group))
said["deepercluster"] = refused(lambda: adapters.deepercluster_labels(mine, 5, 2, group=group))
"""


def test_a_rank_that_dies_is_an_error_and_no_wait():
    [other] = run(2, DATA + LOST, dying=(1,))
    assert len(other) == 4
    for error in other.values():
        assert error.startswith("RuntimeError: a rank of the group")
