"""The ranks that a loop's own functions speak to: all of them, where there are any."""

import torch.distributed as dist

from sinkhorn_ot.sweeps import ProcessGroup


def everyone() -> ProcessGroup | None:
    """Return the group of all processes of torch.distributed, or None where it does not run."""
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
