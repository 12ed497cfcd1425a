"""Maps the top-level kernels/ folder into the package; everything else is in pyproject.toml."""

from setuptools import setup


setup(
    packages=[
        "sinkhorn_ot",
        "sinkhorn_ot.adapters",
        "sinkhorn_ot.compat",
        "sinkhorn_ot.demo",
        "sinkhorn_ot.kernels",
    ],
    package_dir={"sinkhorn_ot": "sinkhorn_ot", "sinkhorn_ot.kernels": "kernels"},
    package_data={"sinkhorn_ot": ["py.typed"]},
)
