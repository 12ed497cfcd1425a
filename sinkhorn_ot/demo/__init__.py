"""What the package is for, on real digits: `python -m sinkhorn_ot.demo`."""
