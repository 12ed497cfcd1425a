"""What the gallery shows: its entries, and the Markdown that they are in the page."""

import ast
from dataclasses import dataclass
from pathlib import Path

from style import write


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ACROSS = 3


@dataclass(frozen=True)
class Entry:
    """A picture with the script that makes it.

    Attributes:
        picture: Name of the picture, and of what paints it.
        script: Name of the script.
        seen: What the picture shows, for those who do not see it.
        title: Of the entry.
        says: One sentence, and a link to the page that goes on.
    """

    picture: str
    script: str
    seen: str
    title: str
    says: str


TRANSPORT = (
    Entry(
        "points",
        "solve_points",
        "Points of a ring, sent to two blobs",
        "A plan between clouds",
        "Where each point is sent, in memory that grows with the points alone: "
        "[clouds](how-to-choose.md#pointcloud-or-a-matrix)",
    ),
    Entry(
        "colours",
        "colour_transfer",
        "A photograph whose right half has the colours of another",
        "Colour transfer",
        "Fitted on a thousand pixels, applied to all 273,280: [maps](maps.md)",
    ),
    Entry(
        "bounds",
        "exact_and_certificate",
        "Intervals that close around the optimum as reg falls",
        "Exact against entropic",
        "What a certificate proves of the optimum, at five values of `reg`: "
        "[which to take](how-to-choose.md#entropic-or-exact)",
    ),
    Entry(
        "histograms",
        "batch_of_histograms",
        "Digits, and right of each the four nearest to it",
        "Histograms in a batch",
        "All pairs in one call, one cost, empty bins as they are: [masks and batches](ragged.md)",
    ),
    Entry(
        "barycentre",
        "barycenter_of_digits",
        "Three digits at places by chance, and what they have in common",
        "What digits share",
        "A debiased barycentre, where a mean shows nothing: [barycentres](barycenters.md)",
    ),
    Entry(
        "cells",
        "single_cell",
        "Cells of four days, coloured by what becomes of them",
        "Single cells over days",
        "Descendants and growth, from `X` and `obs` of an AnnData: [unbalanced](unbalanced.md)",
    ),
)
LEARNING = (
    Entry(
        "flow",
        "gradient_flow",
        "Points on their way to two half moons",
        "A gradient flow",
        "Down the divergence, which does not shrink what flows: [divergence](divergence.md)",
    ),
    Entry(
        "cost",
        "learn_a_cost",
        "What four ways to differ weigh, step by step",
        "A learned cost",
        "What observed matchings say that a cost weighs: [gradients](gradients.md)",
    ),
    Entry(
        "domains",
        "domain_adaptation",
        "Digits, and the same as a map makes them pale",
        "Domain adaptation",
        "A map fitted without labels moves all that have one: [maps](maps.md)",
    ),
)
CODES = (
    Entry(
        "swav",
        "swav",
        "Features of digits in a plane, in clusters",
        "SwAV on digits",
        "Features that no label taught; colours are the digits: [SwAV](adapters.md#swav)",
    ),
    Entry(
        "sela",
        "sela_fifty_thousand",
        "Sizes of labels, equal and unequal",
        "SeLa on 50,000 samples",
        "Equal shares, beside what the largest logit would give: [SeLa](adapters.md#sela)",
    ),
    Entry(
        "codes",
        "dino",
        "Codes of images that are sorted by digit",
        "DINO's codes",
        "A row for each image, images sorted by digit: "
        "[DINO and others](adapters.md#dinov2-ibot-capi-msn)",
    ),
    Entry(
        "experts",
        "moe_router",
        "Loads of eight experts: even by a plan, one alone by the best logit",
        "A router for experts",
        "Eight experts with even loads, where the best logit chooses one: "
        "[experts](adapters.md#a-router-for-experts)",
    ),
)
SIZES = (
    Entry(
        "many",
        "ten_to_the_five",
        "The few tiles of a matrix that can count",
        "A hundred thousand points",
        "Of the pairs of two clouds in the plane a few are ever looked at: [near](near.md)",
    ),
    Entry(
        "ranks",
        "solve_over_ranks",
        "A plan whose rows lie on two ranks",
        "Two ranks",
        "One problem over processes, each with rows of its own: [ranks](ranks.md)",
    ),
)


PARTS = {
    "gallery_transport": TRANSPORT,
    "gallery_learning": LEARNING,
    "gallery_codes": CODES,
    "gallery_sizes": SIZES,
}
ENTRIES = [entry for part in PARTS.values() for entry in part]


def tables() -> None:
    """Write the pictures of each part, and a line for every script."""
    for name, entries in PARTS.items():
        write(name, _grid(entries))
    rows = "".join(
        f"| [{path.stem}](examples/{path.name}) | {_first_line(path)} |\n"
        for path in sorted(EXAMPLES.glob("*.py"))
    )
    write("gallery_scripts", f"| script | what it shows |\n| --- | --- |\n{rows}")


def _grid(entries: tuple[Entry, ...]) -> str:
    """Return a table of linked pictures with what is to say below each."""
    lines = []
    for k in range(0, len(entries), ACROSS):
        row = entries[k : k + ACROSS]
        lines += [[_picture(entry) for entry in row], [_said(entry) for entry in row]]
    filled = [row + [""] * (ACROSS - len(row)) for row in lines]
    filled.insert(1, ["---"] * ACROSS)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in filled)


def _picture(entry: Entry) -> str:
    return (
        '[<picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="img/gallery/{entry.picture}-dark.svg">'
        f'<img alt="{entry.seen}" src="img/gallery/{entry.picture}-light.svg"></picture>]'
        f"(examples/{entry.script}.py)"
    )


def _said(entry: Entry) -> str:
    return f"**[{entry.title}](examples/{entry.script}.py)** {entry.says}"


def _first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return doc.splitlines()[0].rstrip(".")
