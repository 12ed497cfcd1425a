"""Where everything runs: a GPU, or the CPU at toy sizes, with its random numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Device:
    """Where everything runs.

    Attributes:
        torch_device: A CUDA device, or the CPU.
        toy: Whether every size is replaced by a small one.
        random: Where all random numbers come from.
    """

    torch_device: torch.device
    toy: bool
    random: torch.Generator

    @property
    def is_gpu(self) -> bool:
        """Whether there is something to wait for."""
        return self.torch_device.type == "cuda"

    def wait(self) -> None:
        """Let the device finish."""
        if self.is_gpu:
            torch.cuda.synchronize(self.torch_device)

    def rand(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return uniform numbers in [0, 1)."""
        return torch.rand(shape, generator=self.random, device=self.torch_device, dtype=dtype)

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(shape, generator=self.random, device=self.torch_device, dtype=dtype)

    def full(self, *shape: int, value: float) -> Tensor:
        """Return one float32 number many times."""
        return torch.full(shape, value, device=self.torch_device)

    def shape(self, n: int, m: int) -> tuple[int, int]:
        """Return the size of a stored cost: as asked, or a toy of the same design."""
        if self.toy and m > 16384:
            # rows too long for the chip are another design
            return min(n, 2), 16500
        return (min(n, 23), min(m, 130)) if self.toy else (n, m)

    def small(self, n: int, m: int) -> tuple[int, int]:
        """Return a size: as asked, or a toy whatever the design."""
        return (min(n, 11), min(m, 40)) if self.toy else (n, m)
