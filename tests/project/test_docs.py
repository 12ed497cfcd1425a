"""The documentation keeps its word: names have entries, blocks run, no file is missing."""

import importlib
import pkgutil
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
# what a script wrote into a page
MADE = re.compile(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", re.DOTALL)
PAINTERS = (DOCS / "plots/gallery.py").read_text()
# of these each block is to be copied alone
ALONE = [DOCS / "tutorial.md", *(DOCS / "coming").glob("*.md")]
RUN = [page for page in PAGES if any(snippets.blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_public_name_has_an_entry():
    entries = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    found = re.findall(r"^#+ `([\w.]+)`\n\n::: sinkhorn_ot\.([\w.]+)$", entries, re.MULTILINE)
    assert len(found) == len(re.findall("^:::", entries, re.MULTILINE))
    documented = [heading for heading, _ in found]
    assert sorted(documented) == sorted(set(documented))
    assert set(so.__all__) - {"adapters"} == {name for name in documented if "." not in name}


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=name)
def test_an_entry_is_what_its_heading_says_and_no_module(page: Path):
    found = re.findall(r"^#+ `([\w.]+)`\n\n::: (\S+)$", page.read_text(), re.MULTILINE)
    assert found
    for heading, path in found:
        module, _, attribute = f"sinkhorn_ot.{heading}".rpartition(".")
        thing = pkgutil.resolve_name(f"{module}:{attribute}")
        # the builder looks for a module before it looks for what a door exports
        assert not (ROOT / path.replace(".", "/")).exists(), path
        assert pkgutil.resolve_name(":".join(path.rsplit(".", 1))) is thing, path


# what torch itself warns of when it loads its transforms
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    snippets.run(page, alone=page in ALONE)


def test_figures_are_light_and_come_in_pairs():
    files = sorted((DOCS / "img").rglob("*.svg"))
    assert files
    for path in files:
        assert path.stat().st_size < (60_000 if path.parent.name == "gallery" else 150_000), path
        other = "dark" if "-light" in path.name else "light"
        assert path.with_name(re.sub("light|dark", other, path.name)).exists()


def test_the_gallery_has_the_pictures_of_its_entries(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS / "plots"))
    shown = importlib.import_module("shown")
    painted = re.findall(r"^def (\w+)\(theme: Theme, axes: Axes\) -> None:", PAINTERS, re.MULTILINE)
    pictures = {path.stem.rpartition("-")[0] for path in (DOCS / "img/gallery").iterdir()}
    assert sorted(pictures) == sorted(painted) == sorted(e.picture for e in shown.ENTRIES)


@pytest.mark.slow(1)
@pytest.mark.parametrize("module", ["errors", "rooms", "learnt", "predicted", "shown"])
def test_generated_tables_are_current(module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(DOCS / "plots"))
    style = importlib.import_module("style")
    made_by = importlib.import_module(module)
    known = {}
    for page in DOCS.glob("*.md"):
        known |= {found[1]: found[2] for found in MADE.finditer(page.read_text())}
        text = MADE.sub(r"<!-- begin \1 -->\nnobody\n<!-- end \1 -->", page.read_text())
        (tmp_path / page.name).write_text(text)
    monkeypatch.setattr(style, "PAGES", tmp_path)
    made_by.tables()
    now = [found for page in tmp_path.iterdir() for found in MADE.finditer(page.read_text())]
    made = {found[1]: found[2] for found in now if found[2] != "nobody\n"}
    assert made
    assert made == {what: known[what] for what in made}, "run python docs/plots/make.py"
