"""The documentation keeps its word: names have entries, blocks run, no file is missing."""

import importlib
import re
from pathlib import Path

import matplotlib as mpl
import pytest
import snippets
import torch

import sinkhorn_ot as so


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN = [page for page in PAGES if any(snippets.blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_public_name_has_an_entry():
    entries = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    documented = re.findall(r"^::: sinkhorn_ot\.(\w+)$", entries, re.MULTILINE)
    assert sorted(documented) == sorted(set(documented))
    assert set(so.__all__) - {"adapters"} == set(documented)


# what torch itself warns of when it loads its transforms
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    snippets.run(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_images_and_included_files_are_there(page: Path):
    text = page.read_text()
    for target in re.findall(r'!\[[^\]]*\]\(([^)#]+)|(?:src|srcset)="([^"]+)"', text):
        path = "".join(target)
        assert path.startswith("http") or (page.parent / path).exists(), path
    for path in re.findall(r'^--8<-- "([^"]+)"', text, re.MULTILINE):
        assert (ROOT / path).exists(), path


def test_figures_are_light_and_come_in_pairs():
    files = sorted((DOCS / "img").glob("*.svg"))
    assert files
    for path in files:
        assert path.stat().st_size < 150_000, path.name
        other = "dark" if "-light" in path.name else "light"
        assert path.with_name(re.sub("light|dark", other, path.name)).exists()


@pytest.mark.slow(1)
@pytest.mark.parametrize("module", ["errors", "rooms", "learnt", "predicted"])
def test_generated_tables_are_current(module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(DOCS / "plots"))
    style = importlib.import_module("style")
    made_by = importlib.import_module(module)
    monkeypatch.setattr(style, "TABLES", tmp_path)
    made_by.tables()
    made = list(tmp_path.iterdir())
    assert made
    for path in made:
        current = (DOCS / "tables" / path.name).read_text()
        assert path.read_text() == current, "run python docs/plots/make.py"
