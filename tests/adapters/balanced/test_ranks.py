"""Labels in exact counts over ranks: the optimum of one process, alike everywhere, or an error."""

import pytest
import torch
from ranks import run

import sinkhorn_ot as so


pytestmark = pytest.mark.slow(12, shared=True)

# one that a sample is worth, and one of many labels too
SIZES = [(11001, 12, 3.0), (6000, 70, 1.0)]
DATA = (
    f"SIZES = {SIZES}"
    + """
import math, random

def problem(seed):
    \"\"\"A problem and the rows of each rank, some of which have none.\"\"\"
    g = torch.Generator().manual_seed(seed)
    draw = random.Random(seed)
    N, K = draw.randint(1, 90), draw.randint(1, 9)
    S = torch.randn(N, K, generator=g, dtype=torch.float64) * draw.choice([0.1, 1.0, 20.0])
    # offsets of labels, which move many samples
    S += 3 * torch.randn(K, generator=g, dtype=torch.float64) * draw.choice([0, 1])
    if seed % 5 == 1:
        S = S.round()
    if seed % 5 == 2:
        S = S[torch.randint(0, 1 + N // 9, (N,), generator=g)]
    options = {}
    if seed % 3 == 1:
        options["counts"] = torch.bincount(torch.randint(0, (K + 1) // 2, (N,)), minlength=K)
    if seed % 3 == 2:
        options["k"] = draw.randint(1, N)
    if seed % 7 == 3:
        S[torch.rand(N, K, generator=g) < 0.1] = -math.inf
        S[S.amax(1) == -math.inf, 0] = 0.0
    if seed % 11 == 5:
        keep = torch.rand(N, generator=g) < 0.8
        options = {"mask": keep}
        S[~keep] = math.nan
    if seed % 2:
        S = S.float()
    cuts = sorted(draw.randint(0, N) for _ in range(world - 1))
    return S, options, slice(([0] + cuts)[rank], (cuts + [N])[rank])

def part(options, own):
    return {name: x[own] if name == "mask" else x for name, x in options.items()}

def answer(S, options):
    try:
        return so.balanced_labels(S, **options)
    except ValueError as error:
        return str(error)

def larger(N, K, scale):
    g = torch.Generator().manual_seed(N)
    S = torch.log_softmax(scale * torch.randn(N, K, generator=g, dtype=torch.float64), -1)
    cut = [0, N // 7, N // 7][:world] + [N]
    return S, slice(cut[rank], cut[rank + 1])
"""
)

