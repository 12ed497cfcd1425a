"""SeLa's labels of some samples only, and its soft labels."""

import math
from collections.abc import Iterator

import pytest
import torch
from adapters import oracles
from torch import Tensor

import sinkhorn_ot as so


JUNK = torch.tensor([math.nan, math.inf, -math.inf, 1e30]).double()


def log_probs(*shape: int, scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.log_softmax(scale * torch.randn(shape, generator=g, dtype=torch.float64), -1)


def some(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6


def spoiled(S: Tensor, mask: Tensor) -> Tensor:
    S, out = S.clone(), ~mask.expand(S.shape[:-1])
    S[out] = JUNK[torch.arange(int(out.sum())) % 4, None]
    return S


def alike(found: so.SelaLabels, want: so.SelaLabels, mask: Tensor) -> None:
    """Labels are those of the samples that count alone; the others have none."""
    assert torch.equal(found.labels[mask], want.labels)
    assert bool((found.labels[~mask] == -1).all())
    assert torch.equal(found.counts, want.counts)
    off = found.potentials - want.potentials
    assert float((off - off.mean()).abs().max()) < 1e-7
    assert bool(found.converged)


@pytest.mark.parametrize("shape", [(40, 2), (900, 10), (20_000, 6)], ids=str)
@pytest.mark.parametrize("scale", [0.1, 4.0])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_samples_left_out_count_for_nothing(shape, scale, shift):
    S, mask = log_probs(*shape, scale=scale) + shift, some(shape[0])
    options = {"tol": 1e-10, "max_iter": 20_000}
    found = so.sela_labels(spoiled(S, mask), mask=mask, **options)
    alike(found, so.sela_labels(S[mask], **options), mask)


def blocks(S: Tensor) -> list[Tensor]:
    return list(S.split(37, -2))


def numbered(S: Tensor) -> list[tuple[Tensor, Tensor]]:
    order = torch.randperm(S.shape[-2], generator=torch.Generator().manual_seed(3))
    return [(at, S[..., at, :]) for at in order.split(37)]


FORMS = {
    "blocks": blocks,
    "numbered": numbered,
    "a function": lambda S: lambda: iter(blocks(S)),
    "an array": lambda S: S.numpy(),
}


@pytest.mark.filterwarnings("ignore:log_probs is a list")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("balanced", [False, True])
def test_of_any_form(form, balanced):
    S, mask = log_probs(300, 5), some(300)
    # a whole block that does not count
    mask[37:74] = False
    if balanced and form != "an array":
        return
    options = {"tol": 1e-10, "rounding": "balanced" if balanced else "argmax"}
    found = so.sela_labels(FORMS[form](spoiled(S, mask)), mask=mask, **options)
    alike(found, so.sela_labels(S[mask], **options), mask)


@pytest.mark.parametrize("rounding", ["argmax", "balanced"])
@pytest.mark.parametrize("marginal", [None, so.zipf_marginal(5)])
def test_every_head_has_its_mask(rounding, marginal):
    S, mask = log_probs(3, 200, 5), some(3, 200)
    mask[1] = False
    options = {"tol": 1e-10, "marginal": marginal, "align": True, "rounding": rounding}
    found = so.sela_labels(spoiled(S, mask), mask=mask, soft=True, **options)
    assert found.soft is not None
    for h in (0, 2):
        want = so.sela_labels(S[h, mask[h]], soft=True, **options)
        assert torch.equal(found.labels[h, mask[h]], want.labels)
        assert torch.equal(found.counts[h], want.counts)
        torch.testing.assert_close(found.soft[h, mask[h]], want.soft, atol=1e-7, rtol=0)
    # no sample counts: no label
    assert bool((found.labels[1] == -1).all())
    assert int(found.counts[1].sum()) == 0
    assert bool(torch.isfinite(found.potentials[1]).all())
    assert bool((found.soft[~mask] == 0).all())


def test_a_mask_of_all_changes_nothing():
    S = log_probs(300, 5)
    found, want = so.sela_labels(S, mask=torch.ones(300) > 0), so.sela_labels(S)
    assert torch.equal(found.labels, want.labels)
    torch.testing.assert_close(found.potentials, want.potentials)


def test_forbidden_labels_beside_a_mask():
    S, mask = log_probs(60, 4), torch.arange(60) > 4
    S[10:30, 2] = S[:5] = -math.inf
    found = so.sela_labels(S, mask=mask)
    assert bool(found.converged)
    assert not bool((found.labels[10:30] == 2).any())
    S[5:, 2] = -math.inf
    S[:5, 2] = 0.0
    with pytest.raises(ValueError, match="every label with a share some sample, .* column 2"):
        so.sela_labels(S, mask=mask)
    S[7] = -math.inf
    with pytest.raises(ValueError, match="every sample some label.* -inf all along row 7"):
        so.sela_labels(S, mask=mask)


@pytest.mark.filterwarnings("error")
def test_rows_left_out_raise_no_doubt():
    S = log_probs(60, 4)
    S[:30] = S[:30].exp()
    so.sela_labels(S, mask=torch.arange(60) >= 30)
    with pytest.warns(UserWarning, match="rows that sum to one"):
        so.sela_labels(S.exp().clamp(max=1) * 0 + S[:1], mask=torch.arange(60) >= 30)


def generator() -> Iterator[Tensor]:
    yield log_probs(9, 4)


MASKS = {
    "numbers": (torch.ones(9), "mask must be bool, true where a sample counts, got float32"),
    "short": (torch.ones(8) > 0, r"mask must have shape \(9,\) or \(9,\) to fit \(9, 4\), got"),
    "of pairs": (torch.ones(9, 4) > 0, r"mask must have shape .* got \(9, 4\)"),
    "long": (torch.ones(10) > 0, r"mask must have shape .* got \(10,\)"),
    "elsewhere": (
        torch.ones(9, dtype=torch.bool, device="meta"),
        r"mask must be on the device of the scores \(cpu\), got meta",
    ),
    "one truth": (torch.tensor(True), r"mask must have shape .* got \(\)"),
    "words": ("mask", "mask must hold real numbers"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_bad_mask_is_refused(name):
    mask, message = MASKS[name]
    for S in (log_probs(9, 4), generator, [*log_probs(9, 4).split([4, 5])]):
        with pytest.raises(ValueError, match=message):
            so.sela_labels(S, mask=mask)


def test_what_counts_is_looked_at():
    S, mask = log_probs(9, 4), torch.arange(9) > 1
    S[0, 0] = S[3, 1] = math.nan
    for given in (S, [*S.split([4, 5])]):
        with pytest.raises(ValueError, match=r"below inf, got nan at index \(3, 1\)"):
            so.sela_labels(given, mask=mask)


def test_a_bank_of_some_samples():
    S, mask, bank = log_probs(60, 4), some(60), so.LabelBank(60, 4)
    found = bank.update(spoiled(S, mask), mask=mask)
    assert torch.equal(bank.labels, found.labels)
    assert bool((bank[(~mask).nonzero()[:, 0]] == -1).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("lamb", [5.0, 25.0])
def test_soft_labels_are_the_rows_of_the_plan(dtype, lamb):
    S = log_probs(400, 7).to(dtype)
    found = so.sela_labels(S, lamb=lamb, tol=1e-10 if dtype == torch.float64 else 1e-6, soft=True)
    plain = so.sela_labels(S, lamb=lamb)
    assert plain.soft is None
    assert found.soft is not None
    assert found.soft.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    f = oracles.sela(S, lamb, torch.full((7,), 1 / 7, dtype=torch.float64))
    want = torch.softmax(lamb * S.double() + f, -1)
    limit = 1e-8 if dtype == torch.float64 else 2e-4
    assert oracles.total_variation(found.soft, want) < limit
    assert torch.equal(found.soft.argmax(-1), found.labels)
    torch.testing.assert_close(found.soft.sum(-1), torch.ones_like(found.soft[:, 0]))
    share = found.soft.double().mean(0)
    torch.testing.assert_close(share, torch.full((7,), 1 / 7).double(), rtol=1e-3, atol=0)


def test_soft_labels_in_any_form():
    S = log_probs(2, 300, 5)
    before = S.clone()
    want = so.sela_labels(S, soft=True, tol=1e-10)
    assert torch.equal(S, before)
    assert want.soft is not None
    found = so.sela_labels(lambda: iter(blocks(S)), soft=True, tol=1e-10)
    torch.testing.assert_close(found.soft, want.soft, atol=1e-7, rtol=0)
    closed = so.sela_labels(S, marginal=[1.0, 0, 1, 1, 1], soft=True)
    assert closed.soft is not None
    assert bool((closed.soft[..., 1] == 0).all())
    with pytest.raises(ValueError, match="soft must be True or False, got 1"):
        so.sela_labels(S, soft=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("heads", [(), (2,)], ids=str)
def test_features_left_out_may_hold_anything(heads: tuple[int, ...]):
    x, W = torch.randn(60, 6), torch.randn(*heads, 5, 6)
    keep = some(60)
    mask = keep.expand(*heads, 60)
    junk = x.masked_fill(~keep[:, None], math.nan)
    found = so.sela_labels_from_features(junk, W, mask=mask)
    want = so.sela_labels_from_features(x[keep], W)
    assert torch.equal(found.labels[..., keep], want.labels)
    assert bool((found.labels[..., ~keep] == -1).all())
    # who counts in one head counts
    with pytest.raises(ValueError, match="features must be finite, got nan"):
        so.sela_labels_from_features(junk, W, mask=torch.ones(*heads, 60, dtype=torch.bool))
