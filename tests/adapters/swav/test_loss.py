"""SwAV's queue, its loss, and codes straight from features."""

import copy
import math
import re

import pytest
import torch
from adapters import oracles
from adapters.oracles import total_variation
from torch import Tensor
from torch.nn.functional import normalize

import sinkhorn_ot as so
from sinkhorn_ot.adapters.swav import features


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosines(z: Tensor, C: Tensor) -> Tensor:
    return normalize(z.double(), dim=-1) @ normalize(C.double(), dim=-1).mT


def full_queue(length: int, dim: int = 16) -> so.SwAVQueue:
    queue = so.SwAVQueue(length, dim)
    queue.push(normalize(randn(length, dim, seed=3), dim=-1))
    return queue


def held(queue: so.SwAVQueue) -> set[float]:
    """What a queue of one-dimensional features holds, in any order."""
    return set(queue.features[:, 0].tolist())


def test_codes_from_features_are_those_of_their_cosines():
    z, C = randn(64, 16) * 7, randn(10, 16, seed=1)
    Q = so.swav_codes_from_features(z, C)
    assert total_variation(Q, oracles.swav_codes(cosines(z, C), 0.05, 3)) < 5e-6
    both = so.swav_codes_from_features(torch.stack([z, -z]), C, eps=0.1)
    torch.testing.assert_close(both[1], so.swav_codes_from_features(-z, C, eps=0.1))


def test_a_ready_queue_stands_in_front_and_is_rescored():
    z, C, queue = randn(8, 16), randn(10, 16, seed=1), full_queue(56)
    for prototypes in (C, randn(10, 16, seed=2)):
        oracle = oracles.swav_codes(cosines(torch.cat([queue.features, z]), prototypes), 0.05, 3)
        Q = so.swav_codes_from_features(z, prototypes, queue)
        assert Q.shape == (8, 10)
        assert total_variation(Q, oracle[56:]) < 5e-6


def test_a_queue_is_only_read():
    queue = full_queue(20)
    before = copy.deepcopy(queue.state_dict())
    so.swav_codes_from_features(randn(8, 16), randn(10, 16), queue)
    assert torch.equal(queue.features, before["features"])
    assert queue.get_extra_state() == before["_extra_state"]


def test_a_queue_that_is_not_full_is_left_out():
    z, C, queue = randn(8, 16), randn(10, 16, seed=1), so.SwAVQueue(20, 16)
    queue.push(randn(19, 16))
    assert not queue.ready
    alone = so.swav_codes_from_features(z, C)
    assert torch.equal(so.swav_codes_from_features(z, C, queue), alone)
    queue.push(randn(1, 16))
    assert queue.ready
    assert not torch.equal(so.swav_codes_from_features(z, C, queue), alone)


def test_a_mask_with_a_queue_is_that_of_the_batch():
    z, C, queue = randn(8, 16), randn(10, 16, seed=1), full_queue(20)
    mask = torch.arange(8) < 5
    Q = so.swav_codes_from_features(z, C, queue, mask=mask)
    torch.testing.assert_close(Q[:5], so.swav_codes_from_features(z[:5], C, queue))
    assert bool((Q[5:] == 0).all())


def test_half_precision_and_autocast():
    z, C, queue = randn(8, 16).half(), randn(10, 16, seed=1).half(), full_queue(20).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Q = so.swav_codes_from_features(z, C, queue)
    assert Q.dtype == torch.float32
    scores = cosines(torch.cat([queue.features, z]), C)
    assert total_variation(Q, oracles.swav_codes(scores, 0.05, 3)[20:]) < 5e-6


@pytest.mark.parametrize("batches", [[1] * 9, [3, 3, 3], [2, 5, 4], [6, 1], [7], [13, 2], [5, 17]])
def test_a_queue_keeps_the_newest(batches):
    queue, pushed = so.SwAVQueue(6, 1), []
    for size in batches:
        new = [float(len(pushed) + i + 1) for i in range(size)]
        pushed += new
        queue.push(torch.tensor(new)[:, None])
        assert queue.ready == (len(pushed) >= 6)
        newest = set(pushed[-6:])
        assert held(queue) == (newest if queue.ready else newest | {0.0})