BODY = (
    DATA
    + """
said["small"] = []
for seed in range(100):
    torch.manual_seed(seed)
    S, options, own = problem(seed)
    mode = "fast" if seed % 10 == 9 else "exact"
    mine = {**part(options, own), "mode": mode, "group": group}
    said["small"].append(answer(S[own], mine))
said["large"] = []
for size in SIZES:
    S, own = larger(*size)
    K = S.shape[1]
    found = so.balanced_labels(S[own], group=group)
    some = found if K > 12 else so.balanced_labels(S[own], k=len(S) // 3, group=group)
    fast = so.balanced_labels(S[own], mode="fast", group=group)
    again = so.balanced_labels(S[own], init=found, group=group)
    said["large"].append((found, some, fast, again))
S, own = larger(*SIZES[0])
batch = torch.stack([S, -S])[:, own]
mask = torch.rand(2, len(S), generator=torch.Generator().manual_seed(1)) < 0.5
said["batch"] = so.balanced_labels(batch, mask=mask[:, own], group=group)
said["none"] = so.balanced_labels(batch, mask=mask[:, own] & False, group=group)
said["sela"] = so.sela_labels(batch, rounding="balanced", mask=mask[:, own], group=group)

bad = rank == world - 1
nan, closed, wide = S[own].clone(), S[own].clone(), S[own].clone()
if bad:
    nan[0, 3], wide[0, 3], closed[1] = math.nan, 1e306, -math.inf
shut = S[own].clone()
shut[:, 4] = -math.inf
calls = {
    "nan": lambda: so.balanced_labels(nan, group=group),
    "closed": lambda: so.balanced_labels(closed, group=group),
    "wide": lambda: so.balanced_labels(wide, group=group),
    "K": lambda: so.balanced_labels(S[own, : 12 - bad], group=group),
    "k": lambda: so.balanced_labels(S[own], k=10 + bad, group=group),
    "k too large": lambda: so.balanced_labels(S[own], k=11002, group=group),
    "mode": lambda: so.balanced_labels(S[own], mode="fast" if bad else "exact", group=group),
    "modes": lambda: so.balanced_labels(S[own], mode="quick" if bad else "exact", group=group),
    "counts": lambda: so.balanced_labels(S[own], [11001 - bad, *[0] * 10, +bad], group=group),
    "sum": lambda: so.balanced_labels(S[own], [11000, *[0] * 11], group=group),
    "some counts": lambda: so.balanced_labels(
        S[own], None if bad else [11001, *[0] * 11], group=group
    ),
    "init": lambda: so.balanced_labels(S[own], init=torch.zeros(12) + bad, group=group),
    "dtype": lambda: so.balanced_labels(S[own].float() if bad else S[own], group=group),
    "mask": lambda: so.balanced_labels(
        S[own], mask=torch.ones(len(nan)) > 0 if bad else None, group=group
    ),
    "batch": lambda: so.balanced_labels(S[own][None] if bad else S[own], group=group),
    "shut": lambda: so.balanced_labels(shut, group=group),
    "impossible": lambda: so.balanced_labels(
        torch.where(torch.arange(12) < 3, S[own], -math.inf).clone(), group=group
    ),
    "empty": lambda: so.balanced_labels(S[:0], group=group),
    "type": lambda: so.balanced_labels("scores" if bad else S[own], group=group),
    "no group": lambda: so.balanced_labels(S[own], group="all"),
}
said["refused"] = {name: refused(call) for name, call in calls.items()}
# and after all that the group still works
said["after"] = so.balanced_labels(S[own], group=group).value
"""
)


@pytest.fixture(scope="module", params=[3])
def said(request):
    return run(request.param, BODY)


def alone(name, *arguments):
    scope = {"torch": torch, "so": so, "world": 1, "rank": 0}
    exec(DATA, scope)
    return scope[name](*arguments)


def alike(answers):
    """What every rank is told is the same to the last bit."""
    for other in answers[1:]:
        for name in ("counts", "value", "gap", "potentials"):
            assert torch.equal(getattr(other, name), getattr(answers[0], name))


def check(answers, S, want, exact=True):
    """One process's optimum, and a proof of it."""
    alike(answers)
    found, labels = answers[0], torch.cat([answer.labels for answer in answers], -1)
    here = labels >= 0
    K = S.shape[-1]
    assert torch.equal(torch.bincount(labels[here], minlength=K), found.counts)
    assert int(found.counts.sum()) == int(want.counts.sum())
    value = S.double()[here, labels[here]].sum()
    scale = max(1.0, float(S[here][S[here].isfinite()].abs().sum()))
    assert abs(float(found.value - value)) <= 1e-13 * scale
    if exact:
        assert abs(float(found.value - want.value)) <= 1e-12 * scale
        assert abs(float(found.gap)) <= 1e-11 * scale
    else:
        assert float(found.value) <= float(want.bound) + 1e-12 * scale
        assert float(want.value) <= float(found.bound) + 1e-12 * scale


def test_a_hundred_problems_have_the_optimum_of_one_process(said):
    refused = 0
    for seed in range(100):
        torch.manual_seed(seed)
        S, options, _ = alone("problem", seed)
        mode = "fast" if seed % 10 == 9 else "exact"
        want = alone("answer", S, {**options, "mode": mode})
        answers = [rank["small"][seed] for rank in said]
        if isinstance(want, str):
            # which sample is named depends on where it is
            assert all(isinstance(other, str) for other in answers)
            assert len({other[:30] for other in answers} | {want[:30]}) == 1
            refused += 1
        else:
            check(answers, S, want, mode == "exact")
    assert refused < 10


