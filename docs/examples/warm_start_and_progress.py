"""A solve that starts where an earlier one ended, watched by a bar and by a callback."""

import argparse

import torch

import sinkhorn_ot as so


REG, TOL = 0.1, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()

    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, options.points, 2, generator=random, dtype=torch.float64)
    first = so.solve(so.PointCloud(x, y), reg=REG, tol=TOL, progress=True)
    print(f"first solve: {int(first.n_iter)} sweeps")

    # points that move a little, as in a training loop: the last potentials are nearly right
    last, warm, cold = first, 0, 0
    for _ in range(options.steps):
        x = x + 0.01 * torch.randn(x.shape, generator=random, dtype=torch.float64)
        cost = so.PointCloud(x, y)
        last = so.solve(cost, reg=REG, tol=TOL, init=last)
        warm += int(last.n_iter)
        cold += int(so.solve(cost, reg=REG, tol=TOL).n_iter)
    print(f"{options.steps} more: {warm} sweeps from the last potentials, {cold} from nothing")

    errors = []

    def stop_when_good(progress: so.Progress) -> bool:
        errors.append(progress.marginal_error)
        return progress.reg_factor == 1 and progress.marginal_error < 1e-3

    cost = so.PointCloud(x, y)
    r = so.solve(cost, reg=REG, callback=stop_when_good, on_fail="ignore")
    print(f"callback: {r.status.name} after {len(errors)} sweeps at error {errors[-1]:.1e}")


if __name__ == "__main__":
    main()