def test_a_queue_is_restored_from_its_checkpoint(tmp_path):
    queue, other = so.SwAVQueue(6, 2), so.SwAVQueue(6, 2)
    queue.push(randn(4, 2))
    torch.save(torch.nn.ModuleList([queue]).state_dict(), tmp_path / "queue.pt")
    torch.nn.ModuleList([other]).load_state_dict(torch.load(tmp_path / "queue.pt"))
    for q in (queue, other):
        q.push(randn(3, 2, seed=1))
    assert other.ready
    assert torch.equal(queue.features, other.features)
    assert "length=6, dim=2, held=6" in repr(other)


def test_an_empty_push_changes_nothing():
    queue = full_queue(6, 2)
    before = queue.features.clone()
    queue.push(torch.empty(0, 2))
    assert torch.equal(queue.features, before)


def test_features_that_require_grad_are_pushed_as_constants():
    queue = so.SwAVQueue(4, 2)
    queue.push(randn(4, 2).requires_grad_() * 2)
    assert not queue.features.requires_grad


def test_prototypes_are_normalised_in_place():
    layer = torch.nn.Linear(16, 10, bias=False)
    direction = normalize(layer.weight.detach(), dim=1)
    so.normalize_prototypes_(layer.weight)
    torch.testing.assert_close(layer.weight.detach(), direction)
    assert layer.weight.requires_grad


def crops(V: int = 4, B: int = 24, K: int = 6) -> list[Tensor]:
    return [cosines(randn(B, 16, seed=v), randn(K, 16, seed=99)).float() for v in range(V)]


@pytest.mark.parametrize("assign", [(0, 1), (1,), (2, 0, 3)])
def test_the_loss_is_the_formula(assign):
    S = crops()
    codes = [so.swav_codes(S[t]) for t in assign]
    loss = so.swapped_prediction_loss(S, codes, temperature=0.1, assign=assign)
    assert float(loss) == pytest.approx(oracles.swapped_prediction(S, codes, 0.1, assign), rel=1e-6)
    whole = so.SwAVLoss(assign=assign)
    assert float(whole(S)) == pytest.approx(float(loss), rel=1e-6)
    assert float(whole(torch.stack(S))) == pytest.approx(float(loss), rel=1e-6)


def test_codes_are_constants_and_every_crop_that_predicts_has_a_gradient():
    S = [x.double().requires_grad_() for x in crops(V=3)]
    so.SwAVLoss()(S).backward()
    codes = [so.swav_codes(x) for x in S[:2]]
    given = [x.detach().requires_grad_() for x in S]
    so.swapped_prediction_loss(given, codes).backward()
    for x, y in zip(S, given, strict=True):
        assert x.grad is not None
        assert float(x.grad.abs().max()) > 0
        torch.testing.assert_close(x.grad, y.grad)
    assert torch.autograd.gradcheck(
        lambda a, b, c: so.swapped_prediction_loss([a, b, c], codes), tuple(given)
    )


