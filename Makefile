# Every target stands alone: from nothing, it makes .venv, installs what it needs and runs.
PYTHON ?= python3
BIN := .venv/bin

# all cores, and who has nothing left to do takes from the others
WORKERS := -n auto --maxprocesses 8 --dist worksteal -p no:benchmark

.PHONY: demo test quick check bench bench-gpu docs site dist publish clean

demo: .venv/ready
	$(BIN)/python -m sinkhorn_ot demo

test: .venv/ready
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

# all but the tests that are marked slow
quick: .venv/ready
	$(BIN)/python -m pytest -q $(WORKERS) -m "not slow" $(ARGS)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	$(BIN)/python -m pytest -q tests/project/test_layout.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# a peer that cannot be installed here is left out, and the results say so
bench: .venv/ready
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench crosscheck
	$(BIN)/python -m bench stress
	$(BIN)/python -m bench ratios --measure
	$(BIN)/python -m bench scale
	$(BIN)/python -m bench grid
	$(BIN)/python docs/plots/make.py measured grid profile ratios

bench-gpu: .venv/ready
	$(BIN)/python -m bench gpu $(ARGS)

docs: .venv/ready
	$(BIN)/mkdocs serve

site: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# in environments of their own: what is tried must not see .venv
dist:
	PYTHON="$(PYTHON)" release/dist

publish:
	PYTHON="$(PYTHON)" release/publish

.venv/ready: setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
