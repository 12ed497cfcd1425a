"""Labels of samples that were not there: those that were keep theirs, and nonsense has none."""

import math

import pytest
import torch

import sinkhorn_ot as so
from sinkhorn_ot.adapters import arguments


def scores(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


LABELLED = [so.sela_labels, so.balanced_labels]


@pytest.mark.parametrize("label", LABELLED)
@pytest.mark.parametrize("shape", [(90, 6), (2, 60, 5)])
def test_samples_that_were_there_keep_their_labels(label, shape, monkeypatch):
    monkeypatch.setattr(arguments, "_TILE", 50)
    S = scores(*shape)
    found = label(S)
    # the prices of a best labelling make some samples indifferent, one per label at most
    few = 0 if label is so.sela_labels else shape[-1] * math.prod(shape[:-2])
    assert int((found.of(S) != found.labels).sum()) <= few
    new = scores(*shape[:-2], 7, shape[-1], seed=1)
    want = (new + found.potentials[..., None, :]).argmax(-1)
    assert torch.equal(found.of(new), want)
    assert torch.equal(found.of(new.float().requires_grad_()), want)
    assert torch.equal(found.of(new.numpy()), want)


def test_prices_move_labels_to_their_shares():
    """New samples of the same kind keep the shares; without the prices they would not."""
    tilt = torch.tensor([2.0, 0.0, 0.0, -2.0])
    old, new = scores(4000, 4) + tilt, scores(4000, 4, seed=1) + tilt
    found = so.sela_labels(old, lamb=10.0, marginal=[0.4, 0.3, 0.2, 0.1])
    # plans are soft, so that labels have the shares of old ones, which are only near those asked
    shares = (torch.bincount(t, minlength=4) / 4000 for t in (found.of(new), found.labels))
    torch.testing.assert_close(*shares, atol=0.03, rtol=0)
    assert float((new.argmax(-1) == 0).float().mean()) > 0.7


def test_a_label_without_share_labels_nobody():
    found = so.sela_labels(scores(60, 4), marginal=[0.5, 0.5, 0.0, 0.0])
    new = scores(30, 4, seed=1)
    assert int(found.of(new).max()) <= 1
    new[3, :2] = -math.inf
    with pytest.raises(
        ValueError, match="log_probs must allow every sample a label that has a sha"
    ):
        found.of(new)


@pytest.mark.parametrize("label", LABELLED)
def test_what_does_not_fit_is_refused(label):
    found = label(scores(2, 30, 4))
    name = "log_probs" if label is so.sela_labels else "scores"
    bad = scores(2, 5, 4)
    bad[1, 2, 3] = math.nan
    for given, message in (
        (scores(2, 5, 3), r"must have shape \(2, M, 4\), got \(2, 5, 3\)"),
        (scores(3, 5, 4), r"must have shape \(2, M, 4\), got \(3, 5, 4\)"),
        (scores(4), r"must have shape \(..., M, K\), got \(4,\)"),
        (scores(2, 0, 4), r"must not be empty, got shape \(2, 0, 4\)"),
        (bad, r"got nan at best in row \(1, 2\)"),
        (bad.nan_to_num(math.inf), r"got inf at best in row \(1, 2\)"),
        ("scores", "must hold real numbers"),
    ):
        with pytest.raises(ValueError, match=f"{name} {message}" if message[0] == "m" else message):
            found.of(given)
