"""The ranks that a loop's own functions speak to: all of them, where there are any."""

from typing import Any

import torch.distributed as dist


def everyone() -> Any:
    """Return the group of all processes of torch.distributed, or None where it does not run."""
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
