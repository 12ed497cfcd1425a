"""Packages that some calls need and an import of this one does not: what is told without them."""

import functools
import importlib
import importlib.util
import warnings
from contextlib import AbstractContextManager

import torch


# what pip is told, by what is imported; pyproject.toml says the same
INSTALLED_AS = {"ot": "POT>=0.9.7", "scipy": "scipy>=1.10", "tqdm": "tqdm>=4.60"}
# looked up here: tracing cannot look into the file system
_FOUND = importlib.util.find_spec("triton") is not None


class needs(AbstractContextManager[None]):  # noqa: N801
    """Says of imports inside which package they need, and how it is installed.

    An installation can be broken in ways that raise other errors than that a module is missing.

    Args:
        package: The name by which it is imported.

    Raises:
        ImportError: If anything is raised inside.
    """

    def __init__(self, package: str) -> None:
        self._package = package

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Say what is missing."""
        if isinstance(error, Exception):
            wanted = INSTALLED_AS[self._package]
            raise ImportError(
                f"this call needs {wanted.partition('>')[0]}, which cannot be imported here: "
                f"pip install '{wanted}' ({type(error).__name__}: {error})"
            ) from error


def has_triton() -> bool:
    """Say whether there can be kernels; ask only about tensors on a GPU, since it imports Triton.

    Where it is installed and does not load, a warning says so, and PyTorch's operators answer.
    """
    # who compiles for a GPU has it loaded
    return _FOUND and (torch.compiler.is_compiling() or _loads())


@functools.cache
def _loads() -> bool:
    try:
        importlib.import_module("triton")
    except Exception as error:  # noqa: BLE001
        warnings.warn(
            "triton is installed and cannot be imported, so that tensors on a GPU are answered by "
            f"PyTorch's own operators, which are slower ({type(error).__name__}: {error})",
            stacklevel=2,
        )
        return False
    return True
