# Needs Python 3.11 to 3.13 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO ?= demo

.PHONY: install demo demo-full test test-all test-faults check format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/cmcgns demo --out $(DEMO)

demo-full: $(INSTALLED)
	$(BIN)/cmcgns demo --out $(DEMO) --full

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m 'not slow and not faults'

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m 'not faults'

test-faults: $(INSTALLED)
	$(BIN)/python -m pytest -m faults

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src
	$(BIN)/lint-imports --no-logo
	$(BIN)/python benchmarks/architecture.py --check
	$(BIN)/bandit -q -r src benchmarks -c pyproject.toml 2>/dev/null # findings are on stdout; it warns of its own comments
	$(BIN)/python benchmarks/advisories.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache
