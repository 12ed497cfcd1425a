"""Rows that need not fit in memory, read again and again, one block ahead."""

from .meanwhile import ahead
from .reading import Block, Index, Rows, as_rows, at_once, entries, number


__all__ = ["Block", "Index", "Rows", "ahead", "as_rows", "at_once", "entries", "number"]
