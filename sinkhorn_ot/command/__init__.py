"""The command line: transport and labels of files, and the demonstration."""

from .entry import main


__all__ = ["main"]
