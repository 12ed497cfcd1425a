"""SciPy's matching, without the rest of `scipy.optimize`, which takes long to load.

The compiled module needs nothing of the package that it lives in: it is there in milliseconds, and
`import scipy.optimize` loads its own later.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sinkhorn_ot.problem import needs


# where SciPy keeps it, what the function in it is called, and what it is loaded as here
_PACKAGE, _NAME, _APART = "scipy.optimize", "linear_sum_assignment", f"{__name__}._lsap"


@functools.cache
def matcher() -> Callable[..., Any]:
    """Return `scipy.optimize.linear_sum_assignment`."""
    with needs("scipy"):
        found = None if _PACKAGE in sys.modules else _alone()
        return getattr(importlib.import_module(_PACKAGE), _NAME) if found is None else found


def _alone() -> Callable[..., Any] | None:
    """Return the function of the compiled module; None if SciPy keeps it elsewhere."""
    package = importlib.util.find_spec(_PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder) / f"_lsap{suffix}"
            if not path.exists():
                continue
            loader = importlib.machinery.ExtensionFileLoader(_APART, str(path))
            spec = importlib.util.spec_from_file_location(_APART, path, loader=loader)
            assert spec is not None
            try:
                module = importlib.util.module_from_spec(spec)
                loader.exec_module(module)
            except ImportError:
                return None
            return getattr(module, _NAME, None)
    return None
