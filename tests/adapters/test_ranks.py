"""Adapters over 2 and 4 real processes: what one process computes, and errors that all hear."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import oracles, rank_cases
from adapters.oracles import total_variation
from adapters.rank_cases import BATCH, KIND, MASK, MASKED_KIND, MASKS, SHARES, SIZES, scores
from processes import start

import sinkhorn_ot as so


pytestmark = pytest.mark.slow(6, shared=True)
Answers = list[dict[str, Any]]


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Run all cases once, in real processes; return what each rank wrote down."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    processes = [start(rank_cases.run, rank, world, str(folder)) for rank in range(world)]
    for process in processes:
        process.join(120)
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    assert not late, "a rank hangs"
    assert [process.exitcode for process in processes] == [3] + [0] * (world - 1)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def joined(ranks: Answers, name: str, dim: int = 0) -> torch.Tensor:
    parts = [answers[name] for answers in ranks]
    assert [part.shape[dim] for part in parts] == list(SIZES[len(ranks)])
    return torch.cat(parts, dim)


@pytest.mark.parametrize(
    ("name", "n_iter", "scale"),
    [
        ("codes", 3, 0.3),
        ("one iteration", 1, 0.3),
        ("huge", 3, 1e4),
        ("published", 3, 0.3),
        ("logs", 3, 0.3),
    ],
)
def test_every_sample_weighs_the_same(ranks, name, n_iter, scale):
    oracle = oracles.swav_codes(scores(scale), 0.05, n_iter)
    assert total_variation(joined(ranks, name), oracle) < 1e-6


def test_under_compile(ranks):
    if len(ranks) == 2:
        Q = joined(ranks, "compiled")
        assert total_variation(Q, oracles.swav_codes(scores(), 0.05, 3)) < 1e-6


def test_in_the_precision_of_the_scores(ranks):
    half, double = joined(ranks, "half"), joined(ranks, "double")
    assert total_variation(half, oracles.swav_codes(scores().half(), 0.05, 3)) < 1e-6
    assert total_variation(double, oracles.swav_codes(scores(), 0.05, 3)) < 1e-13


def test_codes_may_converge(ranks):
    Q = joined(ranks, "converged")
    torch.testing.assert_close(Q.sum(0), torch.full((12,), 50 / 12).double(), rtol=1e-7, atol=0)
    assert total_variation(Q, oracles.swav_codes(scores(), 0.05, 5000)) < 1e-7


def test_converged_problems_may_have_other_masks(ranks):
    alone = so.swav_codes(KIND, mask=MASKS, n_iter=None)
    assert total_variation(joined(ranks, "converged masks", 1), alone) < 1e-7


def test_a_batch_of_problems(ranks):
    assert total_variation(joined(ranks, "batch", 1), oracles.swav_codes(BATCH, 0.05, 3)) < 1e-6


def test_masks_hard_codes_and_the_last_rows(ranks):
    oracle = oracles.swav_codes(scores(), 0.05, 3)
    masked = oracles.swav_codes(scores(), 0.05, 3, MASK)
    assert total_variation(joined(ranks, "masked"), masked) < 1e-6
    assert bool((joined(ranks, "nothing") == 0).all())
    assert torch.equal(joined(ranks, "hard").argmax(-1), oracle.argmax(-1))
    for answers, part in zip(ranks, oracle.split(SIZES[len(ranks)]), strict=True):
        last = answers["last"]
        assert len(last) == min(5, len(part))
        torch.testing.assert_close(last.double(), part[len(part) - len(last) :], rtol=0, atol=2e-6)
        torch.testing.assert_close(answers["mass"], oracle.sum(0) * 12 / 50, rtol=1e-5, atol=1e-6)


def test_prototypes_in_shares(ranks):
    oracle = oracles.codes_in_shares(scores(), 0.05, 3, SHARES)
    assert total_variation(joined(ranks, "shares"), oracle) < 1e-6
    for answers in ranks:
        mass = SHARES.double() * 12 / SHARES.sum()
        torch.testing.assert_close(answers["converged shares"], mass, rtol=1e-7, atol=0)


def test_heirs(ranks):
    S = scores()
    dino = oracles.swav_codes(S, 0.07, 3)
    assert total_variation(joined(ranks, "dino"), dino) < 1e-6
    capi = oracles.swav_codes(S, 0.06, 3)[:, None].expand(-1, 3, -1)
    assert total_variation(joined(ranks, "capi"), capi) < 1e-6
    assert total_variation(joined(ranks, "msn"), oracles.msn(S, 0.1, 0.25, 3)) < 1e-6
    for name, n_iter in (("router", None), ("fixed router", 3)):
        plan = oracles.router(S * 5, n_iter)[0]
        assert total_variation(50 * joined(ranks, name).exp(), 50 * plan.exp()) < 1e-6
    masked = joined(ranks, "masked router")
    plan = oracles.router(S[MASK] * 5, None)[0]
    assert total_variation(50 * masked[MASK].exp(), 50 * plan.exp()) < 1e-6
    assert bool((masked[~MASK] == -torch.inf).all())
    alone = so.adapters.clot_labels(MASKED_KIND, mask=MASKS, tol=1e-9)
    assert total_variation(joined(ranks, "masked clot", 1), alone) < 1e-7
    alone = so.swav_codes_from_features(S, torch.eye(12))
    assert total_variation(joined(ranks, "features"), alone.double()) < 1e-6


HEARD = {
    "K": "K must be the same on every rank of the group, got 12 on rank 0 and 11 on rank {last}",
    "eps": "eps must be the same on every rank of the group, got 0.05 on rank 0 and 0.1 on rank",
    "n_iter": "n_iter must be the same on every rank of the group, got 3 on rank 0 and 4 on rank",
    "dtype": "dtype must be the same on every rank of the group, got torch.float32 on rank 0 and",
    "shape": "scores must have shape (..., N, K), got (12,), on rank {last} of the group",
    "nan": "scores must be finite, got nan at index (0, 3), on rank {last} of the group",
    "nan to tolerance": "scores must be finite, got nan at index (0, 3), on rank {last}",
    "dino nan": "logits must be finite, got nan at index (0, 3), on rank {last} of the group",
    "msn nan": "scores must be finite, got nan at index (0, 3), on rank {last} of the group",
    "router nan": "logits must be a number below inf, got nan at index (0, 3), on rank {last}",
    "experts": "number of experts must be the same on every rank of the group, got 12 on rank 0",
    "marginal": "marginal must be the same on every rank of the group, got None on rank 0 and [",
    "world size": "world_size must be the number of ranks",
    "no prototypes": "scores must not be empty, got shape",
}


@pytest.mark.parametrize("name", HEARD)
def test_every_rank_hears_of_a_mistake(ranks, name):
    expected = HEARD[name].format(last=len(ranks) - 1)
    for answers in ranks:
        assert expected in answers[name]


def test_a_group_survives_mistakes(ranks):
    assert [answers["none"] for answers in ranks] == [""] * len(ranks)


@pytest.mark.parametrize(
    "name", ["sela_labels", "clot_labels", "clot_labels, masked", "moe_router"]
)
def test_what_ends_above_its_tolerance_raises_on_all_ranks(ranks, name):
    said = {answers[f"{name} cut short"] for answers in ranks}
    assert len(said) == 1
    assert said.pop().startswith(f"{name.partition(',')[0]}: ")


def test_what_to_do_then_is_the_same_on_all_ranks(ranks):
    for answers in ranks:
        assert "on_fail must be the same on every rank of the group" in answers["on_fail"]


def test_a_group_of_some_ranks(ranks):
    sizes = SIZES[len(ranks)][:2]
    oracle = oracles.swav_codes(scores()[: sum(sizes)], 0.05, 3)
    inside = torch.cat([answers["inside"] for answers in ranks[:2]])
    assert total_variation(inside, oracle) < 1e-6
    for answers in ranks[2:]:
        assert (
            "group must be a torch.distributed process group that this process is in"
            in (answers["outside"])
        )


@pytest.mark.parametrize("how", ["absent", "dead"])
def test_a_lost_rank_ends_in_an_error(ranks, how):
    for answers in ranks[1:]:
        assert "a rank of the group cannot be reached" in answers[how]
        assert answers[f"{how} after"] < 15
