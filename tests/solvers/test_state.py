"""States are selected whole: whatever a run remembers of its problems goes with them."""

import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot import testing
from sinkhorn_ot.problem import make
from sinkhorn_ot.solve.checkpoints import file
from sinkhorn_ot.solvers import Iterate
from sinkhorn_ot.solvers.state import State, taken, told
from sinkhorn_ot.solvers.steps import answer, column_error
from sinkhorn_ot.sweeps import Sweep
from sinkhorn_ot.sweeps.reference import Reference


class Everything(State):
    def __init__(self) -> None:
        self.tensor, self.nothing, self.number, self.options = (
            torch.arange(4.0),
            None,
            3,
            so.Plain(),
        )
        self.pair = torch.arange(4.0) + 10, torch.arange(8.0).view(4, 2)
        self.inner = Inner()


class Inner(State):
    def __init__(self) -> None:
        self.tensor = torch.arange(4.0) + 20


def test_what_a_state_holds_is_selected_and_the_old_one_stays() -> None:
    whole = Everything()
    few = whole.select(torch.tensor([3, 1]))
    assert few.tensor.tolist() == [3, 1]
    assert [t.tolist() for t in few.pair] == [[13, 11], [[6, 7], [2, 3]]]
    assert few.inner.tensor.tolist() == [23, 21]
    assert (few.nothing, few.number, few.options) == (None, 3, so.Plain())
    assert len(whole.tensor) == len(whole.inner.tensor) == 4


def test_what_a_gpu_holds_of_a_run_is_told_and_taken() -> None:
    steps = pytest.importorskip("sinkhorn_ot.kernels.steps")

    def begun():
        b, a = torch.full((2, 5), 0.2), torch.full((2, 7), 1 / 7)
        relaxed = steps.Relaxed(a, torch.ones(2), (1.0, 0.5), torch.float32)
        return steps.Run(b, relaxed, memory=4, growth=2.0, wait=4, begin=0.1)

    run = begun()
    run._known.fill_(3.0)
    run._held.zero_()
    memory = file.unpacked(file.packed(told(run)), torch.device("cpu"))
    other = taken(memory, begun())
    assert type(other) is type(run)
    assert torch.equal(other._known, run._known)
    assert torch.equal(other._held, run._held)
    assert type(other._relaxed) is steps.Relaxed
    assert other._relaxed[2:] == run._relaxed[2:]
    assert other._rules == run._rules


def test_what_cannot_be_told_is_refused() -> None:
    state = Everything()
    state.options = print  # type: ignore[assignment]
    with pytest.raises(ValueError, match="got a builtin_function_or_method"):
        told(state)
    memory = told(Everything()) | {"kind": "Nobody's"}
    with pytest.raises(ValueError, match="holds a Nobody's"):
        taken(memory)


def test_what_would_be_forgotten_is_refused() -> None:
    state = Everything()
    state.options = [torch.arange(4.0)]  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="a state holds tensors, tuples and states"):
        state.select(torch.tensor([0]))


@pytest.mark.parametrize("acceleration", [so.Anderson(), so.Nesterov(), so.Newton(), so.Switch()])
def test_no_tensor_of_a_run_keeps_a_problem_that_has_left(acceleration) -> None:
    """Each has as many problems as are left: seen by their sizes, which nothing else here has."""

    def tensors(value) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        parts = value if isinstance(value, tuple) else getattr(value, "__dict__", {}).values()
        return [t for part in parts for t in tensors(part)]

    state = acceleration.start(torch.rand(11, 7).double())
    before = tensors(state)
    after = tensors(state.select(torch.tensor([0, 4, 5])))
    assert before
    assert len(after) == len(before)
    assert all(11 in t.shape for t in before)
    assert all(3 in t.shape and 11 not in t.shape for t in after)


@pytest.mark.parametrize(
    "acceleration",
    [so.Plain(), so.Nesterov(), so.Anderson(begin=10.0), so.Newton(), so.Newton(direct=0)],
    ids=str,
)
def test_problems_that_are_selected_step_on_as_if_all_were_there(acceleration) -> None:
    drawn = [testing.random(9, 7, seed=k) for k in range(5)]
    C, a, b = (torch.stack([getattr(p, name) for p in drawn]) for name in ("cost", "a", "b"))
    p = make(C, a, b, 0.05)
    sweep: Sweep = Reference(p)
    steps, psi, kept = acceleration.start(p.b), torch.zeros_like(p.b), torch.tensor([1, 2, 4])

    def at(sweep: Sweep, psi: Tensor) -> Iterate:
        log_b = sweep.problem.b.log()
        u, log_s = sweep.sweep(None, psi + log_b)
        error = column_error(sweep.problem, psi, log_s)
        return Iterate(psi, answer(sweep, u, psi, log_s, log_b) - psi, error, u, sweep)

    # of one that has arrived only rounding is left to step by
    for _ in range(4):
        psi = steps(at(sweep, psi))
    few, part, part_psi = steps.select(kept), sweep.select(kept), psi[kept]
    for _ in range(3):
        psi, part_psi = steps(at(sweep, psi)), few(at(part, part_psi))
        torch.testing.assert_close(part_psi, psi[kept], rtol=1e-9, atol=1e-9)
