"""Pages read as plain Markdown, as a code host shows them, and lead to what is there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
HOME = "https://github.com/sinkhorn-ot/sinkhorn_ot/"
FENCE = re.compile(r"^( *)(`{3,})[^`\n]*\n.*?^\1\2$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
PICTURE = (
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)-dark\.svg">'
    r'\s*<img alt="[^"]+" src="([^"]+)-light\.svg">\s*</picture>'
)
# what only a builder understands
LEFTOVERS = {
    "an inclusion": r"--8<--",
    "half of a figure": r"#only-|!\[",
    "attributes": r"\{ *[.:#][\w-]",
    "a box or a tab": r'^ *(!!!|\?\?\?\+?|===\+?) +[\w"]',
    "a cross-reference": r"\]\[",
    "a footnote": r"\[\^",
    "mathematics without a code span": r"\\[(\[]|\$",
    "an icon": r":(material|octicons|fontawesome)-",
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """Return a page without its code; of inline code and mathematics an x is left."""
    return CODE.sub("x", re.sub(r"\$(`[^`]+`)\$", r"\1", FENCE.sub("", text)))


def slugs(page: Path) -> list[str]:
    """Return the anchors that a code host gives a page."""
    found = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page.read_text()), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in found]
    kept = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in shown]
    return [slug for slug, count in Counter(kept).items() if count == 1]


def html(text: str) -> str:
    """Return what a renderer that knows no extensions but tables makes of a page."""
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        from markdown import markdown

        return markdown(text, extensions=["tables", "fenced_code", "md_in_html", "sane_lists"])
    return MarkdownIt("commonmark").enable("table").render(text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nothing_is_left_for_a_builder(page: Path):
    text = prose(page.read_text())
    for what, pattern in LEFTOVERS.items():
        found = re.search(f".*(?:{pattern}).*", text, re.MULTILINE)
        assert not found, f"{what}: {found[0]}"
    assert (":::" in text) <= (page.parent.name == "api")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_it_renders_whole(page: Path):
    made = html(page.read_text())
    shown = re.sub(r"<(pre|code)\b.*?</\1>|<!--.*?-->", "", made, flags=re.DOTALL)
    left = re.search(r".*(\]\(|\*\*|`|\| ---|&lt;/?(picture|details|summary|img)).*", shown)
    assert not left, left[0]
    headings = re.findall(r"^#+ ", FENCE.sub("", page.read_text()), re.MULTILINE)
    assert len(re.findall(r"<h\d", made)) == len(headings)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_rows_have_the_cells_of_their_table(page: Path):
    """A bar ends a cell, in code and in mathematics too."""
    for table in re.findall(r"(?:^ *\|.*\n)+", FENCE.sub("", page.read_text()), re.MULTILINE):
        bars = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(bars)) == 1, table


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"<!--.*?-->", "", prose(page.read_text()))
    found = re.findall(r"\]\(([^)\s]+)\)|(?:href|src|srcset)=\"([^\"]+)\"", text)
    for link in map("".join, found):
        target, _, anchor = re.sub(rf"^{HOME}(?:blob|raw)/main/", "/", link).partition("#")
        if "://" in target:
            continue
        path = ROOT / target[1:] if target.startswith("/") else page.parent / target
        path = path if target else page
        assert path.exists(), link
        assert not anchor or anchor in slugs(path), link


def test_links_of_the_front_page_work_in_the_package_index():
    text = prose((ROOT / "README.md").read_text())
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert links
    assert all("".join(link).startswith("https://") for link in links)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_figure_is_there_for_light_and_dark(page: Path):
    text = FENCE.sub("", page.read_text())
    pairs = re.findall(PICTURE, text)
    assert len(pairs) == len(re.findall("<picture|<img", text)) / 2
    assert all(dark == light for dark, light in pairs)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_mathematics_stands_where_hosts_look_for_it(page: Path):
    text = FENCE.sub("", page.read_text())
    for found in re.finditer(r"(.?)\$`([^`]+)`\$(.?)", text, re.DOTALL):
        before, formula, after = found.groups()
        assert not re.match(r"\w", before), found[0]
        assert not re.match(r"\w", after), found[0]
        assert "\n" not in formula, found[0]


@pytest.mark.slow(1)
def test_mathematics_is_known_to_the_script_of_the_site():
    """KaTeX, which the site bundles, typesets every formula of every page."""
    texts = [page.read_text() for page in PAGES if DOCS in page.parents]
    formulas = [formula for text in texts for formula in re.findall(r"\$`([^`]+)`\$", text)]
    blocks = [
        block
        for text in texts
        for block in re.findall(r"^ *```math\n(.*?)^ *```$", text, re.M | re.S)
    ]
    assert formulas
    assert blocks
    code = """
        const katex = require(process.argv[1]);
        const [inline, blocks] = JSON.parse(require("fs").readFileSync(0, "utf8"));
        for (const text of inline) katex.renderToString(text, {strict: "error"});
        for (const text of blocks) katex.renderToString(text, {strict: "error", displayMode: true});
    """
    done = subprocess.run(
        [_node(), "-e", code, DOCS / "assets" / "katex" / "katex.min.js"],
        input=json.dumps([formulas, blocks]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr


def _node() -> str:
    """Return Node, which pyright brings, or skip."""
    found = shutil.which(
        "node", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip("needs node")
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_generated_has_a_beginning_and_an_end(page: Path):
    marks = re.findall(r"^ *<!-- (begin|end) (\w+) -->$", FENCE.sub("", page.read_text()), re.M)
    assert len(set(marks)) == len(marks)
    assert marks == [(side, what) for _, what in marks[::2] for side in ("begin", "end")]
    scripts = "\n".join(path.read_text() for path in (DOCS / "plots").glob("*.py"))
    assert all(f'"{what}"' in scripts for _, what in marks)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_fits_its_column(page: Path):
    """88 characters stand beside both columns of a window of 1280 (docs/assets/site.css)."""
    for fence in FENCE.finditer(page.read_text()):
        if not fence[0].lstrip().startswith("```math"):
            wide = [line for line in fence[0].splitlines() if len(line) > 88]
            assert not wide, wide[0]


def test_the_site_fetches_nothing_from_elsewhere():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    for path in site["extra_css"] + site["extra_javascript"]:
        assert (DOCS / path).exists(), path
    assert (DOCS / "assets/katex/LICENSE").exists()
    assert site["repo_url"] + "/" == HOME
