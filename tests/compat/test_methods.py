"""The calls of other people's training loops, beside dense float64 oracles of their formulas."""

import copy
from argparse import Namespace

import numpy as np
import pytest
import ranks
import torch
from adapters import oracles
from adapters.oracles import total_variation

import sinkhorn_ot as so
from sinkhorn_ot.compat import dinov2, lightly, megatron, selflabel, solo, swav


def scores(n=40, k=9, scale=1.0, seed=0):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * scale


# each in the shape of its loop, at temperature 0.05 and three iterations, which are their defaults
CALLS = {
    "dinov2": lambda out: dinov2.sinkhorn_knopp_teacher(out, 0.05),
    "ibot": lambda out: dinov2.patches_sinkhorn_knopp_teacher(
        out, teacher_temp=0.05, n_masked_patches_tensor=torch.tensor([40])
    ),
    "lightly": lightly.sinkhorn,
    "solo": solo.SinkhornKnopp(),
    "swav": swav.distributed_sinkhorn,
    "swav, args": swav.reading(Namespace(epsilon=0.05, sinkhorn_iterations=3)),
}


def plainly(out, epsilon=0.05, n_iter=3):
    """Return what their formulas are in the precision that comes, as they are."""
    Q = (out / epsilon).exp()
    Q = Q / Q.sum()
    for _ in range(n_iter):
        Q = Q / Q.sum(0)
        Q = Q / Q.sum(1, keepdim=True)
    return Q


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_gives_the_codes_of_the_formulas(call):
    out = scores(scale=0.3)
    before, oracle = out.clone(), oracles.swav_codes(out, 0.05, 3)
    Q = call(out)
    assert Q.shape == out.shape
    assert Q.dtype == torch.float32
    off = total_variation(Q, oracle)
    assert off < 1e-6
    # no further from the truth than the formulas themselves in single precision
    assert off <= max(2 * total_variation(plainly(out), oracle), 3e-7)
    assert torch.equal(out, before)
    torch.testing.assert_close(Q.sum(1), torch.ones(40))
    assert total_variation(call(out.double()), oracle) < 1e-12
    assert call(out.requires_grad_()).requires_grad is False


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_where_the_originals_overflow(call, kind):
    out = scores(scale=8.0).to(kind)
    assert not bool(torch.isfinite(plainly(out)).all())
    assert total_variation(call(out), oracles.swav_codes(out, 0.05, 3)) < 2e-6


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_scores_that_are_none(call):
    with pytest.raises(ValueError, match=r"must have shape \(B, K\), got \(2, 3, 4\)"):
        call(torch.ones(2, 3, 4))
    out = scores()
    out[3, 2] = torch.nan
    with pytest.raises(ValueError, match=r"must be .*\(3, 2\)"):
        call(out)


def test_other_settings():
    out = scores(scale=0.3)
    oracle = oracles.swav_codes(out, 0.1, 5)
    for Q in (
        dinov2.sinkhorn_knopp_teacher(out, 0.1, n_iterations=5),
        dinov2.sinkhorn_knopp_teacher(out, torch.tensor(0.1), 5),
        dinov2.patches_sinkhorn_knopp_teacher(out, 0.1, None, 5),
        lightly.sinkhorn(out, iterations=5, epsilon=0.1, gather_distributed=True),
        solo.SinkhornKnopp(5, 0.1, world_size=8)(out),
    ):
        assert total_variation(Q, oracle) < 1e-6


def test_a_method_of_dinov2s_loss():
    class DINOLoss:
        sinkhorn_knopp_teacher = staticmethod(dinov2.sinkhorn_knopp_teacher)

    out = scores(scale=0.3)
    Q = DINOLoss().sinkhorn_knopp_teacher(out, teacher_temp=0.05)
    assert total_variation(Q, oracles.swav_codes(out, 0.05, 3)) < 1e-6


def test_args_are_read_at_each_call():
    args, out = Namespace(epsilon=0.05, sinkhorn_iterations=3), scores(scale=0.3)
    call = swav.reading(args)
    args.epsilon, args.sinkhorn_iterations = 0.1, 5
    assert total_variation(call(out), oracles.swav_codes(out, 0.1, 5)) < 1e-6


