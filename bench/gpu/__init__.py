"""Proof and speed of the kernels on a GPU."""
