"""What is built holds the package, its kernels and its types, and nothing at the top level."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import sinkhorn_ot


PACKAGE = Path(sinkhorn_ot.__file__).parent
REPOSITORY = PACKAGE.parent
FILES = {"setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in"}


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a source distribution, a wheel or an editable one; return where it is."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


def copy(source: Path, *more: str) -> None:
    """Copy what is built, and more folders, to where building may leave things."""
    source.mkdir()
    for name in FILES:
        shutil.copy(REPOSITORY / name, source)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("kernels", "sinkhorn_ot", *more):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignore)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[list[str], list[str]]:
    """Build a source distribution from a copy, and from that a wheel; return their names."""
    pytest.importorskip("setuptools", minversion="77")
    tmp = tmp_path_factory.mktemp("build")
    source = tmp / "source"
    copy(source, "docs")
    with tarfile.open(build("sdist", source, tmp)) as archive:
        archive.extractall(tmp / "sdist", filter="data")
        names = [name.partition("/")[2] for name in archive.getnames()]
    (unpacked,) = (tmp / "sdist").iterdir()
    with zipfile.ZipFile(build("wheel", unpacked, tmp)) as archive:
        return names, archive.namelist()


@pytest.mark.slow(1)
def test_documentation_and_changes_are_in_the_source(built):
    pages = {str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs").rglob("*.md")}
    assert {"CHANGELOG.md", "docs/img/plans-dark.svg", *pages} <= set(built[0])


@pytest.mark.slow(1)
def test_every_module_is_in_the_wheel(built):
    # not rglob, which does not follow the link to kernels/
    files = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/*.py"), PACKAGE / "py.typed"]
    assert {str(f.relative_to(REPOSITORY)) for f in files} <= set(built[1])


@pytest.mark.slow(1)
def test_nothing_else_is_at_the_top(built):
    tops = {name.split("/")[0] for name in built[1]}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sinkhorn_ot"}
