"""OTT-JAX by implicit differentiation, as it comes and with a linear system solved to rounding."""

import logging
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cpu.gradients.problems import NUMBERS, RELAXED, Problem


# of the linear system: what it is solved to unless told, and what it is told here
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


def gradients(p: Problem, tight: bool) -> dict[str, list[Tensor]]:
    """Return the derivatives of each number by the five tensors."""
    import jax  # pyright: ignore[reportMissingImports]

    jax.config.update("jax_enable_x64", True)
    # what its linear solver raises is told in a word
    logging.getLogger("jax").setLevel(logging.CRITICAL)
    # problems of one shape are compiled once
    jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir(), "ott_jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    given = [t.numpy() for t in p.args]
    rest = [p.reg, p.W.numpy(), *(t.numpy() for t in p.w)]
    found = _compiled(p.rho is None, tight)(*given, *rest)
    return {
        name: [torch.from_numpy(np.array(t[k])) for t in found] for k, name in enumerate(NUMBERS)
    }


@cache
def _compiled(exact: bool, tight: bool) -> Any:
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    from ott.geometry import geometry  # pyright: ignore[reportMissingImports]
    from ott.problems.linear import linear_problem  # pyright: ignore[reportMissingImports]
    from ott.solvers.linear import (  # pyright: ignore[reportMissingImports]
        implicit_differentiation,
        sinkhorn,
    )

    implicit = implicit_differentiation.ImplicitDiff(solver_kwargs=TIGHT if tight else None)

    def numbers(cost: Any, x: Any, y: Any, la: Any, lb: Any, *rest: Any) -> Any:
        reg, W, w_f, w_g = rest
        C = cost + jnp.square(x[:, None] - y[None]).sum(-1)
        a, b = jax.nn.softmax(la), jax.nn.softmax(lb)
        log_a, log_b = jnp.log(a), jnp.log(b)
        if not exact:
            # its entropy is not relative to the weights, which matters where marginals give way
            C = C - reg * (log_a[:, None] + log_b)
        geom = geometry.Geometry(cost_matrix=C, epsilon=reg)
        # a number that it must know before it compiles
        tau = 1.0 if exact else RELAXED / (RELAXED + 1)
        solver = sinkhorn.Sinkhorn(threshold=1e-13, max_iterations=100_000, implicit_diff=implicit)
        out = solver(linear_problem.LinearProblem(geom, a, b, tau_a=tau, tau_b=tau))
        P = out.matrix
        if exact:
            # its potentials hold the weights' logarithms
            f, g, value = out.f - reg * log_a, out.g - reg * log_b, out.reg_ot_cost
        else:
            f, g, rho = out.f, out.g, RELAXED * reg
            lost = [(w * -jnp.expm1(-z / rho)).sum() for w, z in ((a, f), (b, g))]
            value = rho * sum(lost) + reg * (1 - P.sum())
        return jnp.stack([value, (P * W).sum(), f @ w_f + g @ w_g])

    by = jax.jacrev(numbers, argnums=(0, 1, 2, 3, 4))
    return jax.jit(by)
