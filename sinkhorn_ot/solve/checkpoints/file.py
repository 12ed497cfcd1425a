"""A file that is there as a whole or not at all, and says when it is not what was written.

What is read is never unpickled beyond tensors, numbers and text.
"""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch


# what such a file begins with; the number is that of what it holds
_MAGIC = b"sinkhorn_ot checkpoint 1\n"
_DIGEST = hashlib.sha256().digest_size
_WRITING = ".writing"


def atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name beside it, and give it its own when it is complete.

    Raises:
        OSError: If it cannot be written; what was there before is there still.
    """
    replaced(written(path, write), path)


def written(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file under another name, and return that once the disk has it."""
    beside = path.with_name(path.name + _WRITING)
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def replaced(beside: Path, path: Path) -> None:
    """Give a file its name."""
    beside.replace(path)
    # the name too is only then on the disk
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def packed(value: Any) -> bytes:
    """Return tensors, numbers and text, in lists and dicts, as bytes."""
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def unpacked(data: bytes, device: torch.device) -> Any:
    """Return what was packed, its tensors on a device."""
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def sealed(value: Any) -> bytes:
    """Return the bytes of a file."""
    data = packed(value)
    return _MAGIC + hashlib.sha256(data).digest() + data


def opened(path: Path, device: torch.device) -> Any:
    """Return what a file holds; None if there is no file.

    Raises:
        ValueError: If it is not as it was written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"checkpoint {path} cannot be read ({error.strerror}): {_ELSE}") from error
    if not data.startswith(_MAGIC):
        raise ValueError(f"checkpoint {path} is no checkpoint of this version: {_ELSE}")
    digest, data = data[len(_MAGIC) :][:_DIGEST], data[len(_MAGIC) + _DIGEST :]
    if hashlib.sha256(data).digest() != digest:
        raise ValueError(f"checkpoint {path} is truncated or was altered: {_ELSE}")
    try:
        return unpacked(data, device)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"checkpoint {path} holds more than numbers: {_ELSE}") from error


_ELSE = "remove it to begin anew, or name another path"
