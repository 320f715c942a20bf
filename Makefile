# Everything runs in .venv, which the first target that needs it creates. Wanted on the machine: python3 (3.11 or newer) with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_EXTRAS := device,ort,openvino,litert,serve,convert,server
PACKAGES := edge_runtime devices converters fleet_server
JOBS ?= 2
# uv resolves and unpacks in seconds what takes pip minutes; pip does it where uv cannot be had, or does not trust what pip trusts.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
install = { $(PIP) uv && $(BIN)/uv pip install --quiet --python $(BIN)/python -e '$(1)'; } || $(PIP) -e '$(1)'
COMMA := ,
# A fleet is many short starts of Python: without cached bytecode each of them compiles every import again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types imports bench lab clean
.DELETE_ON_ERROR:

help:  ## say what each target does
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-7s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cannot set up: $(PYTHON) is missing or older than 3.11; install Python 3.11 or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "cannot create $(VENV): the venv module does not work; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# Stamps make a second run reuse the environment until pyproject.toml changes.
$(VENV)/.run-stamp: pyproject.toml | $(BIN)/python
	@echo "installing edgefleet[$(RUN_EXTRAS)] into $(VENV) (once)"
	@$(call install,.[$(RUN_EXTRAS)])
	@touch $@

$(VENV)/.dev-stamp: pyproject.toml | $(BIN)/python
	@echo "installing edgefleet[$(RUN_EXTRAS),vision,dev] into $(VENV) (once)"
	@$(call install,.[$(RUN_EXTRAS)$(COMMA)vision$(COMMA)dev])
	@touch $(VENV)/.run-stamp $@

demo: $(VENV)/.run-stamp  ## play a fleet on this laptop, from model to confirmed devices (KEEP=1 leaves it running)
	@$(BIN)/python -m examples.fleet_on_a_laptop $(if $(KEEP),--keep)

# In the order of the folders, which begins with the longest: files with few but long tests would otherwise end alone.
test: $(VENV)/.dev-stamp  ## run the default tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: lint types imports  ## hold lint, types, import rules and generated documents
	$(BIN)/python -m pytest -q tests/docs

lint: $(VENV)/.dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff check --target-version py310 edge_runtime devices

types: $(VENV)/.dev-stamp
	$(BIN)/mypy

imports: $(VENV)/.dev-stamp
	$(BIN)/lint-imports

bench: $(VENV)/.dev-stamp  ## measure, and write docs/benchmarks.md
	@$(BIN)/python -m tests.bench > docs/benchmarks.md.new && mv docs/benchmarks.md.new docs/benchmarks.md

lab: $(VENV)/.dev-stamp  ## run what is too long for every day
	$(BIN)/python -m pytest -m lab --timeout 3600

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
