"""SeLa over data that are read block by block: the labels of the same numbers in memory."""

import math

import numpy as np
import pytest
import torch
from adapters import oracles
from torch import Tensor

import sinkhorn_ot as so


def log_probs(N: int = 5000, K: int = 12, scale: float = 3.0, dtype=torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(0)
    S = scale * torch.randn(N, K, generator=g, dtype=torch.float64)
    return torch.log_softmax(S, -1).to(dtype)


def numbered(S: Tensor):
    """Blocks in an order that changes from pass to pass."""
    passes = iter(range(1000))

    def read():
        order = torch.randperm(len(S), generator=torch.Generator().manual_seed(next(passes)))
        for part in order.split(800):
            yield part, S[part]

    return read


SOURCES = {
    "array": lambda S, _: S.numpy(),
    "memory map": lambda S, path: mapped(S, path),
    "list": lambda S, _: list(S.split(701)),
    "function": lambda S, _: lambda: (part.numpy() for part in S.split(1000)),
    "numbered": lambda S, _: numbered(S),
    "loader": lambda S, _: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.arange(len(S)), S), batch_size=999, shuffle=True
    ),
}


def mapped(S: Tensor, path) -> np.memmap:
    out = np.memmap(path / "S", S.numpy().dtype, "w+", shape=tuple(S.shape))
    out[:] = S.numpy()
    out.flush()
    return np.memmap(path / "S", S.numpy().dtype, "r", shape=tuple(S.shape))


@pytest.fixture(params=["held", "never held"])
def held(request, monkeypatch):
    if request.param == "never held":
        monkeypatch.setattr("sinkhorn_ot.problem.costs.streamed.MEMORY", 0)


@pytest.mark.slow(1)
@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("scale", [0.1, 1, 8])
@pytest.mark.parametrize("name", SOURCES)
def test_labels_are_those_of_memory(name, scale, tmp_path):
    S = log_probs(scale=scale)
    found = so.sela_labels(SOURCES[name](S, tmp_path), tol=1e-10)
    want = so.sela_labels(S, tol=1e-10)
    assert bool(found.converged)
    off = found.potentials - want.potentials
    assert float((off - off.mean()).abs().max()) < 1e-8
    assert torch.equal(found.labels, want.labels)
    assert torch.equal(found.counts, want.counts)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("scale", [0.1, 1, 8, 100])
def test_is_the_oracle(scale):
    S = log_probs(2000, 9, scale)
    found = so.sela_labels(list(S.split(333)), tol=1e-10, max_iter=5000)
    assert bool(found.converged)
    if scale <= 1:
        score = 25.0 * S + oracles.sela(S, 25.0, torch.full((9,), 1 / 9, dtype=torch.float64))
        best = score.topk(2, -1)
        clear = best.values[:, 0] - best.values[:, 1] > 1e-5
        assert torch.equal(found.labels[clear], best.indices[clear, 0])
        assert float(clear.double().mean()) > 0.95


def test_log_probabilities_down_to_minus_ten_thousand():
    S = log_probs(3000, 10, 4)
    S[::7, 3] = -1e4
    S[5, 1:] = -1e4
    for dtype in (torch.float64, torch.float32):
        found = so.sela_labels(list(S.to(dtype).split(501)), max_iter=5000)
        assert bool(found.converged)
        assert not bool((found.labels[::7] == 3).any())


def test_a_half_precision_file(tmp_path):
    S = log_probs().half()
    found = so.sela_labels(mapped(S, tmp_path))
    assert torch.equal(found.labels, so.sela_labels(S).labels)


def test_heads_in_blocks():
    S = torch.stack([log_probs(scale=s) for s in (0.5, 3.0, 6.0)])
    found, want = so.sela_labels(list(S.split(1100, 1)), tol=1e-9), so.sela_labels(S, tol=1e-9)
    assert torch.equal(found.labels, want.labels)
    assert found.potentials.shape == (3, 12)


