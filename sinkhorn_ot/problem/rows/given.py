"""What a caller may hand over: numbers as tensors, arrays or lists; rows as files or loaders."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from typing_extensions import TypeAliasType


class Array(Protocol):
    """What NumPy reads as real numbers: its own arrays, those of JAX, of pandas and of others."""

    def __array__(
        self,
    ) -> "np.ndarray[Any, np.dtype[np.bool_ | np.integer[Any] | np.floating[Any]]]":
        """Return its numbers."""
        ...


# aliases that keep their names in signatures; lists are as deep as a batch of matrices
ArrayLike = TypeAliasType(
    "ArrayLike",
    Tensor
    | Array
    | Sequence[float]
    | Sequence[Array]
    | Sequence[Sequence[float]]
    | Sequence[Sequence[Sequence[float]]],
)
# some rows (..., rows, k), or with their numbers
BlockLike = ArrayLike | tuple[ArrayLike, ArrayLike]
RowsLike = TypeAliasType(
    "RowsLike", ArrayLike | Iterable[BlockLike] | Callable[[], Iterable[BlockLike]]
)