def test_swavs_early_shape_is_told():
    Q = (scores(scale=0.3) / 0.05).exp().t()
    with pytest.raises(ValueError, match="epsilon must be a temperature, got 3: an early version"):
        swav.distributed_sinkhorn(Q, 3)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: dinov2.sinkhorn_knopp_teacher(scores(), 0.0), "teacher_temp must be"),
        (lambda: dinov2.sinkhorn_knopp_teacher(scores(), 0.1, 0), "n_iterations must be"),
        (lambda: lightly.sinkhorn(scores(), 0), "iterations must be"),
        (lambda: lightly.sinkhorn(scores(), epsilon=-1.0), "epsilon must be"),
        (lambda: lightly.sinkhorn(scores(), gather_distributed=1), "gather_distributed must be"),
        (lambda: solo.SinkhornKnopp(0), "num_iters must be"),
        (lambda: solo.SinkhornKnopp(3, 0.0), "epsilon must be"),
        (lambda: megatron.sinkhorn(scores(), tol=0.0), "tol must be"),
        (lambda: megatron.sinkhorn(torch.ones(2, 3, 4)), r"cost must have shape \(T, E\)"),
    ],
)
def test_bad_arguments_are_named(call, why):
    with pytest.raises(ValueError, match=why):
        call()


def test_solos_module_is_one():
    module = solo.SinkhornKnopp(4, 0.1)
    assert "num_iters=4, epsilon=0.1" in repr(module)
    assert not module.state_dict()
    out = scores(scale=0.3)
    assert torch.equal(copy.deepcopy(module)(out), module(out))


@pytest.mark.slow(5)
def test_ranks_are_one_batch():
    """Of unequal size, which the originals count as equal; lightly's alone unless asked."""
    said = ranks.run(
        2,
        """
        from argparse import Namespace
        from sinkhorn_ot.compat import dinov2, lightly, solo, swav
        out = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)) * 0.3
        mine = out.split((37, 13))[rank]
        count = torch.tensor([len(mine)])
        said["dinov2"] = dinov2.sinkhorn_knopp_teacher(mine, 0.05)
        said["ibot"] = dinov2.patches_sinkhorn_knopp_teacher(mine, 0.05, count)
        said["count"] = int(count)
        said["lightly"] = lightly.sinkhorn(mine, gather_distributed=True)
        said["solo"] = solo.SinkhornKnopp(world_size=world)(mine)
        said["swav"] = swav.reading(Namespace(epsilon=0.05, sinkhorn_iterations=3))(mine)
        said["alone"] = lightly.sinkhorn(mine)
        """,
    )
    out = scores(50, scale=0.3)
    oracle = oracles.swav_codes(out, 0.05, 3)
    for name in ("dinov2", "ibot", "lightly", "solo", "swav"):
        assert total_variation(torch.cat([one[name] for one in said]), oracle) < 1e-6, name
    for one, part in zip(said, out.split((37, 13)), strict=True):
        assert total_variation(one["alone"], oracles.swav_codes(part, 0.05, 3)) < 1e-6
        assert one["count"] == len(part)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_megatrons_router(scale):
    logits = scores(64, 8, scale)
    before = logits.clone()
    log_plan, _ = oracles.router(logits, None, 1e-4)
    P = megatron.sinkhorn(logits)
    torch.testing.assert_close(P.double(), log_plan.exp(), rtol=1e-5, atol=0)
    assert torch.equal(P.topk(2, 1).indices, log_plan.topk(2, 1).indices)
    torch.testing.assert_close(P.sum(0), torch.full((8,), 1 / 8))
    fine, _ = oracles.router(logits, None, 1e-7)
    torch.testing.assert_close(
        megatron.sinkhorn(logits.double(), 1e-7), fine.exp(), rtol=1e-9, atol=0
    )
    assert torch.equal(logits, before)


def test_megatrons_router_where_the_original_leaves_its_range():
    # exp overflows above 88, and below -18 its guard of 1e-8 decides
    for shift in (200.0, -30.0):
        logits = scores(64, 8) + shift
        want = megatron.sinkhorn(logits - shift)
        torch.testing.assert_close(megatron.sinkhorn(logits), want, rtol=1e-4, atol=1e-9)


