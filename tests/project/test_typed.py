"""What is installed tells type checkers its types: they take good calls and refuse bad ones."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from project.test_packaging import REPOSITORY, build, copy


SCRIPTS = REPOSITORY / "tests" / "project" / "typed"
# mypy takes long to read torch, once
CACHE = REPOSITORY / ".mypy_cache" / "typed"
Found = set[tuple[str, int]]


@pytest.fixture(scope="module", params=["wheel", "editable"])
def python(request, tmp_path_factory) -> Path:
    """Install the package as one kind of wheel beside what this Python has; return the new one."""
    pytest.importorskip("setuptools", minversion="77")
    tmp = tmp_path_factory.mktemp(request.param)
    copy(tmp / "source")
    wheel = build(request.param, tmp / "source", tmp)
    venv.create(tmp / "venv")
    (packages,) = (tmp / "venv" / "lib").glob("*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # its own .pth files are not followed, nor is an editable install there
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib"))
    # where no configuration of the repository's is found
    shutil.copytree(SCRIPTS, tmp / "venv" / "scripts")
    return tmp / "venv" / "bin" / "python"


def _refused() -> Found:
    lines = (SCRIPTS / "bad.py").read_text().splitlines()
    return {("bad.py", k) for k, line in enumerate(lines, 1) if line.endswith("# refused")}


def _mypy(python: Path) -> Found:
    how = ["--strict", "--output=json", f"--cache-dir={CACHE}", f"--python-executable={python}"]
    errors = [json.loads(line) for line in _run(python, "mypy", *how, ".").splitlines()]
    return {(e["file"], e["line"]) for e in errors if e["severity"] == "error"}


def _pyright(python: Path) -> Found:
    errors = json.loads(_run(python, "pyright", "--outputjson", f"--pythonpath={python}", "."))
    return {
        (Path(e["file"]).name, e["range"]["start"]["line"] + 1)
        for e in errors["generalDiagnostics"]
        if e["severity"] == "error"
    }


def _run(python: Path, tool: str, *options: str) -> str:
    """Run a type checker on the scripts, which sees the package only where it is installed."""
    path = shutil.which(tool, path=Path(sys.executable).parent)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folder = python.parents[1] / "scripts"
    done = subprocess.run(
        [path, *options], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow(10)
@pytest.mark.parametrize("errors", [_mypy, _pyright])
def test_good_calls_pass_and_bad_ones_do_not(errors, python):
    found, refused = errors(python), _refused()
    assert not found - refused, "refused without a mark"
    assert not refused - found, "not refused"
