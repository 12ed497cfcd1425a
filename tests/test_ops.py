"""The kernels as PyTorch operators: checked by PyTorch itself, compiled, faked and mapped."""

import pytest
import torch
from torch import Tensor

import sinkhorn_ot._ops  # noqa: F401


pytestmark = pytest.mark.filterwarnings("ignore")
OPS = torch.ops.sinkhorn_ot


def arguments(name: str, batch: int = 2, dtype: torch.dtype = torch.float32) -> tuple:
    torch.manual_seed(0)
    C, x, y = torch.rand(batch, 7, 5), torch.randn(batch, 7, 3), torch.randn(batch, 5, 3)
    u, v = torch.randn(batch, 7), torch.randn(batch, 5)
    a, inv = torch.rand(batch, 7), torch.full((batch,), 3.0)
    z = torch.randn(batch, 5, 2)
    return {
        "dense_sweep": (C.to(dtype), None, v, a, inv, None),
        "cloud_sweep": (x.to(dtype), y.to(dtype), "sqeuclidean", u, v, a, inv, inv / 4),
        "dense_apply": (C.to(dtype), u, v, z, inv),
        "cloud_apply": (x.to(dtype), y.to(dtype), "cosine", u, v, z, inv),
        "codes": (C.to(dtype), inv, 3, 4),
        "feature_codes": (x.to(dtype), y.to(dtype), inv, 3, 4),
    }[name]


NAMES = ("dense_sweep", "cloud_sweep", "dense_apply", "cloud_apply", "codes", "feature_codes")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_pytorch_finds_no_fault(name: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(getattr(OPS, name), arguments(name, dtype=dtype))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_break(name: str) -> None:
    op = getattr(OPS, name)

    def twice(*args: object) -> Tensor:
        out = op(*args)
        return (out[0] if isinstance(out, tuple) else out) * 2

    args = arguments(name)
    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), twice(*args))


@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_a_loop(name: str) -> None:
    op, args = getattr(OPS, name), arguments(name, batch=3)
    dims = tuple(0 if isinstance(t, Tensor) else None for t in args)
    stacked = tuple(t[:, None] if isinstance(t, Tensor) else t for t in args)
    got, want = torch.vmap(op, in_dims=dims)(*stacked), op(*args)
    for g, w in zip(*((o if isinstance(o, tuple) else (o,)) for o in (got, want)), strict=True):
        torch.testing.assert_close(g[:, 0], w)


def test_vmap_shares_what_is_not_mapped() -> None:
    C, _, v, a, inv, _ = arguments("dense_sweep")
    many = torch.stack([v, v + 1])
    got = torch.vmap(lambda w: OPS.dense_sweep(C, None, w, a, inv, None))(many)[0]
    for g, w in zip(got, many, strict=True):
        torch.testing.assert_close(g, OPS.dense_sweep(C, None, w, a, inv, None)[0])


def test_a_derivative_is_refused() -> None:
    C, *rest = arguments("dense_sweep")
    u, _ = OPS.dense_sweep(C.requires_grad_(), *rest)
    with pytest.raises(RuntimeError, match=r"autograd|backward|grad"):
        u.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_triton_means_the_same(name: str) -> None:
    triton = pytest.importorskip("sinkhorn_ot._triton", reason="triton is not installed")
    import numpy as np

    args = arguments(name)
    with np.errstate(all="ignore"):
        got = getattr(triton, f"{name}_op")(*args)
    want = getattr(OPS, name)(*args)
    for g, w in zip(*((o if isinstance(o, tuple) else (o,)) for o in (got, want)), strict=True):
        torch.testing.assert_close(g, w, atol=2e-4, rtol=2e-4)
