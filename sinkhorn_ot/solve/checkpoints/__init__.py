"""Checkpoints: what a long call keeps in a file while it runs, and goes on from."""

from .checkpoint import Checkpoint, checked, opened
from .digest import fingerprint
from .file import atomically
from .keeper import FileKeeper


__all__ = ["Checkpoint", "FileKeeper", "atomically", "checked", "fingerprint", "opened"]
