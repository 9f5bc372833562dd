# `make demo` and `make test` set everything up in .venv by themselves. They need Python (3.10 or later), git and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --cov --cov-report=term

bench: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/bench.py

clean:
	rm -rf $(VENV) build dist demo-results .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis

# What is installed follows pyproject.toml: a stamp for each set of extras. `dev` includes all of `demo`.
$(VENV)/.demo: pyproject.toml | $(BIN)/pip
	[ -e $(VENV)/.dev -a $(VENV)/.dev -nt pyproject.toml ] || $(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Debian ships Python without the part that makes virtual environments; root can mend that on the spot.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "this needs Python 3.10 or later as $(PYTHON); another one goes with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" != 0 ] || { \
	  echo "$(PYTHON) cannot make virtual environments: installing Debian's package python3-venv"; \
	  apt-get update -qq && apt-get install -qq -y python3-venv; } || true
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian, as root: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
