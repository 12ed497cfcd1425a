"""Which problem is answered by what: every public call beside the engine that it ends in."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from style import Theme


SWEEP, CODES, SORT, SIMPLEX = range(4)
# what each engine is, and where it lives
ENGINES = {
    SWEEP: (
        "The sweep, in a loop",
        "one pass over the cost moves both potentials;\n"
        "each marginal has its rule, each cost its reader\n"
        "(solvers/, sweeps/, kernels/)",
    ),
    CODES: (
        "A few sweeps, counted",
        "no check, no wait, taken back step by step\n(adapters/, gradients/layer/)",
    ),
    SORT: ("Sorting", "on a line the answer is an order\n(derived/line/, exact/line/)"),
    SIMPLEX: (
        "Simplex and assignment",
        "engines of POT and SciPy, and a proof\n(exact/)",
    ),
}
# a problem, the call, and what of the engine is its own
ROWS = {
    SWEEP: (
        ("exact, relaxed and free marginals", "solve(unbalanced=rho)"),
        ("penalties per point, TV, squares, bounds", "solve(unbalanced=Between(...))"),
        ("a stated mass", "solve(mass=)"),
        ("batches of unlike sizes", "solve(mask=)"),
        ("clouds, grids, files, ranks", "solve(PointCloud, GridCost, ...)"),
        ("a bound on the information of a plan", "sinkhorn_distance"),
        ("a loss between clouds", "sinkhorn_divergence"),
        ("barycentres, free ones too", "barycenter, free_barycenter(reg=)"),
        ("maps of new points", "r.potential, r.map"),
        ("labels of data sets", "sela_labels, balanced_labels"),
    ),
    CODES: (
        ("codes in a training step", "swav_codes, adapters.dino, ..."),
        ("layers that train", "normalize"),
    ),
    SORT: (
        ("points on a line or a circle", "solve_1d"),
        ("slices of clouds", "sliced_distance"),
        ("the optimum of clouds on a line", "solve_exact(PointCloud)"),
    ),
    SIMPLEX: (
        ("the optimum without entropy", "solve_exact, free_barycenter"),
        ("a stated mass, or a price for what stays", "solve_exact(mass=, unbalanced=TV)"),
    ),
}
_PROBLEM, _CALL, _PORT, _BOX, _WIDE = 0.0, 4.0, 7.75, 8.2, 4.4


def draw(theme: Theme) -> Figure:
    """Draw a line from every problem to its engine."""
    count = sum(len(rows) for rows in ROWS.values()) + len(ROWS) - 1
    figure = Figure(figsize=(11.2, 0.3 * count + 0.5))
    at = figure.add_subplot()
    at.set(xlim=(0, _BOX + _WIDE + 0.05), ylim=(count, -1.3))
    at.axis("off")
    for x, text in ((_PROBLEM, "problem"), (_CALL, "call"), (_BOX, "answered by")):
        at.text(x, -0.95, text, color=theme.soft, fontsize=9.5, va="center")
    top = 0
    for engine, rows in ROWS.items():
        middle = top + (len(rows) - 1) / 2
        for k, (problem, call) in enumerate(rows):
            _row(theme, at, top + k, problem, call)
        ends = [top - 0.3, top + len(rows) - 0.7]
        at.plot([_PORT, _PORT], ends, color=theme.series[engine], linewidth=1.6)
        at.plot([_PORT, _BOX], [middle, middle], color=theme.series[engine], linewidth=1.6)
        _engine(theme, at, engine, middle)
        top += len(rows) + 1
    return figure


def _row(theme: Theme, at: Axes, y: float, problem: str, call: str) -> None:
    at.text(_PROBLEM, y, problem, va="center", fontsize=9.5)
    at.text(_CALL, y, call, va="center", fontsize=8.6, family="DejaVu Sans Mono", color=theme.soft)


def _engine(theme: Theme, at: Axes, engine: int, middle: float) -> None:
    title, text = ENGINES[engine]
    half = 0.5 + 0.32 * (text.count("\n") + 1)
    box = FancyBboxPatch(
        (_BOX, middle - half),
        _WIDE,
        2 * half,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor="none",
        edgecolor=theme.series[engine],
        linewidth=1.4,
    )
    at.add_patch(box)
    at.text(_BOX + 0.14, middle - half + 0.45, title, va="center", fontsize=10, weight="bold")
    at.text(
        _BOX + 0.14,
        middle + 0.32,
        text,
        va="center",
        fontsize=8.4,
        color=theme.soft,
        linespacing=1.25,
    )
