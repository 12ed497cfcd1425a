"""Rows that need not fit in memory, read again and again, one block ahead."""

from .given import Array, ArrayLike, RowsLike
from .meanwhile import ahead
from .reading import Block, Index, Rows, as_rows, at_once, entries, number


__all__ = [
    "Array",
    "ArrayLike",
    "Block",
    "Index",
    "Rows",
    "RowsLike",
    "ahead",
    "as_rows",
    "at_once",
    "entries",
    "number",
]
