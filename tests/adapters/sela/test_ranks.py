"""SeLa over ranks: the labels of one process, and errors that all ranks raise."""

import pytest
import torch
from ranks import run

import sinkhorn_ot as so


pytestmark = pytest.mark.slow(6, shared=True)

DATA = """
g = torch.Generator().manual_seed(0)
S = torch.log_softmax(3 * torch.randn(2, 5001, 12, generator=g, dtype=torch.float64), -1)
cuts = {2: [0, 4000, 5001], 4: [0, 2500, 2500, 5000, 5001]}[world]
own = slice(cuts[rank], cuts[rank + 1])
mine = S[:, own]
"""

BODY = (
    DATA
    + """
marginal = so.zipf_marginal(12)
answers = {
    "tensor": so.sela_labels(mine, group=group),
    "blocks": so.sela_labels(lambda: iter(mine.split(700, 1)), group=group, lamb=10.0),
    "numbered": so.sela_labels(
        lambda: ((torch.arange(k, min(k + 900, mine.shape[1])), mine[:, k : k + 900])
                 for k in range(0, mine.shape[1], 900)),
        group=group, marginal=marginal, align=True,
    ),
    "marginal": so.sela_labels(mine, group=group, marginal=marginal, align=True),
}
mask = torch.rand(2, 5001, generator=g) < 0.7
junk = torch.where(mask[..., None], S, torch.nan)[:, own]
said["masked"] = so.sela_labels(junk, mask=mask[:, own], soft=True, group=group)
answers["warm"] = so.sela_labels(mine, group=group, init=answers["tensor"], tol=1e-9)
stop = (lambda told: rank == 0 and told.n_iter >= 2)
answers["stopped"] = so.sela_labels(mine, group=group, tol=1e-12, callback=stop)
answers["resumed"] = so.sela_labels(mine, group=group, tol=1e-9, init=answers["stopped"])
said["answers"] = answers

bank = so.LabelBank(5001, 12, heads=2)
order = torch.randperm(5001, generator=g)
bank.update(S[:, order[own]], index=order[own], group=group)
said["bank"] = bank.state_dict()

spoiled = mine.clone()
if world == 4 and rank == 3 or world == 2 and rank == 1:
    spoiled[1, 0, 7] = float("nan")
closed = mine.clone()
closed[..., 5] = -float("inf")
said["refused"] = {
    "K": refused(lambda: so.sela_labels(mine[..., : 12 - rank % 2], group=group)),
    "lamb": refused(lambda: so.sela_labels(mine, group=group, lamb=10.0 + rank)),
    "sharp": refused(lambda: so.sela_labels(mine, group=group, lamb=1e13)),
    "tol": refused(lambda: so.sela_labels(mine, group=group, tol=1e-3 if rank else 1e-6)),
    "dtype": refused(lambda: so.sela_labels(mine.float() if rank else mine, group=group)),
    "heads": refused(lambda: so.sela_labels(mine if rank else mine[0], group=group)),
    "nan": refused(lambda: so.sela_labels(spoiled, group=group)),
    "closed": refused(lambda: so.sela_labels(closed, group=group)),
    "empty": refused(lambda: so.sela_labels(mine[:, :0], group=group)),
    "generator": refused(lambda: so.sela_labels((b for b in mine) if rank else mine, group=group)),
    "mask": refused(
        lambda: so.sela_labels(mine, group=group, mask=mask[:, own] if rank else None)
    ),
    "callback": refused(
        lambda: so.sela_labels(mine, group=group, callback=print if rank else None)
    ),
}
"""
)


@pytest.fixture(scope="module", params=[2, 4])
def said(request):
    return run(request.param, BODY)


@pytest.fixture(scope="module")
def alone():
    scope = {"torch": torch, "world": 2, "rank": 0}
    exec(DATA, scope)
    S = scope["S"]
    marginal = so.zipf_marginal(12)
    return {
        "tensor": so.sela_labels(S),
        "blocks": so.sela_labels(S, lamb=10.0),
        "numbered": so.sela_labels(S, marginal=marginal, align=True),
        "marginal": so.sela_labels(S, marginal=marginal, align=True),
        "warm": so.sela_labels(S, tol=1e-9),
        "resumed": so.sela_labels(S, tol=1e-9),
    }


