"""Problems that are hard on purpose, by family: functions of a size, costs of spread one."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.cpu.cases import Case, dirichlet, uniform, with_zeros


def _clouds(n: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.rand(2, n, 2, generator=_seed(0), dtype=torch.float64))  # type: ignore


def _seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    C = (x[:, None] - y[None]).square().sum(-1)
    spread = C.max() - C.min()
    return C / spread if spread > 0 else C


def _case(C: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Case:
    n, m = C.shape
    return Case("", C, dirichlet(n, 1) if a is None else a, dirichlet(m, 2) if b is None else b)


def identical_clouds(n: int) -> Case:
    """A cloud onto itself, equal weights: the plan nears the identity."""
    x, _ = _clouds(n)
    return _case(_squared(x, x), uniform(n, 0), uniform(n, 0))


def equal_weights(n: int) -> Case:
    """Two clouds of equal weights: the plan nears a permutation."""
    x, y = _clouds(n)
    return _case(_squared(x, y), uniform(n, 0), uniform(n, 0))


def separated_clouds(n: int) -> Case:
    """Two clouds ten diameters apart."""
    x, y = _clouds(n)
    return _case(_squared(x, y + 10))


def one_heavy_atom(n: int) -> Case:
    """One point has all but a thousandth of the mass."""
    x, y = _clouds(n)
    a = 1e-3 * dirichlet(n, 1)
    a[0] += 1 - 1e-3
    return _case(_squared(x, y), a)


def tiny_weights(n: int) -> Case:
    """Weights from 1e-12 to 1."""
    x, y = _clouds(n)
    a, b = (10 ** -(12 * torch.rand(n, generator=_seed(k), dtype=torch.float64)) for k in (1, 2))
    return _case(_squared(x, y), a / a.sum(), b / b.sum())


def hidden_permutation(n: int) -> Case:
    """One partner each at no cost, all others dear."""
    C = 0.5 + 0.5 * torch.rand(n, n, generator=_seed(0), dtype=torch.float64)
    C[torch.arange(n), torch.randperm(n, generator=_seed(1))] = 0
    return _case(C, uniform(n, 0), uniform(n, 0))


def constant_cost(n: int) -> Case:
    """Every pair costs the same."""
    return _case(torch.full((n, n), 0.7, dtype=torch.float64))


def huge_offset(n: int) -> Case:
    """A million is added to every cost."""
    return _case(_squared(*_clouds(n)) + 1e6)


def duplicated_points(n: int) -> Case:
    """Every point ten times."""
    x, y = _clouds(n)
    again = torch.arange(n) // 10
    return _case(_squared(x[again], y[again]))


def zero_weights(n: int) -> Case:
    """A third of the weights is zero."""
    return _case(_squared(*_clouds(n)), with_zeros(n, 1), with_zeros(n, 2))


def one_row(n: int) -> Case:
    """One point onto n: there is one plan."""
    x, y = _clouds(n)
    return _case(_squared(x[:1], y))


def nearly_tied(n: int) -> Case:
    """Costs of ten levels, told apart by 1e-9."""
    rng = np.random.default_rng(0)
    C = rng.integers(0, 10, (n, n)) / 9 + 1e-9 * rng.random((n, n))
    return _case(torch.from_numpy(C))


FAMILIES: dict[str, Callable[[int], Case]] = {
    f.__name__.replace("_", " "): f
    for f in (
        identical_clouds,
        equal_weights,
        separated_clouds,
        one_heavy_atom,
        tiny_weights,
        hidden_permutation,
        constant_cost,
        huge_offset,
        duplicated_points,
        zero_weights,
        one_row,
        nearly_tied,
    )
}
