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
        so.swav_codes(torch.rand(5, 4)), so.sela_labels(torch.rand(6, 4).log_softmax(-1))
        so.normalize(torch.rand(5, 4), 3), so.solve_1d(torch.rand(5), torch.rand(4))
    """)


def test_other_calls_say_what_they_need_and_how_it_is_installed():
    """An installation that is broken, whatever it raises, is as good as none."""
    said = _run("""
        import sys
        from importlib.abc import MetaPathFinder

        class Broken(MetaPathFinder):
            raised = {"ot": ValueError("size changed"), "scipy": AttributeError("no _lib")}

            def find_spec(self, name, path, target=None):
                if name in self.raised:
                    raise self.raised[name]

        sys.meta_path.insert(0, Broken())
        sys.modules["tqdm"] = sys.modules["sklearn"] = None
        import torch
        import sinkhorn_ot as so
        import sinkhorn_ot.compat.pot as ot
        from sinkhorn_ot.command import main

        C = torch.rand(5, 4)
        calls = (
            lambda: so.solve_exact(C),
            lambda: ot.unif(5),
            lambda: so.solve_exact(torch.rand(4, 4), engine="assignment"),
            lambda: so.solve(C, reg=0.1, progress=True),
            lambda: main(["demo"]),
        )
        for call in calls:
            try:
                call()
            except (ImportError, SystemExit) as error:
                print(error)
    """)
    simplex, helper, assignment, bar, demo = said.splitlines()
    broken = "this call needs POT, which cannot be imported here: pip install 'POT>=0.9.7' "
    assert simplex == helper == broken + "(ValueError: size changed)"
    assert assignment.endswith("pip install 'scipy>=1.10' (AttributeError: no _lib)")
    assert bar.startswith("this call needs tqdm, which cannot be imported here: pip install 'tqdm")
    assert "pip install 'sinkhorn-ot[demo]'" in demo


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
