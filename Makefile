PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo test system check bench format

help:  ## list what can be made
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED)  ## run a small study on drawn scenes to its report
	$(BIN)/cereals study deployments/recipes/demo.toml

test: $(INSTALLED)  ## run the tests
	env -u OMP_NUM_THREADS $(BIN)/pytest -q

system: $(INSTALLED)  ## the tests that start servers, other hosts and a browser; they say what they miss
	env -u OMP_NUM_THREADS $(BIN)/pytest -q -m system -o faulthandler_timeout=1200

check: $(INSTALLED)  ## look at format, lint, types and layers; change nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## measure what the documentation promises
	env -u OMP_NUM_THREADS $(BIN)/pytest -q -s -m bench

format: $(INSTALLED)  ## lay out the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cereals needs Python 3.11 or newer, and $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1 || true); name another: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