@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_head_is_its_logits(heads, bias):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(4000, 6, generator=g).double()
    shape = (12, 6) if heads is None else (heads, 12, 6)
    W = torch.nn.Parameter(torch.randn(shape, generator=g).double())
    c = torch.randn(shape[:-1], generator=g).double() if bias else None
    logits = torch.einsum("nd,...kd->...nk", x, W.detach())
    logits = logits if c is None else logits + c[..., None, :]
    want = so.sela_labels(logits, tol=1e-9)
    for features in (x, x.numpy(), list(x.split(900))):
        found = so.sela_labels_from_features(features, W, c, tol=1e-9)
        assert torch.equal(found.labels, want.labels)


def test_features_in_half_precision_and_under_autocast():
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(3)).bfloat16()
    W = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    want = so.sela_labels(x.float() @ W.T)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(so.sela_labels_from_features(x, W).labels, want.labels)


def test_modalities_are_averaged():
    S, T = log_probs(), log_probs(scale=1.0).flip(0)
    want = so.sela_labels((S + T) / 2, lamb=20.0, tol=1e-9)
    for parts in ((S, T), (S.numpy(), T.numpy()), (list(S.split(600)), list(T.split(600)))):
        found = so.sela_labels(so.mean_log_probs(*parts), lamb=20.0, tol=1e-9)
        assert torch.equal(found.labels, want.labels)
    found = so.sela_labels(so.mean_log_probs(numbered(S), numbered(T)), lamb=20.0, tol=1e-9)
    assert torch.equal(found.labels, want.labels)
    with pytest.raises(ValueError, match="modality 0, modality 1 must come in equal blocks"):
        so.sela_labels(so.mean_log_probs(list(S.split(600)), list(T.split(500))))
    with pytest.raises(ValueError, match="modality 0, modality 1 must come in equal blocks"):
        so.sela_labels(so.mean_log_probs(list(S.split(800)), numbered(T)))
    spoiled = T.clone()
    spoiled[3, 1] = math.nan
    with pytest.raises(ValueError, match=r"modality 1 must be .* got nan at index \(3, 1\)"):
        so.sela_labels(so.mean_log_probs(S, spoiled))
    other = [(torch.arange(4999, -1, -1), T.flip(0))]
    with pytest.raises(ValueError, match="modality 0, modality 1 must come in equal blocks"):
        so.sela_labels(so.mean_log_probs([(torch.arange(5000), S)], other))
    with pytest.raises(ValueError, match="modality 0, modality 1 must come in equal blocks"):
        so.sela_labels(so.mean_log_probs([S], [T, T]))


def test_few_passes_over_data_that_are_not_held(monkeypatch):
    monkeypatch.setattr("sinkhorn_ot.problem.costs.streamed.MEMORY", 0)
    S, passes = log_probs(40_000, 16, 6.0), []

    def read():
        passes.append(1)
        return iter(S.split(5000))

    found = so.sela_labels(read, tol=1e-8)
    assert bool(found.converged)
    # a look, a sample, the labels, and twice as many Newton steps as their quadratic end needs
    assert len(passes) <= 20


def test_stopped_and_resumed():
    S, seen = log_probs(scale=8.0), []

    def twice(told: so.Progress) -> bool:
        seen.append(told.marginal_error)
        return len(seen) == 3

    stopped = so.sela_labels(S, tol=1e-9, callback=twice)
    assert len(seen) >= 3
    assert not bool(stopped.converged)
    resumed = so.sela_labels(S, tol=1e-9, init=stopped.potentials)
    assert bool(resumed.converged)
    assert torch.equal(resumed.labels, so.sela_labels(S, tol=1e-9).labels)


def test_a_stop_while_the_sample_is_solved_stops_the_whole():
    S, calls = log_probs(40_000, 16, 6.0), []
    once = lambda told: calls.append(told) or len(calls) == 1  # noqa: E731
    stopped = so.sela_labels(S, tol=1e-9, callback=once)
    assert int(stopped.n_iter) == 1
    assert not bool(stopped.converged)


