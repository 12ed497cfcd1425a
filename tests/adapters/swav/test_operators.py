"""The kernels as PyTorch operators: checked by PyTorch itself, compiled, faked and mapped."""

import numpy as np
import pytest
import torch
from torch import Tensor

import sinkhorn_ot.adapters.swav.operators as module


pytestmark = pytest.mark.filterwarnings("ignore")
OPS = torch.ops.sinkhorn_ot
HARD = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
ALL = ["codes", "masked codes", "feature_codes", "masked feature_codes"]
NAMES = pytest.mark.parametrize("name", ALL)


def arguments(
    name: str, hard: bool = False, batch: int = 2, dtype: torch.dtype = torch.float32
) -> tuple:
    torch.manual_seed(0)
    S, x, y = torch.rand(batch, 7, 5), torch.randn(batch, 7, 3), torch.randn(batch, 5, 3)
    inv = 3.0
    keep = torch.rand(batch, 7) > 0.3 if name.startswith("masked") else None
    if name.endswith("feature_codes"):
        return x.to(dtype), y.to(dtype), keep, inv, 3, 4, hard, dtype
    return S.to(dtype), keep, inv, 3, 4, hard, dtype


def operator(name: str):
    return OPS.feature_codes if name.endswith("feature_codes") else OPS.codes


@pytest.mark.slow(1)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@HARD
@NAMES
def test_pytorch_finds_no_fault(name: str, hard: bool, dtype: torch.dtype) -> None:
    torch.library.opcheck(operator(name), arguments(name, hard, dtype=dtype))


@pytest.mark.slow(1)
@NAMES
def test_compiles_without_a_break(name: str) -> None:
    def twice(*args: object) -> Tensor:
        return operator(name)(*args) * 2

    args = arguments(name)
    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), twice(*args))


@NAMES
def test_vmap_is_a_loop(name: str) -> None:
    op, args = operator(name), arguments(name, batch=3)
    dims = tuple(0 if isinstance(t, Tensor) else None for t in args)
    stacked = tuple(t[:, None] if isinstance(t, Tensor) else t for t in args)
    torch.testing.assert_close(torch.vmap(op, in_dims=dims)(*stacked)[:, 0], op(*args))


def test_vmap_shares_what_is_not_mapped() -> None:
    z, c, *rest = arguments("feature_codes")
    many = torch.stack([z, z + 1])
    got = torch.vmap(lambda x: OPS.feature_codes(x, c, *rest))(many)
    for g, x in zip(got, many, strict=True):
        torch.testing.assert_close(g, OPS.feature_codes(x, c, *rest))


def test_a_derivative_is_refused() -> None:
    S, *rest = arguments("codes")
    Q = OPS.codes(S.requires_grad_(), *rest)
    with pytest.raises(RuntimeError, match=r"autograd|backward|grad"):
        Q.sum().backward()


def test_samples_left_out_have_no_say_and_no_code() -> None:
    S, keep, *rest = arguments("masked codes")
    junk = S.masked_fill(~keep[..., None], 50.0)
    Q = OPS.codes(S, keep, *rest)
    torch.testing.assert_close(OPS.codes(junk, keep, *rest), Q)
    sums = Q.sum(-1)
    torch.testing.assert_close(sums, keep[:, -4:].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@HARD
@NAMES
def test_triton_means_the_same(name: str, hard: bool, dtype: torch.dtype) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    args = arguments(name, hard, dtype=dtype)
    launch = (
        module.feature_codes_by_triton if name.endswith("feature_codes") else module.codes_by_triton
    )
    with np.errstate(all="ignore"):
        got = module.launched(launch)(*args)
    want = operator(name)(*args)
    # codes are written as they are asked for
    assert got.dtype == want.dtype == dtype
    rounding = 2e-4 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(got, want, atol=rounding, rtol=rounding)
