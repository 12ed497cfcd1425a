"""What a command reads and writes: arrays that are mapped, never unpickled, and written whole."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sinkhorn_ot.solve.checkpoints import atomically


Array = npt.NDArray[Any]

# share of the machine's memory above which a file is read at each pass
_LARGE = 0.25
# numbers of a block that is read at once
_BLOCK = 1 << 19


def mapped(name: str, path: Path, dims: tuple[int, ...]) -> Array:
    """Return the array of a file as a memory map.

    Args:
        name: What messages call it.
        path: The file, .npy.
        dims: How many dimensions it may have.

    Raises:
        ValueError: If it is none, holds objects, is truncated or has another shape.
    """
    if path.suffix != ".npy":
        raise ValueError(f"{name} must be a .npy file, got {path}")
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{name} must be a file that is there, got {path}") from None
    except OSError as error:
        raise ValueError(f"{name} {path} cannot be read: {error}") from error
    except (ValueError, EOFError):
        # NumPy's advice would be to load what may run code
        raise ValueError(
            f"{name} {path} must be numbers as numpy.save writes them: it is no such file, holds "
            "objects, or is cut off"
        ) from None
    if array.ndim not in dims:
        several = " or ".join(map(str, dims))
        raise ValueError(
            f"{name} {path} must have {several} dimension{'s' * (dims != (1,))}, got shape "
            f"{array.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"{name} {path} must not be empty, got shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} {path} must hold numbers, got dtype {array.dtype}")
    return array


def vector(name: str, path: Path | None, size: int) -> Tensor | None:
    """Return a file of `size` numbers; None if there is no file."""
    if path is None:
        return None
    array = mapped(name, path, (1,))
    if len(array) != size:
        raise ValueError(f"{name} {path} must hold {size} numbers, got {len(array)}")
    return torch.from_numpy(np.array(array))


def held(array: Array, dtype: str | None, device: str) -> Tensor:
    """Return an array in memory; whole numbers as float64."""
    return torch.from_numpy(np.array(array, _work(array, dtype))).to(device)


def blocks(array: Array, dtype: str | None, device: str) -> Any:
    """Return what reads the rows of an array again and again, block by block."""
    *batch, n, k = array.shape
    step = max(1, _BLOCK // (k * int(np.prod(batch))))

    def read() -> Iterator[Tensor]:
        # one block even of no rows: it tells the width
        for start in range(0, max(1, n), step):
            yield held(array[..., start : start + step, :], dtype, device)

    return read


def _work(array: Array, dtype: str | None) -> Any:
    return dtype or (array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.float64)


def large(array: Array) -> bool:
    """Say whether an array takes much of the machine's memory."""
    return array.nbytes > _LARGE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def writable(path: Path | None, *suffixes: str) -> None:
    """Require, before anything is computed, that a result can be written there."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"--out must end in {' or '.join(suffixes)}, got {path}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"--out must be in a folder that can be written to, got {path.parent}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError("--out needs pyarrow to write .parquet: pip install pyarrow, or take .npz")


def write(path: Path, main: str, **arrays: Tensor | None) -> None:
    """Write arrays by name: all to .npz, the main one to .npy, its columns to .parquet."""
    found = {name: x.detach().cpu().numpy() for name, x in arrays.items() if x is not None}

    def to(file: BinaryIO) -> None:
        if path.suffix == ".npz":
            np.savez(file, allow_pickle=False, **found)
        elif path.suffix == ".npy":
            np.save(file, found[main], allow_pickle=False)
        else:
            _parquet(file, main, found[main])

    atomically(path, to)


def _parquet(file: BinaryIO, name: str, array: Array) -> None:
    pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    heads = [array] if array.ndim == 1 else [*array]
    names = [name] if array.ndim == 1 else [f"{name}_{k}" for k in range(len(array))]
    parquet.write_table(pyarrow.table(dict(zip(names, heads, strict=True))), file)
