"""States are selected whole: whatever a run remembers of its problems goes with them."""

import pytest
import torch
from torch import Tensor

import sinkhorn_ot as so
from sinkhorn_ot.solvers.state import State


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