class Optimizer:
    """What SeLa's function reads and writes."""

    def __init__(self, PS, heads=2, lamb=25.0):
        self.PS, self.lamb = PS, lamb
        self.L = torch.full((heads, len(PS)), -1)


def probabilities(n=150, k=8, scale=0.3, seed=0):
    return torch.log_softmax(scores(n, k, scale, seed).double(), 1)


def labels(log_p, lamb, tol=1e-9):
    K = log_p.shape[-1]
    f = oracles.sela(log_p, lamb, torch.full((K,), 1 / K, dtype=torch.float64), tol)
    return (lamb * log_p + f).argmax(-1)


@pytest.mark.parametrize("arrays", [False, True])
def test_selas_labels(arrays):
    log_p = probabilities()
    PS = log_p.exp().numpy() if arrays else log_p.exp()
    optimizer = Optimizer(PS)
    before = copy.deepcopy(PS)
    selflabel.optimize_L_sk(optimizer, nh=1)
    assert (optimizer.L[0] == -1).all()
    # they end at an error, of which labels near a border depend
    same = (optimizer.L[1] == labels(log_p, 25.0)).double().mean()
    assert same > 0.99
    assert optimizer.L[1].bincount(minlength=8).min() > 10
    np.testing.assert_array_equal(np.asarray(optimizer.PS), np.asarray(before))


def test_selas_labels_where_powers_underflow():
    log_p = probabilities(240, 80)
    single = log_p.exp().float()
    # the original's first step in single precision: most of what it scales is gone
    assert float(((single**25) == 0).double().mean()) > 0.5
    optimizer = Optimizer(single)
    selflabel.optimize_L_sk(optimizer)
    assert (optimizer.L[0] == labels(log_p, 25.0, 1e-6)).double().mean() > 0.98


def test_selavis_labels_and_cost():
    log_a, log_v = probabilities(seed=1), probabilities(seed=2)
    mean = (log_a + log_v) / 2
    args = Namespace(lamb=20.0, distribution="default", rank=0)
    cost, found = selflabel.optimize_L_sk_gpu(args, (log_a + log_v).exp(), 0)
    assert found.dtype == torch.int64
    assert (found == labels(mean, 20.0)).double().mean() > 0.99
    assert cost == pytest.approx(float(-mean.gather(1, found[:, None]).mean()))


def test_bad_probabilities_are_named():
    log_p = probabilities()
    optimizer = Optimizer(log_p.exp())
    optimizer.L = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match="PS must have shape .* with the N of L, 5"):
        selflabel.optimize_L_sk(optimizer)
    with pytest.raises(ValueError, match="PS must hold probabilities"):
        selflabel.optimize_L_sk(Optimizer(log_p))
    with pytest.raises(
        ValueError, match="distribution must be 'default', got 'gauss': .*sela_labels"
    ):
        selflabel.optimize_L_sk_gpu(Namespace(lamb=20.0, distribution="gauss"), log_p.exp(), 0)


def test_selas_warns_where_it_did_not_arrive(monkeypatch):
    few = so.sela_labels
    monkeypatch.setattr(selflabel, "sela_labels", lambda *a, **k: few(*a, **k, max_iter=1))
    with pytest.warns(so.ConvergenceWarning, match="labels have their shares to .* 1 sweeps"):
        selflabel.optimize_L_sk(Optimizer(probabilities(scale=5.0).exp()))


LAYERS = {**CALLS, "megatron": megatron.sinkhorn}


@pytest.mark.parametrize("call", LAYERS.values(), ids=LAYERS)
def test_takes_arrays_and_lists(call):
    out = scores(6, 4)
    for given in (out.numpy(), out.tolist()):
        torch.testing.assert_close(call(given).float(), call(out), atol=1e-6, rtol=0)
    for bad, said in (
        (None, " must hold real numbers"),
        ("out", " must hold real numbers"),
        (3.0, r" must have shape \([BT], [KE]\), got \(\)"),
        ([1.0, 2.0], r" must have shape \([BT], [KE]\), got \(2,\)"),
        (out[0].numpy(), r" must have shape \([BT], [KE]\), got \(4,\)"),
        (out.long(), " must be floating point, got int64"),
    ):
        with pytest.raises(ValueError, match=said):
            call(bad)