@pytest.mark.parametrize("name", ["tensor", "blocks", "numbered", "marginal", "warm", "resumed"])
def test_labels_are_those_of_one_process(said, alone, name):
    want = alone[name]
    labels = torch.cat([rank["answers"][name].labels for rank in said], -1)
    assert float((labels == want.labels).double().mean()) > 0.9995
    for rank in said:
        found = rank["answers"][name]
        assert bool(found.converged.all())
        # they are what they are up to a constant, and as exact as tol makes them
        off = found.potentials - want.potentials
        assert float((off - off.mean(-1, keepdim=True)).abs().max()) < 1e-4
        # counts are of all ranks
        assert int(found.counts.sum()) == 2 * 5001
        assert torch.equal(found.counts, said[0]["answers"][name].counts)
        assert torch.equal(found.potentials, said[0]["answers"][name].potentials)


def test_samples_of_all_ranks_that_a_mask_leaves_out(said):
    scope = {"torch": torch, "world": 2, "rank": 0}
    exec(DATA, scope)
    S, mask = scope["S"], torch.rand(2, 5001, generator=scope["g"]) < 0.7
    labels = torch.cat([rank["masked"].labels for rank in said], -1)
    soft = torch.cat([rank["masked"].soft for rank in said], -2)
    assert bool((labels[~mask] == -1).all())
    assert bool((soft[~mask] == 0).all())
    for h in range(2):
        want = so.sela_labels(S[h, mask[h]], soft=True)
        assert float((labels[h, mask[h]] == want.labels).double().mean()) > 0.9995
        torch.testing.assert_close(soft[h, mask[h]], want.soft, atol=1e-4, rtol=0)
        assert int(said[0]["masked"].counts[h].sum()) == int(mask[h].sum())


def test_one_rank_stops_all(said):
    for rank in said:
        stopped = rank["answers"]["stopped"]
        assert not bool(stopped.converged.any())
        assert int(stopped.n_iter.max()) <= 3


def test_the_bank_of_every_rank_holds_all_labels(said, alone):
    for rank in said:
        labels = rank["bank"]["labels"]
        assert float((labels == alone["tensor"].labels).double().mean()) > 0.9995
        assert torch.equal(labels, said[0]["bank"]["labels"])


SAME = "must be the same on every rank of the group, got"
MESSAGES = {
    "K": f"ValueError: K {SAME} 12 on rank 0 and 11 on rank 1",
    "lamb": f"ValueError: lamb {SAME} 10.0 on rank 0 and 11.0 on rank 1",
    "sharp": "Unresolved: lamb must be at most",
    "tol": f"ValueError: tol {SAME} 1e-06 on rank 0 and 0.001 on",
    "dtype": f"dtype of log_probs {SAME} torch.float64",
    "heads": f"leading dimensions of log_probs {SAME} () on rank 0 and (2,) on rank 1",
    "nan": "ValueError: log_probs must be a number below inf, got nan at index (1, 0, 7), on rank",
    "closed": "every label with a share some sample, got -inf all along column (0, 5)",
    "empty": "log_probs must not be empty, got shape (2, 0, 12)",
    "generator": "log_probs must be read several times",
    "mask": f"whether there is a mask {SAME} False on rank 0 and True on rank 1",
    "callback": f"callback {SAME} False on rank 0 and True on rank 1",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_wrong_on_one_rank_is_an_error_on_all(said, name):
    for rank in said:
        assert MESSAGES[name] in rank["refused"][name]
    assert len({rank["refused"][name] for rank in said}) == 1


def test_a_rank_that_dies_is_an_error_and_no_wait():
    [other] = run(
        2,
        DATA
        + """
import os
def die(told):
    if rank == 1 and told.n_iter == 2:
        os._exit(0)
said["refused"] = refused(
    lambda: so.sela_labels(mine, group=group, tol=1e-14, max_iter=10_000, callback=die)
)
""",
        dying=(1,),
    )
    assert other["refused"].startswith("RuntimeError: a rank of the group cannot be reached")
