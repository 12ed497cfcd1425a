"""DeeperCluster's labels: two levels that fit together, and the loss of both."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sinkhorn_ot as so
from sinkhorn_ot.adapters import rotate


def nested(per: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Points in three far clumps, each of two nearer ones: points, clump, half."""
    clump = torch.arange(3).repeat_interleave(2 * per)
    half = torch.arange(2).repeat_interleave(per).repeat(3)
    g = torch.Generator().manual_seed(0)
    x = 100 * torch.eye(3)[clump] + 5 * F.one_hot(half, 3) + torch.randn(6 * per, 3, generator=g)
    return x, clump, half


def test_both_levels_are_found():
    x, clump, half = nested()
    found = so.adapters.deepercluster_labels(x, 3, 2)
    first = found.clusters.matched(clump).labels
    assert torch.equal(first, clump)
    for k in range(3):
        inside, right = found.sub[clump == k], half[clump == k]
        assert torch.equal(inside, right) or torch.equal(inside, 1 - right)
    assert found.sub_counts.tolist() == [[20, 20]] * 3


def test_inside_each_cluster_is_its_own_k_means():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    found = so.adapters.deepercluster_labels(x, 5, 3, seed=7)
    assert torch.equal(found.clusters.labels, so.adapters.k_means(x, 5, seed=7).labels)
    for k in range(5):
        members = found.clusters.labels == k
        assert torch.equal(found.sub[members], so.adapters.k_means(x[members], 3, seed=7).labels)
        assert torch.equal(torch.bincount(found.sub[members], minlength=3), found.sub_counts[k])


def test_small_clusters_have_fewer_inside():
    x = torch.cat([torch.randn(30, 2), torch.tensor([[1000.0, 0.0]])])
    found = so.adapters.deepercluster_labels(x, 2, 4)
    assert sorted(found.sub_counts.count_nonzero(1).tolist()) == [1, 4]
    assert int(found.sub_counts.sum()) == 31


def test_super_classes_are_clusters_times_rotations():
    found = so.adapters.deepercluster_labels(nested()[0], 3, 2)
    rotation = torch.arange(120) % 4
    assert torch.equal(found.super_classes(rotation), 4 * found.clusters.labels + rotation)
    every = found.super_classes(torch.arange(4)[:, None])
    assert every.shape == (4, 120)
    assert every.unique().tolist() == list(range(12))


def test_loss_is_the_formula():
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(7, 12, generator=g), torch.randn(7, 12, 5, generator=g)
    y, z = torch.randint(0, 12, (7,), generator=g), torch.randint(0, 5, (7,), generator=g)
    expected = 0.0
    for i in range(7):
        expected -= float(torch.log_softmax(first[i], 0)[y[i]]) / 7
        expected -= float(torch.log_softmax(second[i, y[i]], 0)[z[i]]) / 7
    second.requires_grad_()
    loss = so.adapters.deepercluster_loss(first, second, y, z)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    # a sub-classifier learns from its own super-class only
    touched = second.grad.abs().sum(-1) > 0
    assert torch.equal(touched, F.one_hot(y, 12).bool())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_of_half_precision_is_that_of_the_same_numbers(dtype):
    g = torch.Generator().manual_seed(0)
    first = (4 * torch.randn(64, 12, generator=g)).to(dtype)
    second = (4 * torch.randn(64, 12, 5, generator=g)).to(dtype)
    y, z = torch.randint(0, 12, (64,), generator=g), torch.randint(0, 5, (64,), generator=g)
    truth = float(so.adapters.deepercluster_loss(first.double(), second.double(), y, z))
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = so.adapters.deepercluster_loss(first, second, y, z)
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(truth, rel=1e-6)


def test_rotations():
    images = torch.arange(9.0).view(1, 1, 3, 3).repeat(4, 2, 1, 1)
    turned = rotate(images, torch.arange(4))
    for quarters in range(4):
        assert torch.equal(turned[quarters], torch.rot90(images[0], quarters, (1, 2)))
    # the top right corner goes to the top left
    assert float(turned[1, 0, 0, 0]) == 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: so.adapters.deepercluster_labels(torch.zeros(3, 2), 4, 2),
            "at most the 3 samples",
        ),
        (lambda: so.adapters.deepercluster_labels(torch.zeros(3, 2), 2, 0), "sub_clusters must be"),
        (lambda: found().super_classes(torch.tensor([0, 4])), "quarter turns, got 4 at index 1"),
        (lambda: found().super_classes(torch.zeros(2)), "rotation must be int64"),
        (lambda: rotate(torch.zeros(2, 1, 3, 4), torch.tensor([0, 1])), "images must have shape"),
        (lambda: rotate(torch.zeros(2, 1, 3, 3), torch.tensor([0])), "rotation must have shape"),
        (
            lambda: so.adapters.deepercluster_loss(
                torch.zeros(2, 4), torch.zeros(2, 3, 5), *[torch.zeros(2).long()] * 2
            ),
            r"sub_logits must have shape \(2, 4, k\)",
        ),
        (lambda: loss_of([1, -100], [0, 0]), r"super_classes must.*in 0..3, got -100 at index 1"),
        (lambda: loss_of([4, 0], [0, 0]), r"super_classes must.*in 0..3, got 4 at index 0"),
        (lambda: loss_of([0, 0], [0, -100]), r"sub must.*in 0..2, got -100 at index 1"),
        (lambda: loss_of([0, 0], [3, 0]), r"sub must.*in 0..2, got 3 at index 0"),
        (lambda: loss_of([0], [0, 0]), r"super_classes must hold int64 labels of shape \(2,\)"),
        (lambda: loss_of([0, 0], [0.0, 0.0]), r"sub must hold int64 labels.*got torch.float32"),
    ],
    ids=range(13),
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def found() -> so.adapters.DeeperClusterLabels:
    return so.adapters.deepercluster_labels(torch.eye(2), 2, 1)


def loss_of(super_classes: list[int], sub: list[float]) -> Tensor:
    given = torch.tensor(super_classes), torch.tensor(sub)
    return so.adapters.deepercluster_loss(torch.zeros(2, 4), torch.zeros(2, 4, 3), *given)
