"""What measures the package, and what gates its kernels: `python -m bench` lists it."""

from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
