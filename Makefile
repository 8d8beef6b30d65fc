# make demo: hear the demo clip in the live monitor      make test: run the tests
# make check: format, lint, types and documentation       make bench: print the published speed figures
# make docs: the documentation site, in build/site        make pictures: draw the README's pictures
# `make bench` takes some minutes and soaks for an hour, simulated; a day: benchmarks/soak.py --hours 24
# make gpu: run what needs a GPU, and write build/gpu_day.md; without one it says what did not run
# Another interpreter: make demo PYTHON=python3.12 (run `make clean` first when .venv exists).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BINDINGS := $(CURDIR)/build/tensorrt-bindings
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

.PHONY: demo test check docs pictures bench gpu clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base
	@$(BIN)/mmtl monitor demo

test: $(VENV)/.dev
	@if tests/tensorrt/fetch_bindings.sh $(BIN)/python $(BINDINGS); then \
	  export MMTL_TENSORRT_BINDINGS=$(BINDINGS); \
	else \
	  echo "TensorRT's Python API is not checked: its wheels cannot be fetched here" >&2; \
	fi; \
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

pictures: $(VENV)/.dev
	$(BIN)/python docs/site/pictures.py

bench: $(VENV)/.dev
	@echo "== mmtl benchmark"; $(BIN)/mmtl benchmark
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

gpu: $(VENV)/.dev
	@$(BIN)/python benchmarks/gpu/day.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find edge train calibrate export tests benchmarks -name __pycache__ -exec rm -rf {} +

# The stamps say what .venv holds: nothing but pip (.made), what the device needs (.base), everything (.dev).
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "mmtl needs Python 3.10 or newer, and '$(PYTHON)' is not one: name one, as in 'make demo PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  echo "'$(PYTHON) -m venv' does not work: install it (Debian, Ubuntu: 'sudo apt install python3-venv') and try again" >&2; exit 1; }
	@touch $@

$(VENV)/.base: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing mmtl into $(VENV) (some 200 MB, no torch) ..." >&2
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing mmtl, torch and the test tools into $(VENV) (several GB: some minutes) ..." >&2
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.base $@
