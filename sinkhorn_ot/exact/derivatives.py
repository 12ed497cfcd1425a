"""Derivatives of an optimal value: by its plan and its duals, which prove it."""

from dataclasses import replace

from torch import Tensor

from sinkhorn_ot.results import Leaves, Parts, Stored, Transport, attached, final


def differentiable(result: Transport, leaves: Leaves) -> Transport:
    """Return a result whose value is a function of the arguments that require grad."""
    return replace(result, derivatives=ByDuals(result, leaves))


class ByDuals:
    """Derivatives of the optimum of a linear program, which are one of them where there are many.

    A cost is worth what the plan moves there, a weight its potential. The plan itself jumps.

    Args:
        result: The result, without derivatives.
        leaves: The arguments that have them.
    """

    def __init__(self, result: Transport, leaves: Leaves) -> None:
        assert isinstance(result.coupling, Stored)
        self._problem, self._of, self._leaves = result.problem, result.coupling, leaves

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers of the result with their derivatives, if they have some."""
        leaves = self._leaves.tensors

        def refuse(_: Tensor) -> tuple[Tensor | None, ...]:
            raise RuntimeError(
                f"{kind} of solve_exact has no derivative, because an optimal plan jumps: use its "
                "value, or solve with a small reg"
            )

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            parts = self._leaves.pulled(self._problem, self._worth(by))
            return final(f"{kind} of solve_exact", parts, *leaves)

        values = ("value", "value_linear", "dual_value")
        return attached(pull if kind in values else refuse, flat, *leaves)

    def _worth(self, by: Tensor) -> Parts:
        """Return derivatives of values by the parts of the problem."""
        k, plan = self._of, by[:, None, None] * self._of.P
        weights = {"a": by[:, None] * k.f, "b": by[:, None] * k.g}
        return weights | self._leaves.by_cost(self._problem, plan)
