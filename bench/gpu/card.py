"""The card and what it can do at best: the rates that every other figure is measured against."""

import platform
import subprocess
from importlib import metadata, util
from typing import Any

import torch

from bench.gpu.clock import Clock
from bench.gpu.device import Device


PEERS = {
    "flash-sinkhorn": "flash_sinkhorn",
    "geomloss": "geomloss",
    "pykeops": "pykeops",
    "ott-jax": "ott",
}


def describe(device: Device) -> dict[str, Any]:
    """Return what the figures were measured on, and with which versions."""
    told: dict[str, Any] = {
        "card": name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "peers": {package: _version(package) for package in PEERS if installed(package)},
        "absent": [package for package in PEERS if not installed(package)],
    }
    if device.is_gpu:
        p = torch.cuda.get_device_properties(device.torch_device)
        told |= {
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "capability": f"{p.major}.{p.minor}",
            "multiprocessors": p.multi_processor_count,
            "memory_gib": round(p.total_memory / 2**30, 1),
            "l2_mib": round(l2_bytes(device) / 2**20, 1),
        }
    return told


def name(device: Device) -> str:
    """Return what the card is called."""
    if device.is_gpu:
        return torch.cuda.get_device_name(device.torch_device)
    return "CPU, toy sizes"


def installed(package: str) -> bool:
    """Say whether a peer can be imported."""
    return util.find_spec(PEERS[package]) is not None


def l2_bytes(device: Device) -> int:
    """Return the size of the last cache."""
    if not device.is_gpu:
        return 0
    properties = torch.cuda.get_device_properties(device.torch_device)
    return int(getattr(properties, "L2_cache_size", 64 << 20))


def measure(device: Device) -> dict[str, float]:
    """Return the copy bandwidth (bytes/s read and written) and the matrix rates (operations/s)."""
    return {
        "copy_bytes_per_s": _copied(device, 1 << 20 if device.toy else 1 << 30),
        "fp16_matmul_per_s": _multiplied(device, 128 if device.toy else 8192, torch.float16),
        "bf16_matmul_per_s": _multiplied(device, 128 if device.toy else 8192, torch.bfloat16),
    }


def _copied(device: Device, size: int) -> float:
    source = device.rand(size)
    target = torch.empty_like(source)
    seconds = Clock(device.torch_device).called([lambda: target.copy_(source)]).median
    return 2 * source.nbytes / seconds


def _multiplied(device: Device, side: int, dtype: torch.dtype) -> float:
    x, y = (device.randn(side, side).to(dtype) for _ in "xy")
    return 2 * side**3 / Clock(device.torch_device).called([lambda: x @ y]).median


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    try:
        out = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.split("\n")[0].strip() or None
