"""POT's network simplex, without the rest of POT, which imports every framework that it finds.

The compiled module needs one function of the package that it lives in, for what is not called here.
It is loaded beside a stand-in for that: in a millisecond instead of seconds where JAX or TensorFlow
are installed, and `import ot` finds the same module later.
"""

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from sinkhorn_ot.problem import needs


# where POT keeps it, and the package that it is loaded in here
_NAME, _APART = "ot.lp.emd_wrap", f"{__name__}.apart"


@functools.cache
def compiled() -> ModuleType:
    """Return POT's module of compiled solvers: `emd_c`, `emd_c_sparse`.

    Raises:
        ImportError: If POT cannot be imported.
    """
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    with contextlib.suppress(Exception):
        return _loaded()
    with needs("ot"):
        return importlib.import_module(_NAME)


def _loaded() -> ModuleType:
    """Return the compiled module, loaded beside a stand-in for `ot.utils`."""
    packages = [ModuleType(name) for name in (_APART, f"{_APART}.lp", f"{_APART}.utils")]
    for package in packages:
        package.__path__ = []
    packages[-1].__dict__["dist"] = None
    name, path = f"{_APART}.lp.emd_wrap", str(_path())
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    sys.modules.update({package.__name__: package for package in packages})
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    finally:
        for package in packages:
            sys.modules.pop(package.__name__, None)
        # where it puts itself, and POT would not find it as an attribute
        sys.modules.pop(_NAME, None)
    return module


def _path() -> Path:
    """Return the file of the compiled module."""
    package = importlib.util.find_spec("ot")
    for folder in (package and package.submodule_search_locations) or ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder) / "lp" / f"emd_wrap{suffix}"
            if path.exists():
                return path
    raise ImportError("no compiled solvers are found in it")
