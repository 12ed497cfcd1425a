"""The two halves of the demo, each printing a table and leaving figures."""

import time
from pathlib import Path

import torch
from torch import Tensor

import sinkhorn_ot as so

from . import digits, figures, judge, training


def run(out: Path, quick: bool = False) -> list[Path]:
    """Run both halves and return the figures' paths."""
    data = digits.load(300 if quick else None)
    return [*transport(data, out), *clustering(data, out, quick)]


def transport(data: digits.Digits, out: Path) -> list[Path]:
    """Move one image onto another and one class onto another, entropically and exactly."""
    _headline("1. Transport between digits: entropic, exact, and the proof of both")
    # the first call loads the engine
    so.solve_exact(torch.eye(2))
    source, target = (int((data.labels == digit).nonzero()[0]) for digit in (1, 0))
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    a, b = (data.pixels[i].double() / data.pixels[i].sum() for i in (source, target))
    empty = f"{int((a == 0).sum())} and {int((b == 0).sum())}"
    print(f"\nTwo images as mass on 64 pixels, {empty} of them empty.")
    print("Cost: squared distance in pixels.\n")
    plans = compare(so.PointCloud(grid, grid), a, b)
    first = figures.images({k: plans[k] for k in ("reg 1", "exact")}, grid)

    x, y = (data.pixels[data.labels == digit].double() for digit in (3, 8))
    print(f"\nTwo classes as clouds of {len(x)} and {len(y)} points in 64 dimensions.")
    print("Cost: squared distance of the images.\n")
    plans = compare(so.PointCloud(x, y))
    both = torch.cat([x, y])
    # the two directions in which the points differ most
    plane = torch.linalg.svd(both - both.mean(0), full_matrices=False).Vh[:2].T
    kept = {k: plans[k] for k in ("reg 0.1", "exact")}
    second = figures.clouds(x @ plane, y @ plane, kept, ("threes", "eights"))
    return [
        figures.save(first, out / "transport_images.png"),
        figures.save(second, out / "transport_clouds.png"),
    ]


def compare(
    cost: so.PointCloud, a: Tensor | None = None, b: Tensor | None = None
) -> dict[str, Tensor]:
    """Print what each regularisation costs and proves; return the plans by name."""
    plans = {}
    print("              cost   optimum is between           gap  sweeps      ms   status")
    for reg in (1.0, 0.1, 0.01, None):
        start = time.perf_counter()
        r = so.solve(cost, a, b, reg) if reg else so.solve_exact(cost, a, b)
        took = 1e3 * (time.perf_counter() - start)
        name = f"reg {reg:g}" if reg else "exact"
        bound = r.certificate()
        between = f"{bound.lower:8.5f} and {bound.upper:8.5f}  {bound.gap:8.1e}"
        effort = f"{int(r.n_iter) if reg else '-':>6}  {took:6.1f}"
        print(f"{name:<9} {r.value_linear:8.5f}  {between}  {effort}   {r.status.name}")
        plans[name] = r.plan
    return plans


def clustering(data: digits.Digits, out: Path, quick: bool) -> list[Path]:
    """Learn digits without labels in two ways; print how well their clusters match the labels."""
    _headline("2. Digits learnt without labels: SwAV codes and SeLa labels in the loop")
    print(f"\n{len(data.labels)} images of 8 x 8 pixels, a small convolutional network.\n")
    start = time.perf_counter()
    by_swav = training.train_swav(data.images, 2 if quick else 30)
    middle = time.perf_counter()
    by_sela, found = training.train_sela(data.images, 2 if quick else 60)
    end = time.perf_counter()

    clusters = {
        "raw pixels, k-means": digits.k_means(data.pixels),
        "SwAV features, k-means": digits.k_means(digits.features(by_swav, data.images)),
        "SeLa features, k-means": digits.k_means(digits.features(by_sela, data.images)),
    }
    heads = {f"SeLa labels of head {h}": labels for h, labels in enumerate(found.labels, 1)}
    print("\nAgainst the true labels, which no training saw:\n")
    print("                           NMI   accuracy")
    titles = {}
    for name, cluster in (clusters | heads).items():
        score = judge.mutual_information(cluster, data.labels)
        print(f"{name:<24} {score:5.3f}     {judge.accuracy(cluster, data.labels):6.1%}")
        titles[name] = f"{name}\nNMI {score:.3f}"
    print("\nNMI is normalised mutual information: 1 if clusters and labels agree, 0 if unrelated.")
    print(f"Training took {middle - start:.0f} s (SwAV) and {end - middle:.0f} s (SeLa).")
    shown = {titles[name]: cluster for name, cluster in clusters.items()}
    figure = figures.clusters(data.images, data.labels, shown)
    return [figures.save(figure, out / "clusters.png")]


def _headline(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}")
