"""Importing the package changes nothing, costs little, and needs no triton."""

import subprocess
import sys
import textwrap

import pytest


def _run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow(2)
def test_importing_changes_nothing():
    _run("""
        import os, torch, warnings

        def state():
            tiny = torch.tensor([1e-40])
            return dict(
                environment=dict(os.environ),
                dtype=torch.get_default_dtype(),
                device=torch.get_default_device(),
                threads=(torch.get_num_threads(), torch.get_num_interop_threads()),
                denormals=float(tiny * 1.0),
                tf32=(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
                precision=torch.get_float32_matmul_precision(),
                grad=torch.is_grad_enabled(),
                autocast=(torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
                deterministic=torch.are_deterministic_algorithms_enabled(),
                seed=torch.initial_seed(),
                random=torch.get_rng_state().tolist(),
                warnings=list(warnings.filters),
            )

        before = state()
        import sinkhorn_ot
        after = state()
        assert before == after, {k: (before[k], after[k]) for k in before if before[k] != after[k]}
        assert not torch.cuda.is_initialized()
    """)


def test_importing_loads_nothing_heavy():
    names = _run("""
        import sys, torch
        before = set(sys.modules)
        import sinkhorn_ot
        print(*(set(sys.modules) - before))
    """).split()
    heavy = {"ot", "scipy", "matplotlib", "sklearn", "triton", "tqdm", "IPython", "pandas", "jax"}
    assert not heavy & {name.split(".")[0] for name in names}
    assert not [name for name in names if name.startswith(("torch._dynamo", "torch._inductor"))]


@pytest.mark.slow(2)
def test_solving_needs_torch_and_numpy_alone():
    _run("""
        import sys
        for name in ("triton", "ot", "scipy", "tqdm", "sklearn", "matplotlib"):
            sys.modules[name] = None
        import torch
        import sinkhorn_ot as so
        r = so.solve(torch.rand(5, 4), reg=0.1)
        assert r.converged
        r.certificate(), r.round(), r.value
        so.solve(so.PointCloud(torch.rand(5, 2), torch.rand(4, 2)), reg=0.1)
    """)


@pytest.mark.slow(2)
def test_solving_changes_no_state():
    _run("""
        import torch
        import sinkhorn_ot as so
        before = torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.is_grad_enabled()
        so.solve(torch.ones(5, 4), reg=0.1)
        so.solve(torch.ones(5, 4), reg=0.1, n_iter=3)
        assert before == (
            torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.is_grad_enabled()
        )
        assert not torch.cuda.is_initialized()
    """)
