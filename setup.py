"""Maps the top-level kernels/ folder into the package; everything else is in pyproject.toml."""

from setuptools import find_packages, setup


setup(
    # a link beside the others makes kernels a part of a clone that is not installed
    packages=find_packages(include=["sinkhorn_ot", "sinkhorn_ot.*"], exclude=["*.kernels"])
    + ["sinkhorn_ot.kernels"],
    package_dir={"sinkhorn_ot": "sinkhorn_ot", "sinkhorn_ot.kernels": "kernels"},
    package_data={"sinkhorn_ot": ["py.typed"]},
    # type checkers see a path, and not the import hook that would stand in for one
    options={"editable_wheel": {"mode": "compat"}},
)
