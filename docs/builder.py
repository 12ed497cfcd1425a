"""What MkDocs does with pages that are written as a code host reads them: a hook of mkdocs.yml."""

import re
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.util import AtomicString
from mkdocs.structure.files import File


# pages that stand in the root of the repository
ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
_PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">'
    r'\s*<img alt="([^"]*)" src="([^"]+)">\s*</picture>'
)
_ENTRY = re.compile(r"^(#+) `([\w.]+)`\n\n(::: \S+)\n(    options:\n)?", re.MULTILINE)
_FENCE = re.compile(r"^( *)(`{3,})[^`\n]*\n.*?^\1\2$", re.MULTILINE | re.DOTALL)
# code and tags, between which a number with an exponent or a unit stays on one line
_KEPT = re.compile(r"(<(pre|code)\b.*?</\2>|<[^>]*>)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])\d[\d.]*(?:e[-+]?\d+|\s(?:µs|ms|s|kB|MB|GB|GiB))(?!\w)")
_LINK = re.compile(r"(\]\()([^):#\s]+)(?=[)#])")


class Dollars(InlineProcessor):
    """Inline mathematics: $`x`$, which hosts that know none show as code."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:  # type: ignore[override] # noqa: N802
        """Return what the script of the site typesets."""
        element = Element("span", {"class": "arithmatex"})
        element.text = AtomicString(rf"\({m[1]}\)")
        return element, m.start(0), m.end(0)


class Mathematics(Extension):
    """The extension that knows dollars, before code is looked for."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register it."""
        md.inlinePatterns.register(Dollars(r"\$`([^`]+)`\$", md), "dollars", 195)


def on_config(config: Any) -> Any:
    """Teach the builder dollars."""
    config.markdown_extensions.append(Mathematics())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root."""
    for name, source in ROOT.items():
        files.append(File.generated(config, name, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page with figures, entries and links as the builder wants them; code stays."""
    here = page.file.src_uri
    folder = PurePosixPath("" if here in ROOT else "docs", here).parent

    def prose(text: str) -> str:
        text = _PICTURE.sub(_twins, text)
        if here.startswith("api/"):
            text = _ENTRY.sub(_entry, text)
        return _LINK.sub(lambda m: m[1] + _link(m[2], folder, here, config.repo_url), text)

    made, end = "", 0
    for fence in _FENCE.finditer(markdown):
        made += prose(markdown[end : fence.start()]) + fence[0]
        end = fence.end()
    return made + prose(markdown[end:])


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Return the text of a page with numbers that no line breaks."""
    made, end = "", 0
    for kept in [*_KEPT.finditer(html), None]:
        start = kept.start() if kept else len(html)
        made += _NUMBER.sub(r'<span class="number">\g<0></span>', html[end:start])
        made, end = (made + kept[0], kept.end()) if kept else (made, start)
    return made


def _twins(m: re.Match[str]) -> str:
    """Return the pair of which the theme shows one, also when its reader switches."""
    dark, alt, light = m.groups()
    return f"![{alt}]({light}#only-light) ![{alt}]({dark}#only-dark)"


def _entry(m: re.Match[str]) -> str:
    """Return an entry of the reference with the anchor of its heading; it brings a heading."""
    anchor = m[2].replace(".", "").lower()
    options = f"    options:\n      heading_level: {len(m[1])}\n"
    return f'<a id="{anchor}"></a>\n\n{m[3]}\n{options}'


def _link(target: str, folder: PurePosixPath, here: str, repository: str) -> str:
    """Return where a page of the site leads for a path in the repository."""
    parts: list[str] = []
    for part in (folder / target).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    path = "/".join(parts)
    for name, source in ROOT.items():
        if path == source:
            path = f"docs/{name}"
    if not path.startswith("docs/") or path.endswith(".py"):
        return f"{repository}/blob/main/{path}"
    up = "../" * (len(PurePosixPath(here).parts) - 1)
    return up + path.removeprefix("docs/")
