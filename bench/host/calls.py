"""The calls whose launches are counted, and plain PyTorch beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkhorn_ot as so
from bench.gpu.timed import peers


Act = Callable[[], Any]
N, M = 150, 200


@dataclass(frozen=True)
class Counted:
    """One call, at a size whose launches are those of any size that fits on chip in its rows.

    Attributes:
        name: What is called.
        size: At which size.
        make: Makes inputs from a function from tensors to those of a card, and the call on them.
        peer: What plain PyTorch does instead, in the same way.
        decides: Whether what it does depends on numbers, so that kernels must run.
    """

    name: str
    size: str
    make: Callable[[Callable[[Tensor], Tensor]], Act]
    peer: Callable[[Callable[[Tensor], Tensor]], Act] | None = None
    decides: bool = True


Put = Callable[[Tensor], Tensor]


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _scores(n: int, K: int) -> Tensor:
    z, c = (torch.randn(k, 16, generator=_random(k)) for k in (n, K))
    return torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(c, dim=1).t()


def _on_scores(put: Put, n: int, K: int, act: Callable[[Tensor], Any]) -> Act:
    return partial(act, put(_scores(n, K)))


def _on_cost(put: Put, shape: tuple[int, ...], act: Any, dtype: Any = torch.float32) -> Act:
    return partial(act, put(torch.rand(shape, generator=_random()).to(dtype)))


def _on_clouds(put: Put, n: int, m: int, d: int, act: Callable[..., Any]) -> Act:
    x, y = (put(torch.rand(k, d, generator=_random(k))) for k in (n, m))
    return lambda: act(so.PointCloud(x, y))


def _fixed(cost: Any, n_iter: int) -> Any:
    return so.solve(cost, reg=0.1, n_iter=n_iter).coupling


def _to(cost: Any, tol: float, reg: float = 0.1, **how: Any) -> Any:
    return so.solve(cost, reg=reg, tol=tol, **how)


def _eager(C: Tensor, n_iter: int) -> Tensor:
    log_a, log_b = (torch.full((1, k), -float(k)).as_subclass(type(C)) for k in C.shape)
    inv_reg = torch.full((1,), 10.0).as_subclass(type(C))
    return peers.eager_solve(C[None], log_a, log_b, inv_reg, n_iter)


def _loop(S: Tensor) -> Tensor:
    return peers.swav_loop(S, 0.05, 3, len(S))


def _codes(name: str, n: int, K: int, act: Callable[[Tensor], Any]) -> Counted:
    at = partial(_on_scores, n=n, K=K)
    return Counted(name, f"{n}x{K}", partial(at, act=act), partial(at, act=_loop), decides=False)


def _router(name: str, n_iter: int | None) -> Counted:
    act = partial(so.adapters.moe_router, n_iter=n_iter)
    return Counted(name, f"{N}x8", partial(_on_scores, n=N, K=8, act=act), decides=n_iter is None)


def _dino(S: Tensor) -> Any:
    return so.adapters.dino_codes(S, 0.05)


def _solves(
    name: str, act: Any, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **how: Any
) -> Counted:
    size = "x".join(map(str, shape))
    return Counted(name, size, partial(_on_cost, shape=shape, act=act, dtype=dtype), **how)


def _clouds(name: str, act: Any, decides: bool) -> Counted:
    return Counted(
        name, f"{N}x{M} d=3", partial(_on_clouds, n=N, m=M, d=3, act=act), decides=decides
    )


def _trained(x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    y = act(x.requires_grad_())
    return torch.autograd.grad(y, x, y.detach())[0]


def _layer_loop(x: Tensor) -> Tensor:
    for _ in range(20):
        x = x.log_softmax(-1).log_softmax(-2)
    return x.exp()


def _layer(name: str, shape: tuple[int, ...]) -> Counted:
    at = partial(_on_cost, shape=shape)
    size = "x".join(map(str, shape))
    ours, loop = (
        partial(at, act=partial(_trained, act=act)) for act in (so.normalize, _layer_loop)
    )
    return Counted(name, size, ours, loop, decides=False)


FIVE, TEN = partial(_fixed, n_iter=5), partial(_fixed, n_iter=10)
SINGLE, DOUBLE = partial(_to, tol=1e-5), partial(_to, tol=1e-6)
PLAIN = partial(_on_cost, shape=(N, M), act=partial(_eager, n_iter=10))
CALLS = (
    _codes("swav_codes", N, M, so.swav_codes),
    _codes("swav_codes, rows too long for the chip", 2, 16500, so.swav_codes),
    _codes("dino_codes", N, M, _dino),
    _router("moe_router, 10 iterations", 10),
    _router("moe_router to 1e-4", None),
    _layer("normalize and back", (70, 4, 4)),
    _solves("solve, 10 sweeps", TEN, (N, M), peer=PLAIN, decides=False),
    _solves("solve float64, 10 sweeps", TEN, (N, M), torch.float64, peer=PLAIN),
    _clouds("solve clouds, 5 sweeps", FIVE, decides=False),
    _solves("solve to 1e-5", SINGLE, (N, M)),
    _solves("solve float64 to 1e-6", DOUBLE, (N, M), torch.float64),
    _solves("solve, relaxed, to 1e-5", partial(SINGLE, unbalanced=1.0), (N, M)),
    _clouds("solve clouds to 1e-5", SINGLE, decides=True),
    _solves("solve, 8 of 20x30, to 1e-5", SINGLE, (8, 20, 30)),
    _solves("solve float64, 8 of 20x30, to 1e-6", DOUBLE, (8, 20, 30), torch.float64),
    _solves("clot_labels", lambda S: so.adapters.clot_labels(-S), (N, 20)),
    _solves("sela_labels, half precision", lambda S: so.sela_labels(-S), (600, 20), torch.float16),
)
