"""Derivatives of Cuturi's distance: those of the Lagrangian, whose multiplier is the plan's reg."""

from dataclasses import replace

from torch import Tensor

from sinkhorn_ot.results import Leaves, Parts, attached, final

from .result import SinkhornDistance


def differentiable(answer: SinkhornDistance, leaves: Leaves) -> SinkhornDistance:
    """Return an answer whose value is a function of the arguments that require grad.

    Raises:
        ValueError: If weights do, and a constraint that does not bind leaves no potentials.
    """
    weighs = sorted({"a", "b"} & set(leaves.given))
    bare = [k for k, x in enumerate(answer.found) if x.plan is not None or not x.reg > 0]
    if weighs and bare:
        where = f" of problem {bare[0]}" if len(answer.found) > 1 else ""
        raise ValueError(
            f"{weighs[0]} must not require grad where alpha{where} does not bind, or leaves only "
            "independence: use solve_exact, or pass .detach()"
        )
    return replace(answer, derivatives=ByMultiplier(answer, leaves))


class ByMultiplier:
    """Derivatives of the distance by cost, points, weights and alpha.

    Args:
        answer: The answer, without derivatives.
        leaves: The arguments that have them.
    """

    def __init__(self, answer: SinkhornDistance, leaves: Leaves) -> None:
        self._answer, self._leaves = answer, leaves

    def link(self, kind: str, flat: Tensor, *given: Tensor) -> Tensor:
        """Return numbers of the answer with their derivatives, if they have some."""
        leaves, what = self._leaves.tensors, f"{kind} of sinkhorn_distance"

        def refuse(_: Tensor) -> tuple[Tensor | None, ...]:
            raise RuntimeError(
                f"{what} has no derivatives, only its value has: solve with the reg that it found"
            )

        def pull(by: Tensor) -> tuple[Tensor | None, ...]:
            parts = self._leaves.pulled(self._answer.problem, self._worth(by))
            return final(what, parts, *leaves)

        return attached(pull if kind == "value" else refuse, flat, *leaves)

    def _worth(self, by: Tensor) -> Parts:
        """Return derivatives of the value by the parts of the problem."""
        answer, p, given = self._answer, self._answer.problem, self._leaves.given
        parts: Parts = {}
        mass, regs = p.a.sum(-1), answer.reg.reshape(-1).to(p.work)
        if "alpha" in given:
            parts["alpha"] = -by * regs * mass
        if {"a", "b"} & set(given):
            k = answer.coupling
            # the distance of masses of one, times the mass
            f = k.f - ((k.f * p.a).sum(-1) / mass - answer.value.reshape(-1) / mass)[:, None]
            g = k.g - ((k.g * p.b).sum(-1) / mass)[:, None]
            parts |= {"a": by[:, None] * f, "b": by[:, None] * g}
        if {"cost", "x", "y"} & set(given):
            plan = by[:, None, None] * answer.plan.reshape(p.shape)
            parts |= self._leaves.by_cost(p, plan)
        return parts
