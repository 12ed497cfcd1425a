"""A small plan as its solver leaves it: a kernel between two scalings, exponentiated once."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.problem import shown


Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@shown
@dataclass(frozen=True, eq=False)
class Scaled:
    """The plan of one problem, P_ij = y_i K_ij x_j, zero where it has no points.

    Attributes:
        K: The kernel, (n', m').
        y: Scaling of its rows, (n',).
        x: Scaling of its columns, (m',).
        places: Where its rows and columns stand among all, and how many those are; None: there are
            no others.
    """

    K: Array
    y: Array
    x: Array
    places: tuple[Places, Places, tuple[int, int]] | None = None

    def turned(self) -> "Scaled":
        """Return the plan of the transposed problem."""
        return Scaled(self.K.T, self.x, self.y)

    def among(self, rows: Places, columns: Places, shape: tuple[int, int]) -> "Scaled":
        """Return the plan of a larger problem, where its points have these numbers."""
        return replace(self, places=(rows, columns, shape))

    def plan(self) -> Tensor:
        """Return the plan, (1, n, m)."""
        # in the kernel's own precision
        y, x = (side.astype(self.K.dtype, copy=False) for side in (self.y, self.x))
        P = np.multiply(self.K, x, order="C")
        P *= y[:, None]
        if self.places is not None:
            rows, columns, shape = self.places
            few, P = P, np.zeros(shape)
            P[rows[:, None], columns] = few
        return torch.from_numpy(P[None])