def test_problems_worth_a_sample(said):
    for at, size in enumerate(SIZES):
        S, _ = alone("larger", *size)
        exact = so.balanced_labels(S)
        found, some, fast, again = zip(*(rank["large"][at] for rank in said), strict=True)
        check(found, S, exact)
        check(again, S, exact)
        check(some, S, so.balanced_labels(S, k=len(S) // 3) if size[1] == 12 else exact)
        check(fast, S, exact, exact=False)
        assert float(fast[0].gap) < 0.1 * float(exact.value.abs())


def test_batches_masks_and_sela(said):
    S, _ = alone("larger", *SIZES[0])
    mask = torch.rand(2, len(S), generator=torch.Generator().manual_seed(1)) < 0.5
    answers = [rank["batch"] for rank in said]
    alike(answers)
    labels = torch.cat([answer.labels for answer in answers], -1)
    sela = torch.cat([rank["sela"].labels for rank in said], -1)
    for at, one in enumerate((S, -S)):
        want = so.balanced_labels(one[mask[at]])
        assert float(answers[0].value[at]) == pytest.approx(float(want.value), rel=1e-12)
        assert torch.equal(answers[0].counts[at].sort().values, want.counts.sort().values)
        assert bool((labels[at, ~mask[at]] == -1).all())
        assert torch.equal(labels[at, mask[at]] >= 0, torch.ones(len(want.labels)) > 0)
        kept = sela[at, mask[at]]
        assert float(one[mask[at], kept].sum()) == pytest.approx(float(want.value), rel=1e-12)
        assert torch.equal(said[0]["sela"].counts[at], torch.bincount(kept, minlength=12))
    for rank in said:
        assert bool((rank["none"].labels == -1).all())
        assert rank["none"].value.tolist() == rank["none"].gap.tolist() == [0.0, 0.0]


SAME = "must be the same on every rank of the group, got"
LAST = "on rank {last} of the group"
MESSAGES = {
    "nan": "ValueError: scores must be a number below inf, got nan at index (0, 3), " + LAST,
    "closed": "scores must allow every sample some label, got -inf all along row 1, " + LAST,
    "wide": "to hold the sum of 11001 of them, got 1e+306 at index (0, 3), " + LAST,
    "K": f"K {SAME} 12 on rank 0 and 11 on rank",
    "k": f"k {SAME} 10 on rank 0 and 11 on rank",
    "k too large": "k must be at most the 11001 samples, got 11002",
    "mode": f"mode {SAME} exact on rank 0 and fast on rank",
    "modes": "mode must be one of 'exact', 'fast', got 'quick', " + LAST,
    "counts": f"counts {SAME} [11001, 0",
    "sum": "counts must sum to the 11001 samples, got a sum of 11000: k=11000 leaves",
    "some counts": f"counts {SAME} [11001, 0",
    "init": f"init {SAME} [0.0, 0.0",
    "dtype": f"dtype of scores {SAME} torch.float64 on rank 0 and torch.float32 on rank",
    "mask": f"whether there is a mask {SAME} False on rank 0 and True on rank",
    "batch": f"leading dimensions of scores {SAME} () on rank 0 and (1,) on rank",
    "shut": "but label 4 must have 916 samples and none may take it",
    "impossible": "but label 3 must have 916 samples and none may take it",
    "empty": "scores must not be empty, got shape (0, 12)",
    "type": "scores must hold real numbers, got dtype <U6, " + LAST,
    "no group": "group must be a torch.distributed process group",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_wrong_on_one_rank_is_an_error_on_all(said, name):
    for rank in said:
        assert MESSAGES[name].format(last=len(said) - 1) in rank["refused"][name]
    assert len({rank["refused"][name] for rank in said}) == 1


def test_the_group_survives_them(said):
    S, _ = alone("larger", *SIZES[0])
    want = float(so.balanced_labels(S).value)
    assert [float(rank["after"]) for rank in said] == pytest.approx([want] * len(said), rel=1e-12)
