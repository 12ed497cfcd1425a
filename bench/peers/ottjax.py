"""OTT-JAX: plain, with momentum and with Anderson's mixing, compiled outside the clock."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.cpu.cases import Case
from bench.peers.peer import Answer, Peer, Prepare, Run


def loader(variant: str) -> Callable[[Case, float], Prepare]:
    """Return how to load a case for a variant."""

    def load(case: Case, reg: float) -> Prepare:
        import jax  # pyright: ignore[reportMissingImports]

        # with it, float32 problems are given float64 constants, and Anderson's mixing fails
        jax.config.update("jax_enable_x64", case.C.dtype == torch.float64)
        # problems of one shape are compiled once
        jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir(), "ott_jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        C, a, b = (jax.device_put(t.numpy()) for t in (case.C, case.a, case.b))
        act = _solver(variant)
        if a.ndim > 1:
            act = jax.vmap(act, (0 if C.ndim > 2 else None, 0, 0, None, None))
        known = [np.asarray(x, C.dtype) for x in (reg, 1.0)]
        compiled = jax.jit(act).lower(C, a, b, *known).compile()
        with np.errstate(all="ignore"):
            prior = reg * np.log(np.asarray(b, np.float64))

        def prepare(stop: float) -> Run:
            threshold = np.asarray(stop, C.dtype)

            def run() -> Answer:
                plan, g = compiled(C, a, b, known[0], threshold)
                return Answer(np.asarray(plan), np.asarray(g, np.float64) - prior)

            return run

        return prepare

    return load


def _solver(variant: str) -> Callable[..., Any]:
    from ott.geometry import geometry  # pyright: ignore[reportMissingImports]
    from ott.problems.linear import linear_problem  # pyright: ignore[reportMissingImports]
    from ott.solvers.linear import acceleration, sinkhorn  # pyright: ignore[reportMissingImports]

    options: dict[str, Any] = {
        "plain": {},
        "momentum": {"momentum": acceleration.Momentum(value=1.5)},
        "Anderson": {"anderson": acceleration.AndersonAcceleration(memory=5)},
    }[variant]

    def act(C: Any, a: Any, b: Any, reg: Any, threshold: Any) -> Any:
        solver = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=100_000, **options)
        geom = geometry.Geometry(cost_matrix=C, epsilon=reg)
        out = solver(linear_problem.LinearProblem(geom, a, b))
        return out.matrix, out.g

    return act


PEERS = (
    Peer("OTT", "ott", loader("plain"), zeros=True),
    Peer("OTT momentum", "ott", loader("momentum"), zeros=True),
    Peer("OTT Anderson", "ott", loader("Anderson"), zeros=True),
)
