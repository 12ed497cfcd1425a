"""Processes in which kernels are compiled: the interpreter, once chosen, cannot be left."""

import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}


def child(*args: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the interpreter, from the root of the repository."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", *args]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
