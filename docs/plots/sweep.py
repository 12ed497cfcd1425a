"""One sweep, drawn: a block of rows is exponentiated once, summed along and then down."""

import data
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import Theme

import sinkhorn_ot as so


ROWS, BLOCK = 24, slice(9, 14)


def draw(theme: Theme) -> Figure:
    """Draw the kernel, one block of its rows, and where the two sums go."""
    C, a, b = data.histograms(ROWS)
    P = so.solve(C, a, b, reg=0.02).plan
    figure = Figure(figsize=(9.6, 3.9))
    at = figure.add_axes((0, 0, 1, 1))
    at.set(xlim=(-22, 62), ylim=(32, -3.5), aspect="equal")
    at.axis("off")
    at.imshow(torch.sqrt(P / P.max()), cmap=theme.mass, extent=(0, ROWS, ROWS, 0), vmin=0, vmax=1)
    at.add_patch(Rectangle((0, 0), ROWS, ROWS, fill=False, edgecolor=theme.soft, linewidth=0.9))
    height = BLOCK.stop - BLOCK.start
    at.add_patch(
        Rectangle(
            (0, BLOCK.start), ROWS, height, fill=False, edgecolor=theme.series[1], linewidth=2
        )
    )
    _bars(theme, at, P)
    _words(theme, at)
    return figure


def _bars(theme: Theme, at: Axes, P: torch.Tensor) -> None:
    rows, columns = P.sum(1) / P.sum(1).max(), P.sum(0) / P.sum(0).max()
    for i, share in enumerate(rows.tolist()):
        inside = BLOCK.start <= i < BLOCK.stop
        colour = theme.series[1] if inside else theme.faint
        at.add_patch(Rectangle((ROWS + 1, i + 0.1), 4 * share, 0.8, color=colour, linewidth=0))
    for j, share in enumerate(columns.tolist()):
        at.add_patch(
            Rectangle((j + 0.1, ROWS + 1), 0.8, 4 * share, color=theme.series[2], linewidth=0)
        )


def _words(theme: Theme, at: Axes) -> None:
    middle = (BLOCK.start + BLOCK.stop) / 2
    arrow = {"arrowstyle": "-|>", "color": theme.soft, "linewidth": 1}
    text = dict(va="center", fontsize=10)
    at.annotate(
        "1  exponentiate\n    a block of rows, once",
        (0, middle),
        xytext=(-20, middle - 6),
        arrowprops=arrow,
        color=theme.ink,
        **text,
    )
    at.text(31, middle - 2.2, "2  sum along the rows", color=theme.series[1], **text)
    at.text(31, middle, r"    $u_i \leftarrow \log a_i - \log r_i$", color=theme.series[1], **text)
    at.text(31, middle + 2.6, "3  rescale the rows it still holds", color=theme.ink, **text)
    at.text(25.5, ROWS + 2.2, "4  add the block's column sums to s", color=theme.series[2], **text)
    at.text(
        25.5,
        ROWS + 5.0,
        r"after the last block: $v_j \leftarrow v_j + \log b_j - \log s_j$,"
        "\nand $|s - b|_1$ is the marginal error",
        color=theme.ink,
        **text,
    )
    at.text(ROWS / 2, -2, r"$P_{ij} = \exp(u_i + v_j - C_{ij}/\mathrm{reg})$", ha="center", **text)