def test_half_precision_scores_give_a_loss_in_single():
    S = [x.bfloat16().requires_grad_() for x in crops()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = so.SwAVLoss()(S)
    assert loss.dtype == torch.float32
    single = so.SwAVLoss()([x.detach().float() for x in S])
    assert float(loss.detach()) == pytest.approx(float(single), rel=5e-3)
    loss.backward()
    assert S[0].grad is not None
    assert S[0].grad.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_codes_of_half_precision_scores_are_not_rounded(dtype):
    """The gradient is (softmax - code) / (2 B tau), in the precision of neither."""
    S = [x.to(dtype) for x in crops(V=2)]
    seen, leaf = [], [x.float().requires_grad_() for x in S]
    # what the loss reads in half precision, with a derivative in single
    half = [x.to(dtype) for x in leaf]
    for x in half:
        x.register_hook(seen.append)
    so.SwAVLoss()(half).backward()
    codes = [oracles.swav_codes(x, 0.05, 3) for x in S]
    for x, code, got in zip(S, reversed(codes), reversed(seen), strict=True):
        want = (torch.softmax(x.double() / 0.1, -1) - code) / (2 * len(x) * 0.1)
        # rounded once, to the dtype of the scores
        assert float((got.double() - want).abs().max()) < 1e-2 * float(want.abs().max())
    exact = so.swapped_prediction_loss([x.double() for x in S], codes)
    assert float(so.SwAVLoss()(S)) == pytest.approx(float(exact), rel=1e-6)


def test_the_loss_reads_its_queues_and_then_pushes():
    C, z = randn(6, 16, seed=99), torch.stack([randn(24, 16, seed=v) for v in range(3)])
    C, z = normalize(C, dim=-1), normalize(z, dim=-1)
    S = cosines(z, C).float()
    queues = [full_queue(30), full_queue(30)]
    queues[1].push(normalize(randn(30, 16, seed=5), dim=-1))
    before = [q.features.clone() for q in queues]
    loss = so.SwAVLoss(queues=queues)
    found = loss(S, z, C)
    codes = [
        oracles.swav_codes(cosines(torch.cat([old, z[t]]), C), 0.05, 3)[30:]
        for t, old in enumerate(before)
    ]
    assert float(found) == pytest.approx(oracles.swapped_prediction(list(S), codes, 0.1, (0, 1)))
    for t, q in enumerate(queues):
        assert torch.equal(torch.cat([z[t], before[t][24:]]), q.features)
    assert sorted(loss.state_dict()) == sorted(
        f"queues.{t}.{name}" for t in range(2) for name in ("features", "_extra_state")
    )


def test_a_queue_is_scored_as_the_batch_is():
    """By the layer's product: half of the batch in the queue is the whole batch."""
    layer, z = torch.nn.Linear(16, 6, bias=False), 0.3 * randn(2, 48, 16)
    S = [layer(x).detach() for x in z]
    queues = [so.SwAVQueue(24, 16), so.SwAVQueue(24, 16)]
    for queue, x in zip(queues, z, strict=True):
        queue.push(x[:24])
    found = so.SwAVLoss(queues=queues)([s[24:] for s in S], z[:, 24:], layer.weight)
    codes = [so.swav_codes(s)[24:] for s in S]
    want = so.swapped_prediction_loss([s[24:] for s in S], codes)
    assert float(found) == pytest.approx(float(want), rel=1e-6)


def test_queues_rest_without_features_and_in_evaluation():
    C, z = randn(6, 16, seed=99), torch.stack([randn(24, 16, seed=v) for v in range(3)])
    S = cosines(z, C).float()
    queues = [so.SwAVQueue(30, 16), so.SwAVQueue(30, 16)]
    loss = so.SwAVLoss(queues=queues)
    plain = float(so.SwAVLoss()(S))
    assert float(loss(S)) == plain
    assert float(loss.eval()(S, z, C)) == plain
    assert not any(q.features.any() for q in queues)
    assert float(loss.train()(S, z, C)) == plain
    assert all(q.features.any() for q in queues)


def test_heads_of_prototypes_are_averaged():
    C = [normalize(randn(K, 16, seed=90 + K), dim=-1) for K in (6, 9, 4)]
    z = [normalize(randn(24, 16, seed=v), dim=-1).requires_grad_() for v in range(3)]
    S = [[x @ c.mT for x in z] for c in C]
    loss = so.SwAVLoss()(S)
    each = [so.SwAVLoss()(head) for head in S]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    want = [
        oracles.swapped_prediction(
            [x.detach() for x in head],
            [oracles.swav_codes(x.detach(), 0.05, 3) for x in head[:2]],
            0.1,
            (0, 1),
        )
        for head in S
    ]
    assert float(loss.detach()) == pytest.approx(sum(want) / 3, rel=1e-6)
    loss.backward()
    assert all(x.grad is not None for x in z)
    # heads of stacked crops, and one head as a list
    stacked = [torch.stack(head) for head in S]
    torch.testing.assert_close(so.SwAVLoss()(stacked), loss)
    torch.testing.assert_close(so.SwAVLoss()([S[0]]), each[0])


@pytest.mark.parametrize("shape", [(6, 16), (7,), (1, 7, 16)], ids=str)
def test_prototypes_of_another_number_than_scores_are_named(shape):
    z = torch.stack([normalize(randn(24, 16, seed=v), dim=-1) for v in range(2)])
    S = [x @ randn(7, 16).mT for x in z]
    loss, other = so.SwAVLoss(queues=[full_queue(30), full_queue(30)]), torch.ones(shape)
    said = rf"must be \(7, D\), a row for each score, got {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=f"prototypes {said}"):
        loss(S, z, other)
    with pytest.raises(ValueError, match=rf"prototypes\[1\] {said}"):
        loss([S, S], z, [torch.ones(7, 16), other])


def test_heads_share_the_queues():
    C = [normalize(randn(K, 16, seed=90 + K), dim=-1) for K in (6, 9)]
    z = torch.stack([normalize(randn(24, 16, seed=v), dim=-1) for v in range(3)])
    queues = [full_queue(30), full_queue(30)]
    before = [q.features.clone() for q in queues]
    found = so.SwAVLoss(queues=queues)([[x @ c.mT for x in z] for c in C], z, C)
    want = []
    for c in C:
        codes = [
            oracles.swav_codes(torch.cat([old, z[t]]) @ c.mT, 0.05, 3)[30:]
            for t, old in enumerate(before)
        ]
        want.append(oracles.swapped_prediction([x @ c.mT for x in z], codes, 0.1, (0, 1)))
    assert float(found) == pytest.approx(sum(want) / 2, rel=1e-6)
    # pushed once
    for t, q in enumerate(queues):
        assert torch.equal(torch.cat([z[t], before[t][24:]]), q.features)


HEADS = {
    "other crops": ([crops(V=3), crops(V=2)], None, r"as many crops in every head, got \[3, 2\]"),
    "one crop": ([crops(V=1), crops(V=1)], None, "each of two crops or more"),
    "too few prototypes": ([crops(), crops()], randn(6, 16), "prototypes must be one per head, 2"),
    "nan": (
        [crops(), [x * math.nan for x in crops()]],
        None,
        r"scores\[1\]\[0\] must be finite, got nan at index \(0, 0\)",
    ),
    "numbers": ([1.0, 2.0], None, "scores must be floating-point tensors, got float at index 0"),
    "integers": ([torch.ones(3, 4).long()] * 2, None, "floating-point tensors, got torch.int64"),
    "words": ("scores", None, "scores must be tensors, one for each crop, got str"),
    "nothing": (None, None, "scores must be tensors, one for each crop, got NoneType"),
    "none at all": ([], None, "each of two crops or more, got"),
    "nested words": ([["a", "b"]], None, "floating-point tensors, got str at index 0"),
}


@pytest.mark.parametrize("name", HEADS)
def test_bad_heads_are_refused(name):
    scores, prototypes, message = HEADS[name]
    features = None if prototypes is None else [randn(24, 16)] * 4
    with pytest.raises(ValueError, match=message):
        so.SwAVLoss()(scores, features, prototypes)


def test_a_whole_step_of_training_makes_the_loss_smaller():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16))
    prototypes = torch.nn.Linear(16, 5, bias=False)
    loss = so.SwAVLoss(queues=[so.SwAVQueue(64, 16), so.SwAVQueue(64, 16)])
    weights = [*net.parameters(), *prototypes.parameters()]
    optimizer, x, losses = torch.optim.SGD(weights, lr=0.3), torch.randn(32, 8), []
    for _ in range(30):
        so.normalize_prototypes_(prototypes.weight)
        views = [x + 0.1 * torch.randn(32, 8) for _ in range(3)]
        z = [normalize(net(v)) for v in views]
        found = loss([prototypes(f) for f in z], z, prototypes.weight)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        losses.append(float(found.detach()))
    assert losses[-1] < losses[0] - 0.2


