"""Find the blocks of a page that are marked `python`, and run them as its reader would."""

import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield (lines above, code) of each block of a page."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        yield text[: found.start(1)].count("\n"), found[1]


def run(page: Path, *, alone: bool = False) -> int:
    """Run the blocks of a page in their order; return how many there are.

    They share their names, unless each is to run alone.
    """
    count = 0
    # dataclasses look their module up by name
    module = sys.modules["snippets_of_a_page"] = ModuleType("snippets_of_a_page")
    try:
        for above, code in blocks(page):
            if alone:
                module = sys.modules[module.__name__] = ModuleType(module.__name__)
            # blank lines in front give the traceback the line of the page
            exec(compile("\n" * above + code, str(page), "exec", dont_inherit=True), vars(module))
            count += 1
    finally:
        del sys.modules[module.__name__]
    return count


def main() -> None:
    """Run the pages that the command names with the package as it was installed."""
    # only here: who looks for blocks need not have them
    import torch

    import sinkhorn_ot

    installed = Path(sysconfig.get_path("purelib")).resolve()
    source = Path(sinkhorn_ot.__file__).resolve()
    if installed not in source.parents:
        sys.exit(f"sinkhorn_ot must be the wheel in {installed}, got {source}")
    for page in map(Path, sys.argv[1:]):
        torch.manual_seed(0)
        count = run(page)
        if not count:
            sys.exit(f"{page} has no block marked python")
        print(f"{page.name}: {count} blocks ran with sinkhorn_ot {sinkhorn_ot.__version__}")


if __name__ == "__main__":
    main()
