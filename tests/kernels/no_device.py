"""A driver of triton that compiles for an H200, launches nothing, and tells what it would launch.

For child processes without TRITON_INTERPRET: `with no_device() as launches: ...`.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton
from triton.backends.compiler import GPUTarget


class _Driver:
    """What triton asks a driver for, without a device."""

    def __init__(self, launches: list[tuple[int, str, tuple[Any, ...]]]) -> None:
        names: dict[int, str] = {}
        numbers = itertools.count(1)

        class Utils:
            @staticmethod
            def get_device_properties(device: int) -> dict[str, int]:
                return {"max_shared_mem": 227 << 10, "multiprocessor_count": 132}

            @staticmethod
            def load_binary(name: str, *_: Any) -> tuple[int, int, int, int, int]:
                number = next(numbers)
                names[number] = name
                return 1, number, 0, 0, 1024

            @staticmethod
            def unload_module(module: int) -> None:
                """There is none."""

        class Launcher:
            def __init__(self, src: Any, metadata: Any) -> None:
                """Launch nothing."""

            def __call__(self, x: int, y: int, z: int, stream: int, function: int, *args: Any):
                launches.append((function, names[function], (x, y, z, *args[4:])))

        self.utils, self.launcher_cls = Utils(), Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@contextmanager
def no_device() -> Iterator[list[tuple[int, str, tuple[Any, ...]]]]:
    """Yield the list of launches, each the number of a compiled kernel, its name and arguments."""
    launches: list[tuple[int, str, tuple[Any, ...]]] = []
    triton.runtime.driver.set_active(_Driver(launches))
    try:
        yield launches
    finally:
        triton.runtime.driver._active = None