def with_entry(value: float) -> Tensor:
    z = randn(8, 16)
    z[2, 3] = value
    return z


FEATURES = {
    "nan": ({"features": with_entry(math.nan)}, r"features must be finite, got nan.*\(2, 3\)"),
    "vector": ({"features": torch.ones(16)}, r"features must have shape \(..., N, D\)"),
    "width": ({"features": torch.ones(8, 15)}, r"prototypes must have shape \(K, 15\).*\(10, 16\)"),
    "no prototypes": ({"prototypes": torch.ones(0, 16)}, "prototypes must not be empty"),
    "prototypes nan": (
        {"prototypes": randn(10, 16) * math.nan},
        r"prototypes must be finite, got nan at index \(0, 0\)",
    ),
    "queue of another width": (
        {"queue": full_queue(9, 12)},
        "queue must hold features of width 16, got a queue of width 12",
    ),
    "batches with a queue": (
        {"features": torch.ones(2, 8, 16), "queue": full_queue(9)},
        r"features must have shape \(N, D\) with a queue, got \(2, 8, 16\)",
    ),
    "mask with a queue": (
        {"queue": full_queue(9), "mask": torch.ones(9) > 0},
        r"mask must have shape \(8,\)",
    ),
    "prototypes elsewhere": (
        {"prototypes": torch.ones(10, 16, device="meta")},
        r"prototypes must be on the device of features \(cpu\), got meta",
    ),
    "no option": ({"epsilon": 0.1}, "epsilon"),
    "nan that counts": (
        {"features": with_entry(math.nan), "mask": torch.arange(8) > 1},
        r"features must be finite, got nan at index \(2, 3\)",
    ),
    "no queue": ({"queue": [full_queue(9)]}, "queue must be a SwAVQueue or None, got list"),
    "a class": ({"queue": so.SwAVQueue}, "queue must be a SwAVQueue or None, got type"),
}


