"""How figures and tables look: colours all readers can tell apart, on light and dark pages."""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure


PAGES = Path(__file__).resolve().parents[1]
IMAGES = PAGES / "img"
# marks from which a style is written once
_OFTEN = 20


@dataclass(frozen=True)
class Theme:
    """The colours of one page background."""

    name: str
    page: str
    ink: str
    soft: str
    faint: str
    # blue, orange, green, pink: distinct in hue and in lightness
    series: tuple[str, str, str, str]

    @property
    def mass(self) -> LinearSegmentedColormap:
        """A colour map that begins at the page: no mass is no ink."""
        stops = [self.page, self.series[0], self.ink]
        return LinearSegmentedColormap.from_list("mass", stops)


LIGHT = Theme(
    "light",
    "#ffffff",
    "#20242b",
    "#5b6470",
    "#d5d9df",
    ("#0072b2", "#c2500a", "#00815a", "#a8508a"),
)
DARK = Theme(
    "dark", "#1e2129", "#e8eaee", "#a7afbc", "#444a56", ("#56b4e9", "#f0a028", "#2fc598", "#e69cc8")
)
MARKS = ("o", "s", "^", "D")
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1, 2)))


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw with the theme's colours while the context lasts."""
    settings = {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.soft,
        "axes.titlecolor": theme.ink,
        "xtick.color": theme.soft,
        "ytick.color": theme.soft,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "grid.color": theme.faint,
        "grid.linewidth": 0.6,
        "axes.grid": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "lines.linewidth": 1.9,
        "image.interpolation": "nearest",
        "svg.fonttype": "path",
        # the same figure gives the same file
        "svg.hashsalt": "sinkhorn_ot",
    }
    with mpl.rc_context(settings):
        yield


def save(name: str, draw: Callable[[Theme], Figure], preview: Path | None = None) -> None:
    """Write `name` for both pages as SVG; with `preview`, also as PNG on the page's colour."""
    for theme in (LIGHT, DARK):
        with themed(theme):
            figure = draw(theme)
            out = io.BytesIO()
            figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
            drawn = IMAGES / f"{name}-{theme.name}.svg"
            drawn.parent.mkdir(exist_ok=True)
            drawn.write_bytes(_tidy(out.getvalue()))
            if preview is not None:
                path = preview / f"{name}-{theme.name}.png"
                path.parent.mkdir(exist_ok=True)
                figure.savefig(path, dpi=90, bbox_inches="tight", facecolor=theme.page)


def _tidy(svg: bytes) -> bytes:
    """Return a figure with places to a hundredth, and with the style of many marks once."""
    placed = re.sub(
        rb' (?:d|x|y)="[^"]*"', lambda m: re.sub(rb"(\.\d{2})\d+", rb"\1", m.group()), svg
    )
    styles = Counter(re.findall(rb'style="([^"]*)"/>', placed))
    often = [style for style, count in styles.items() if count > _OFTEN]
    rules = b""
    for k, style in enumerate(often):
        placed = placed.replace(b'style="%s"/>' % style, b'class="m%d"/>' % k)
        rules += b".m%d{%s}" % (k, style)
    placed = placed.replace(b"</style>", rules + b"</style>", 1)
    return b"\n".join(line.rstrip() for line in placed.splitlines()) + b"\n"


def table(name: str, header: list[str], rows: list[list[str]]) -> None:
    """Write a Markdown table into the page that has a place for it."""
    lines = [header, ["---"] * len(header), *rows]
    write(name, "".join(f"| {' | '.join(cells)} |\n" for cells in lines))


def write(name: str, text: str) -> None:
    """Put generated Markdown between the comments `begin name` and `end name` of a page."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    pages = [page for page in sorted(PAGES.glob("*.md")) if begin in page.read_text()]
    if not pages:
        raise LookupError(f"no page in {PAGES} has the lines {begin.strip()} and {end.strip()}")
    for page in pages:
        before, rest = page.read_text().split(begin)
        page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
