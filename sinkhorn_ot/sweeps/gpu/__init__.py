"""The sweep on a GPU: checks, allocates and launches the kernels. Imports triton: import it late.

Serves stored costs of any strides and clouds of most metrics, in float64 and float32 (half
precision in storage): exponents are formed in the potentials' dtype. Nothing waits for the device:
what may underflow is summed again by kernels that return at once where there is nothing to mend.
"""

from .choice import kernels, serves
from .clouds import CloudKernels
from .dense import DenseKernels
from .near import NearKernels


__all__ = ["CloudKernels", "DenseKernels", "NearKernels", "kernels", "serves"]
