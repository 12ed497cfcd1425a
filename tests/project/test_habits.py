"""What others join by: forms parse, commands exist, and what is written twice agrees."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import snippets
import torch
import yaml

import sinkhorn_ot as so
from sinkhorn_ot.problem.others.packages import INSTALLED_AS


if sys.version_info >= (3, 11):
    import tomllib
else:
    # pytest brings it where Python does not have it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CITATION, HOOKS = ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml"
UPDATES = ROOT / ".github" / "dependabot.yml"
PAGES = sorted(ROOT.glob("*.md"))
PACKAGE = Path(so.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _recipes() -> dict[str, list[str]]:
    """Return the lines of each target of the Makefile, as the shell gets them."""
    recipes: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (ROOT / "Makefile").read_text().splitlines():
        target = re.match(r"([.\w/-]+):(?!=)", line)
        if target:
            lines = recipes.setdefault(target[1], [])
        elif line.startswith("\t"):
            lines.append(line[1:])
    return recipes


def _as_hook(line: str) -> str:
    """Write a line of the Makefile as a shell in the repository would."""
    for make, shell in (("$(BIN)", ".venv/bin"), ("$(CURDIR)", "$PWD"), ("$$", "$")):
        line = line.replace(make, shell)
    return line


def _runs(workflow: Path) -> list[str]:
    steps = [step for job in _load(workflow)["jobs"].values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines()]


def _urls(text: str) -> list[str]:
    return re.findall(r"https?://(?:[\w-]+\.)*(?:github\.com|github\.io)[^\s)\"'>]*", text)


@pytest.mark.parametrize("path", [*FORMS, *WORKFLOWS, CITATION, HOOKS, UPDATES], ids=_name)
def test_yaml_parses(path: Path):
    assert isinstance(_load(path), dict)


@pytest.mark.parametrize("path", [p for p in FORMS if p.stem != "config"], ids=_name)
def test_a_form_asks_each_thing_once(path: Path):
    form = _load(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.slow(2)
def test_the_line_that_prints_versions_runs():
    (line,) = re.findall(r"^ +(python -c .+)$", (FORMS[0].parent / "bug.yml").read_text(), re.M)
    code = shlex.split(line)[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert f"sinkhorn_ot {so.__version__}, torch {torch.__version__}, CUDA " in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=_name)
def test_workflows_run_targets_of_the_makefile(path: Path):
    runs = [line.split() for line in _runs(path)]
    assert runs
    assert {words[0] for words in runs} == {"make"}
    assert {target for words in runs for target in words[1:]} <= set(_recipes())


@pytest.mark.parametrize("path", WORKFLOWS, ids=_name)
def test_workflows_use_actions_that_nobody_can_change(path: Path):
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used)


def test_pages_name_targets_that_exist():
    text = "\n".join(page.read_text() for page in PAGES)
    shown = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S))
    said = re.findall(r"^ *make ([a-z -]+)", shown, re.M) + re.findall(r"`make ([a-z -]+)`", text)
    assert {target for words in said for target in words.split()} <= set(_recipes())
    assert "check test dist" in said


def test_scripts_of_a_release_can_be_started():
    called = [line.split()[-1] for target in ("dist", "publish") for line in _recipes()[target]]
    assert called == ["release/dist", "release/publish"]
    for script in called:
        assert os.access(ROOT / script, os.X_OK)
        subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize(
    ("version", "date", "said"),
    [("1.2.4", "2027-01-31", "the version is 1.2.4"), ("1.2.3", "unreleased", "1.2.3 no date")],
)
def test_a_release_refuses_a_tag_that_is_not_its_version(
    version: str, date: str, said: str, tmp_path: Path
):
    (tmp_path / "release").mkdir()
    shutil.copy(ROOT / "release" / "dist", tmp_path / "release")
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} ({date})\n")
    me = ["-c", "user.name=me", "-c", "user.email=me"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["tag", "v1.2.3"]):
        subprocess.run(["git", *me, *words], cwd=tmp_path, check=True)
    # a Python that does not exist: it must stop before it needs one
    done = subprocess.run(
        [tmp_path / "release" / "dist"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": "no-python"},
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_hooks_run_what_make_check_runs():
    (repository,) = _load(HOOKS)["repos"]
    assert repository["repo"] == "local"
    entries = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    assert entries == [["bash", "-c", _as_hook(line)] for line in _recipes()["check"]]
    assert not any(hook["pass_filenames"] for hook in repository["hooks"])


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == so.__version__
    assert _load(CITATION)["version"] == so.__version__


def test_what_pip_is_told_where_a_package_is_missing_is_what_this_one_asks_for():
    assert set(INSTALLED_AS.values()) <= set(PROJECT["dependencies"])


def test_the_changelog_begins_with_this_version():
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert re.fullmatch(
        re.escape(so.__version__) + r" \((unreleased|\d{4}-\d\d-\d\d)\)", sections[0]
    )
    released = _load(CITATION).get("date-released", "unreleased")
    assert sections[0].endswith(f"({released})")


def test_the_project_has_one_home():
    home = PROJECT["urls"]["Repository"]
    assert _load(CITATION)["repository-code"] == home
    for path in [ROOT / "pyproject.toml", CITATION, *FORMS, *WORKFLOWS, *PAGES]:
        for url in _urls(path.read_text()):
            assert url == home or url.startswith(home + "/"), f"{_name(path)}: {url}"


def test_links_into_the_repository_lead_to_files():
    home = PROJECT["urls"]["Repository"]
    for path in [ROOT / "pyproject.toml", *FORMS, *PAGES]:
        for url in _urls(path.read_text()):
            _, blob, file = url.partition(f"{home}/blob/main/")
            assert not blob or (ROOT / file).exists(), f"{_name(path)}: {url}"


def test_the_package_and_its_citation_name_the_same_people_and_licence():
    cited = _load(CITATION)
    assert cited["authors"] == PROJECT["authors"] == PROJECT["maintainers"]
    assert cited["license"] == PROJECT["license"]
    assert not [c for c in PROJECT["classifiers"] if c.startswith("License ::")]


def test_the_ends_of_what_is_claimed_are_checked():
    start = "Programming Language :: Python :: 3."
    names = [name for name in PROJECT["classifiers"] if name.startswith(start)]
    claimed = [int(name.removeprefix(start)) for name in names]
    assert claimed == list(range(claimed[0], claimed[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{claimed[0]}"
    matrix = _load(ROOT / ".github/workflows/check.yml")["jobs"]["check"]["strategy"]["matrix"]
    checked = {int(version.split(".")[1]) for version in matrix["python"]}
    assert {claimed[0], claimed[-1]} <= checked <= set(claimed)


def test_the_source_archive_names_files_that_exist():
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        assert all((ROOT / file).exists() for file in line.split()[1:]), line


def test_snippets_are_found_where_they_stand():
    page = ROOT / "README.md"
    lines = page.read_text().splitlines()
    found = list(snippets.blocks(page))
    assert len(found) == lines.count("```python") > 0
    for above, code in found:
        assert lines[above - 1] == "```python"
        assert lines[above + code.count("\n")] == "```"


def test_a_snippet_that_fails_names_the_line_of_its_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n\n```python\nassert x == 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        snippets.run(page)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (page, 9)


def test_security_page_is_true_nothing_is_unpickled_fetched_or_started():
    loaders = {"dill", "joblib", "marshal", "pickle", "shelve", "socket", "urllib", "requests"}
    # what may be called so alone
    calls = {
        ("torch", "load"): "weights_only=True",
        ("np", "load"): "allow_pickle=False",
        ("numpy", "load"): "",
        ("hub", "load"): "",
    }
    # not rglob, which does not follow the link to kernels/
    for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/*.py"), *PACKAGE.glob("*/*/*.py")]:
        # the kernels' tools for developers start the disassemblers
        banned = loaders if path.parent.name == "kernels" else {*loaders, "subprocess"}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & banned, path
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                # the name of an error reads nothing
                error = [alias.name for alias in node.names] == ["UnpicklingError"]
                assert error or node.module.split(".")[0] not in banned, path
            elif isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {"open", "eval", "exec"}, path
                called = tuple(ast.unparse(node.func).split(".")[-2:])
                how = [ast.unparse(keyword) for keyword in node.keywords]
                assert called not in calls or calls[called] in how, path


def test_security_page_is_true_a_label_bank_is_read_back_as_tensors(tmp_path: Path):
    bank = so.LabelBank(6, 3)
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    read = torch.load(tmp_path / "bank.pt", weights_only=True)
    assert set(read) == set(bank.state_dict())