@pytest.mark.slow(1)
def test_shares_by_gaussian_and_zipf():
    for shares in (so.gaussian_marginal(50, 0.1), so.zipf_marginal(50)):
        assert float(shares.sum()) == pytest.approx(1.0, abs=1e-14)
        assert bool((shares.diff() < 0).all())
        assert bool((shares > 0).all())
    sizes = so.gaussian_marginal(4001, 0.1) * 4001
    assert float(sizes.std()) == pytest.approx(0.1, rel=1e-2)
    assert bool((so.gaussian_marginal(50, 2.0) > 0).all())
    torch.testing.assert_close(so.zipf_marginal(3, 2.0), torch.tensor([36, 9, 4.0]).double() / 49)
    assert float(so.gaussian_marginal(1)) == 1.0


def test_the_largest_share_goes_to_the_largest_cluster():
    shares, sizes = torch.tensor([0.1, 0.6, 0.3]), torch.tensor([5, 1, 9])
    assert torch.equal(so.align_marginal(shares, sizes), torch.tensor([0.3, 0.1, 0.6]))
    heads = torch.tensor([[5, 1, 9], [1, 2, 3]])
    want = torch.tensor([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]])
    assert torch.equal(so.align_marginal(shares, heads), want)


def test_labels_of_aligned_shares():
    S = log_probs(4000, 6, 1.0) + torch.tensor([0, 3, 1, 2, 0.5, -1]).double()
    shares = so.zipf_marginal(6)
    sizes = torch.bincount(S.argmax(-1), minlength=6)
    want = so.sela_labels(S, marginal=so.align_marginal(shares, sizes))
    for align in (True, sizes):
        assert torch.equal(so.sela_labels(S, marginal=shares, align=align).labels, want.labels)
    assert torch.equal(want.counts.argsort(), sizes.argsort())


def test_a_schedule_is_data():
    even = so.SelaSchedule.power(100, 5, power=1)
    assert even.epochs == (0, 20, 40, 60, 80)
    for schedule in (so.SelaSchedule.power(400, 100), so.SelaSchedule.geometric(400, 100)):
        gaps = torch.tensor(schedule.epochs + (400.0,)).diff()
        assert len(gaps) == 100
        assert bool((gaps.diff() > 0).all())
    steps = so.SelaSchedule((0.0, 0.5, 1 / 3 + 2 / 3)).steps(10)
    assert steps == {0, 5, 10}
    assert so.SelaSchedule.geometric(10, 4, 1.0).epochs == (0, 2.5, 5, 7.5)


@pytest.mark.parametrize("heads", [None, 2])
def test_a_bank_keeps_labels_and_warm_starts(heads, tmp_path):
    S = log_probs() if heads is None else torch.stack([log_probs(), log_probs(scale=1.0)])
    bank = so.LabelBank(5000, 12, heads)
    assert not bank.ready
    with pytest.raises(ValueError, match="bank must be updated before it is read"):
        bank[torch.arange(3)]
    first = bank.update(S, tol=1e-9)
    assert bank.ready
    assert torch.equal(bank[torch.tensor([7, 1])], first.labels[..., [7, 1]])
    again = bank.update(S, tol=1e-8)
    assert int(again.n_iter.max()) <= 2
    torch.save(bank.state_dict(), tmp_path / "bank")
    other = so.LabelBank(5000, 12, heads)
    other.load_state_dict(torch.load(tmp_path / "bank"))
    assert other.ready
    assert torch.equal(other[:], bank[:])


def test_a_bank_in_another_order():
    S, order = log_probs(), torch.randperm(5000)
    bank = so.LabelBank(5000, 12)
    bank.update(S[order], index=order, tol=1e-9)
    assert torch.equal(bank[:], so.sela_labels(S, tol=1e-9).labels)


class Bad:
    S = log_probs(90, 4)
    nan = S.clone()
    nan[57, 2] = math.nan
    closed = S.clone()
    closed[61] = -math.inf
    no_one = S.clone()
    no_one[:, 3] = -math.inf


