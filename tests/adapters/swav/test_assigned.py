"""SwAV's `assign`: potentials that give codes to others, and shares of the prototypes."""

import math

import pytest
import torch
from adapters import oracles
from adapters.oracles import total_variation
from adapters.swav.scores import cosines, half_of, with_entry

import sinkhorn_ot as so
from sinkhorn_ot.adapters.swav import assign


def test_assign_says_what_the_codes_do():
    S, mask = cosines(80, 10), half_of(80)
    found = assign(S, mask=mask, last=20)
    full = so.swav_codes(S, mask=mask)
    torch.testing.assert_close(found.codes, full[60:])
    assert torch.equal(found.labels[mask[60:]], full[60:].argmax(-1)[mask[60:]])
    assert bool((found.labels[~mask[60:]] == -1).all())
    torch.testing.assert_close(
        found.prototype_mass, full.double().sum(0) * 10 / float(mask.sum()), rtol=1e-5, atol=1e-7
    )
    assert 1e-3 < float(found.marginal_error) < 1
    assert float(assign(S, n_iter=None).marginal_error) < 1e-5
    hard = assign(S, hard=True)
    assert torch.equal(hard.codes, so.swav_codes(S, hard=True))
    # of a batch each problem says it of itself
    many = assign(torch.stack([S, S.flip(1), 2 * S]), mask=mask, last=20)
    alone = assign(S.flip(1), mask=mask, last=20)
    torch.testing.assert_close(many.prototype_mass[1], alone.prototype_mass)
    torch.testing.assert_close(many.marginal_error[1], alone.marginal_error)
    assert torch.equal(many.labels[1], alone.labels)


SHARES = torch.tensor([4.0, 0.0, 1.0, 2.0, 0.5, 3.0, 1.0])


@pytest.mark.parametrize("n_iter", [1, 3, 10])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_prototypes_in_shares(n_iter, scale):
    S = scale * cosines(80, 7)
    found = assign(S, n_iter=n_iter, marginal=SHARES)
    assert total_variation(found.codes, oracles.codes_in_shares(S, 0.05, n_iter, SHARES)) < 1e-6
    assert bool((found.codes[:, 1] == 0).all())
    assert float(found.potentials[1]) == -math.inf
    want = SHARES.double() * 7 / SHARES.double().sum()
    torch.testing.assert_close(found.marginal_error, (found.prototype_mass - want).abs().mean())
    # equal shares are no shares, and shares have no unit
    plain, equal = assign(S, n_iter=n_iter), assign(S, n_iter=n_iter, marginal=[3.0] * 7)
    torch.testing.assert_close(plain.codes, equal.codes)
    torch.testing.assert_close(assign(S, n_iter=n_iter, marginal=9 * SHARES).codes, found.codes)


@pytest.mark.parametrize("masked", [False, True])
def test_converged_prototypes_have_their_shares(masked):
    S, mask = cosines(90, 7).double(), half_of(90) if masked else None
    found = assign(S, n_iter=None, marginal=SHARES, mask=mask)
    assert float(found.marginal_error) < 1e-8
    kept = S if mask is None else S[mask]
    oracle = oracles.codes_in_shares(kept, 0.05, 5000, SHARES)
    assert total_variation(found.codes if mask is None else found.codes[mask], oracle) < 1e-7
    assert bool((found.codes[:, 1] == 0).all())


def test_every_problem_has_its_shares():
    S = torch.stack([cosines(40, 7), cosines(40, 7, 1)])
    found = assign(S, marginal=torch.stack([SHARES, SHARES.flip(0)]))
    for k, r in enumerate((SHARES, SHARES.flip(0))):
        alone = assign(S[k], marginal=r)
        torch.testing.assert_close(found.codes[k], alone.codes)
        torch.testing.assert_close(found.potentials[k], alone.potentials)


@pytest.mark.parametrize("n_iter", [1, 3, None])
@pytest.mark.parametrize("marginal", [None, SHARES])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_potentials_give_codes_to_others(n_iter, marginal, scale):
    S, new = scale * cosines(80, 7).double(), scale * cosines(9, 7, 5).double()
    found = assign(S, n_iter=n_iter, marginal=marginal)
    torch.testing.assert_close(found.of(S), found.codes, rtol=1e-9, atol=1e-12)
    want = ((new + found.potentials) / found.eps).softmax(-1)
    torch.testing.assert_close(found.of(new), want, rtol=1e-9, atol=1e-12)
    # nobody has a say in the code of another
    torch.testing.assert_close(found.of(new[:1])[0], want[0], rtol=1e-9, atol=1e-12)
    assert found.of(new.float().requires_grad_()).dtype == torch.float32
    assert not found.of(new.float().requires_grad_()).requires_grad
    torch.testing.assert_close(found.of(torch.stack([new, -new]))[0], want, rtol=1e-9, atol=1e-12)


def test_potentials_of_a_batch_and_of_nobody():
    S, nobody = torch.stack([cosines(40, 7), cosines(40, 7, 1)]), torch.zeros(2, 40) > 0
    found = assign(S)
    torch.testing.assert_close(found.of(S), found.codes)
    empty = assign(S, mask=nobody)
    assert bool((empty.codes == 0).all())
    assert bool((empty.potentials == 0).all())
    for scores, message in (
        (torch.ones(2, 3, 6), r"scores must have shape \(2, M, 7\), got \(2, 3, 6\)"),
        (torch.ones(3, 4, 7), r"scores must have shape \(2, M, 7\), got \(3, 4, 7\)"),
        (torch.ones(7), r"scores must have shape \(..., M, K\), got \(7,\)"),
        (torch.full((2, 3, 7), math.nan), r"scores must be finite, got nan at index \(0, 0, 0\)"),
        (torch.ones(2, 3, 7, device="meta"), "scores must be on the device of the potentials"),
        ("scores", "scores must hold real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            found.of(scores)


MARGINALS = {
    "short": (torch.ones(4), r"marginal must have shape \(5,\) or .* of \(8, 5\), got \(4,\)"),
    "negative": ([1.0, -1, 1, 1, 1], "marginal must be non-negative, got -1 at index 1"),
    "nothing": (torch.zeros(5), "marginal must have some positive weight"),
    "nan": ([1.0, math.nan, 1, 1, 1], "marginal must be finite, got nan at index 1"),
    "elsewhere": (torch.ones(5, device="meta"), "marginal must be on the device of scores"),
    "words": ("equal", "marginal must hold real numbers"),
}


@pytest.mark.parametrize("name", MARGINALS)
def test_bad_shares_are_refused(name):
    with pytest.raises(ValueError, match=MARGINALS[name][1]):
        assign(cosines(8, 5), marginal=MARGINALS[name][0])
    with pytest.raises(ValueError, match=r"finite, got nan at index \(2, 3\)"):
        assign(with_entry(math.nan), marginal=torch.ones(5))


@pytest.mark.gpu
def test_shares_on_a_gpu_without_waiting():
    S, r = cosines(300, 7).cuda(), SHARES.cuda()
    assign(S, marginal=r)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = assign(S, marginal=r)
        found.of(S)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    oracle = oracles.codes_in_shares(S.cpu(), 0.05, 3, SHARES)
    assert total_variation(found.codes.cpu(), oracle) < 1e-6


def test_more_prototypes_than_samples_share_what_there_is():
    S = cosines(7, 40)
    Q = so.swav_codes(S, n_iter=None)
    torch.testing.assert_close(Q.sum(0), torch.full((40,), 7 / 40), rtol=1e-4, atol=0)
    assert total_variation(so.swav_codes(S), oracles.swav_codes(S, 0.05, 3)) < 1e-6
