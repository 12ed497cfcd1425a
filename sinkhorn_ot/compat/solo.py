"""solo-learn's `SinkhornKnopp`, for a method that already has it: change the import."""

from torch import Tensor, nn

from sinkhorn_ot.adapters.swav import codes_of_named
from sinkhorn_ot.problem import checks

from .ranks import everyone
from .scores import matrix


class SinkhornKnopp(nn.Module):
    """Codes of samples, balanced over the samples of all ranks.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster
    assignments, NeurIPS 2020; solo.utils.sinkhorn_knopp.
    """

    def __init__(self, num_iters: int = 3, epsilon: float = 0.05, world_size: object = 1) -> None:
        """Set how codes are made.

        Args:
            num_iters: Iterations, prototypes first.
            epsilon: Temperature of the codes.
            world_size: Taken, and not needed: how many ranks there are cancels.

        Raises:
            ValueError: If an argument breaks a rule.
        """
        super().__init__()
        self.num_iters = checks.count("num_iters", num_iters)
        self.epsilon = checks.positive("epsilon", epsilon)
        self.world_size = world_size

    def forward(self, Q: Tensor) -> Tensor:
        """Return codes, (B, K), float32, or float64 for float64 scores; each row sums to one.

        Args:
            Q: Scores of this rank's samples and the prototypes, (B, K). It is not changed.

        Raises:
            ValueError: If an argument breaks a rule; see `swav_codes`.
            RuntimeError: If a rank cannot be reached.
        """
        Q = matrix("Q", Q, "(B, K)")
        return codes_of_named(("Q", "epsilon"), Q, self.epsilon, self.num_iters, everyone())

    def extra_repr(self) -> str:
        """Say what decides the codes."""
        return f"num_iters={self.num_iters}, epsilon={self.epsilon:g}"