BAD = {
    "generator": (lambda: so.sela_labels(b for b in Bad.S.split(9)), "generator can be only once"),
    "nan": (lambda: so.sela_labels(Bad.nan.split(20)), r"below inf, got nan at index \(57, 2\)"),
    "row": (lambda: so.sela_labels(Bad.closed.split(20)), "got -inf all along row 61"),
    "column": (lambda: so.sela_labels(Bad.no_one.split(20)), "got -inf all along column 3"),
    "sizes": (
        lambda: so.sela_labels(Bad.S, align=torch.ones(3)),
        r"align must have shape \(4,\) .* got \(3,\)",
    ),
    "width": (
        lambda: so.sela_labels_from_features(torch.ones(5, 3), torch.ones(2, 4)),
        r"features must have shape \(N, 4\) to fit weight of \(2, 4\), got blocks of \(5, 3\)",
    ),
    "bias": (
        lambda: so.sela_labels_from_features(torch.ones(5, 4), torch.ones(2, 4), torch.ones(3)),
        r"bias must have shape \(2,\) to fit weight, got \(3,\)",
    ),
    "modalities": (so.mean_log_probs, "modalities must be at least one"),
    "schedule": (lambda: so.SelaSchedule((3.0, 1.0)), "epochs must rise from zero or later"),
    "early": (lambda: so.SelaSchedule((-1.0, 3.0)), "epochs must rise from zero or later"),
    "endless": (lambda: so.SelaSchedule((0.5, torch.inf)), "epochs must rise from zero or later"),
    "no schedule": (lambda: so.SelaSchedule(()), "epochs must rise from zero or later"),
    "sigma": (lambda: so.gaussian_marginal(3, 0.0), "sigma must be a finite number above zero"),
    "labels": (lambda: so.zipf_marginal(0), "K must be a whole number of at least 1"),
    "bank": (lambda: so.LabelBank(80, 4).update(Bad.S), "must fit the bank's labels"),
    "bank width": (lambda: so.LabelBank(90, 5).update(Bad.S), "must fit the bank's labels"),
    "bank index": (
        lambda: so.LabelBank(91, 4).update(Bad.S, index=torch.arange(90)),
        "index must reach every sample of the bank, 90 is missing",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_probabilities_are_told():
    p = torch.softmax(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), -1)
    for given in (p, p.half(), [p[:30], p[30:]], p.double().numpy()):
        with pytest.warns(UserWarning, match="sum to one, as probabilities do: pass their log"):
            so.sela_labels(given)
    # without a word
    so.sela_labels(p.log())
    so.sela_labels(2 * p)
    so.sela_labels(torch.zeros(40, 5))
    # one label has no other; and what has entries below zero or above one is no probability
    so.sela_labels(torch.ones(40, 1))
    so.sela_labels(torch.tensor([[0.9, 0.4, -0.3]]).repeat(40, 1))
    so.sela_labels(torch.tensor([[1.5, 0.1, -0.6]]).repeat(40, 1))


def test_a_list_that_may_hold_heads_is_told():
    heads = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"3 tensors of one shape.*torch.stack\(log_probs\)"):
        assert so.sela_labels([*heads]).labels.shape == (120,)
    assert so.sela_labels(torch.stack([*heads])).labels.shape == (3, 40)
    assert so.sela_labels(lambda: iter(heads)).labels.shape == (120,)


def test_relabelling_times_of_the_original():
    """The last of SeLa's n times, (epochs + 1.01) linspace(0, 1, n)^2, is past the end."""
    epochs, n = 400, 100
    times = (epochs + 1.01) * torch.linspace(0, 1, n, dtype=torch.float64) ** 2
    found = torch.tensor(so.SelaSchedule.power(epochs + 1.01, n - 1).epochs, dtype=torch.float64)
    torch.testing.assert_close(found, times[:-1])
    assert float(times[-1]) > epochs
