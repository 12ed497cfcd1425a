# Every target stands alone: from nothing, it makes .venv, installs what it needs and runs.
PYTHON ?= python3
BIN := .venv/bin

# all cores, and who has nothing left to do takes from the others
WORKERS := -n auto --maxprocesses 8 --dist worksteal -p no:benchmark

.PHONY: demo test quick check bench bench-gpu docs clean

demo: .venv/ready
	$(BIN)/python -m sinkhorn_ot.demo

test: .venv/ready
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

# all but the tests that are marked slow
quick: .venv/ready
	$(BIN)/python -m pytest -q $(WORKERS) -m "not slow" $(ARGS)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layout.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# a peer that cannot be installed here is left out, and the results say so
bench: .venv/ready
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/crosscheck.py
	$(BIN)/python bench/stress.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/grid.py
	$(BIN)/python docs/plots/make.py measured grid profile

bench-gpu: .venv/ready
	$(BIN)/python bench/gpu.py $(ARGS)

docs: .venv/ready
	$(BIN)/mkdocs serve

.venv/ready: setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