@pytest.mark.parametrize("with_queue", [False, True])
@pytest.mark.parametrize("n_iter", [3, None])
def test_features_that_a_mask_leaves_out_may_hold_anything(with_queue, n_iter):
    z, C, mask = randn(8, 16), randn(10, 16, seed=1), torch.arange(8) % 3 > 0
    z[~mask] = torch.tensor([math.nan, math.inf, 1e30])[:, None]
    queue = full_queue(20) if with_queue else None
    Q = so.swav_codes_from_features(z, C, queue, mask=mask, n_iter=n_iter)
    want = so.swav_codes_from_features(z[mask], C, queue, n_iter=n_iter)
    torch.testing.assert_close(Q[mask], want, atol=1e-6, rtol=1e-5)
    assert bool((Q[~mask] == 0).all())
    if not with_queue:
        both, masks = torch.stack([z, z.nan_to_num(0.1, 0.1)]), torch.stack([mask, mask ^ True])
        Q = so.swav_codes_from_features(both, C, mask=masks, n_iter=n_iter)
        torch.testing.assert_close(Q[0, mask], want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", FEATURES)
def test_bad_features_are_refused(name):
    arguments, message = FEATURES[name]
    error = TypeError if name == "no option" else ValueError
    with pytest.raises(error, match=message):
        so.swav_codes_from_features(
            **{"features": randn(8, 16), "prototypes": randn(10, 16)} | arguments
        )


QUEUE = {
    "width": (torch.ones(3, 4), r"features must have shape \(B, 5\), got \(3, 4\)"),
    "vector": (torch.ones(5), r"features must have shape \(..., N, D\), got \(5,\)"),
    "inf": (torch.full((3, 5), math.inf), r"features must be finite, got inf at index \(0, 0\)"),
    "elsewhere": (torch.ones(3, 5, device="meta"), "features must be on the device of the queue"),
}


@pytest.mark.parametrize("name", QUEUE)
def test_a_queue_refuses(name):
    queue = so.SwAVQueue(7, 5)
    with pytest.raises(ValueError, match=QUEUE[name][1]):
        queue.push(QUEUE[name][0])
    assert not queue.features.any()


BAD = {
    "one crop": ({"scores": crops(V=1)}, "each of two crops or more"),
    "vectors": ({"scores": [torch.ones(3)] * 2}, r"scores must be \(B, K\)"),
    "shapes": ({"scores": [torch.ones(3, 4), torch.ones(2, 4)]}, r"got \(2, 4\) at index 1"),
    "codes": ({"codes": [torch.ones(24, 6)]}, "codes must be one per assign crop, 2, got 1"),
    "code shape": ({"codes": [torch.ones(24, 6), torch.ones(2, 6)]}, r"codes.*\(2, 6\) at index 1"),
    "assign twice": ({"assign": (1, 1)}, r"different crops below 4.*got \(1, 1\)"),
    "assign beyond": ({"assign": (0, 4)}, r"different crops below 4.*got \(0, 4\)"),
    "assign nothing": ({"assign": ()}, "assign must be different crops"),
    "temperature": ({"temperature": 0}, "temperature must be a finite number above zero, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_loss_is_refused(name):
    arguments, message = BAD[name]
    given = {"scores": crops(), "codes": [so.swav_codes(x) for x in crops()[:2]]} | arguments
    with pytest.raises(ValueError, match=message):
        so.swapped_prediction_loss(given.pop("scores"), given.pop("codes"), **given)


def test_the_loss_says_what_its_queues_need():
    with pytest.raises(ValueError, match="queues must be one per assign crop, 2, or none, got 1"):
        so.SwAVLoss(queues=[so.SwAVQueue(3, 2)])
    for wrong, kind in ((3, "int"), (["a", "b"], "str"), ([so.SwAVQueue] * 2, "type")):
        with pytest.raises(ValueError, match=f"queues must be SwAVQueues, got {kind}"):
            so.SwAVLoss(queues=wrong)  # type: ignore[arg-type]
    loss = so.SwAVLoss(queues=[so.SwAVQueue(3, 16), so.SwAVQueue(3, 16)])
    with pytest.raises(ValueError, match="features must come with prototypes"):
        loss(crops(), [randn(24, 16)] * 4)
    with pytest.raises(ValueError, match="one for each crop of scores, got 2 for 4"):
        loss(crops(), [randn(24, 16)] * 2, randn(6, 16))


@pytest.mark.parametrize(
    ("assign", "message"),
    [
        (None, "assign must be the numbers of crops, as in .0, 1., got NoneType"),
        (0, "assign must be the numbers of crops.*got int"),
        ("01", "assign must be the numbers of crops.*got str"),
        ((0, -1), "assign must be a whole number of at least 0, got -1"),
        ((0, "1"), "assign must be a whole number of at least 0, got '1'"),
        ((1, 1), r"assign must be different crops, got \(1, 1\)"),
        ((), r"assign must be different crops, got \(\)"),
    ],
)
def test_the_loss_says_what_its_crops_must_be(assign, message):
    with pytest.raises(ValueError, match=message):
        so.SwAVLoss(assign=assign)


def test_normalising_needs_a_matrix():
    with pytest.raises(ValueError, match=r"shape \(K, D\), got \(3,\)"):
        so.normalize_prototypes_(torch.ones(3))
    with pytest.raises(ValueError, match=r"weight must be a strided tensor, got layout .*coo"):
        so.normalize_prototypes_(torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="got Linear"):
        so.normalize_prototypes_(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("with_queue", [False, True])
def test_many_scores_are_not_stored_where_kernels_serve(with_queue, monkeypatch):
    # on a CPU the operator is eager code, which means the same
    monkeypatch.setattr(features, "has_kernels", lambda t: True)
    monkeypatch.setattr(features, "_cosines", None)
    monkeypatch.setattr(features, "_MANY", 1)
    z, C, held = randn(9, 16), randn(10, 16), randn(20, 16)
    queue = so.SwAVQueue(20, 16)
    queue.push(held)
    both = torch.cat([held, z]) if with_queue else z
    x, y = (torch.nn.functional.normalize(t.double(), dim=-1) for t in (both, C))
    truth = oracles.swav_codes(x @ y.mT, 0.1, 2)[-9:]
    options = dict(eps=0.1, n_iter=2)
    got = so.swav_codes_from_features(z, C, queue if with_queue else None, **options)
    assert oracles.total_variation(got, truth) < 1e-6
    hard = so.swav_codes_from_features(z[None].half(), C, hard=True, mask=None, **options)
    assert hard.shape == (1, 9, 10)
    assert hard.dtype == torch.float32
    mask = torch.arange(9) % 3 > 0
    keep = torch.cat([torch.ones(20, dtype=torch.bool), mask]) if with_queue else mask
    truth = oracles.swav_codes(x @ y.mT, 0.1, 2, keep)[-4:]
    some = so.swav_codes_from_features(
        z, C, queue if with_queue else None, mask=mask, last=4, **options
    )
    assert oracles.total_variation(some, truth) < 1e-6
    with pytest.raises(ValueError, match="eps"):
        so.swav_codes_from_features(z, C, eps=0)


def test_few_scores_are_stored():
    z, C = randn(9, 16), randn(10, 16)
    assert not features._worth_it(z, C, None, {})


def test_last_rows_of_the_batch_behind_a_queue():
    z, C, queue = randn(8, 16), randn(10, 16, seed=1), full_queue(56)
    every = so.swav_codes_from_features(z, C, queue)
    last = so.swav_codes_from_features(z, C, queue, last=3)
    torch.testing.assert_close(last, every[5:], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="last must be at most the batch, 8, got 9"):
        so.swav_codes_from_features(z, C, queue, last=9)


@pytest.mark.parametrize("length", [1e-30, 1e-13, 1e18, 1e37])
def test_features_of_any_length(length):
    """Cosines do not see it, also where the square of a length leaves the format."""
    z, C = randn(8, 16), randn(10, 16, seed=1)
    Q = so.swav_codes_from_features(z, C)
    scaled = so.swav_codes_from_features(length * z, C / length)
    torch.testing.assert_close(scaled, Q, atol=1e-6, rtol=0)
