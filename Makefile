# Everything runs in .venv; nothing outside this directory is written but pip's and the wheel cache.
# `make setup`, `make demo`, `make test`, `make bench` are what people call; the rest are their parts.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard engine/*.pyx engine/*.pxd engine/client/*.pyx proto/*.py proto/codeset/v1/*.proto)
CHECKED := engine codesets tests benchmarks examples proto setup.py

.DEFAULT_GOAL := help
.PHONY: help setup packs demo test lint check bench load proto clean

help:
	@echo "make setup   environment, extension modules and the default code sets (FY2023 on)"
	@echo "make demo    a server on loopback, and a client that groups real claims"
	@echo "make test    everything CI runs: linters, type checks, tests"
	@echo "make bench   benchmarks with peers, as a table"
	@echo "make load    a server under load of every kind: rates, latencies, as a table and a picture"
	@echo "make clean   remove what was built, the environment included"

setup: packs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=... (found: $$($(PYTHON) --version 2>&1))"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.built: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

packs: $(VENV)/.built
	$(BIN)/codeset-engine build

demo: packs
	$(BIN)/python examples/demo.py

test: lint check

check: packs
	$(BIN)/python -m pytest

lint: $(VENV)/.built
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint engine  # looks for pycodestyle there
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml engine._calls engine._core engine._hcc engine._mce engine._msdrg engine._wire engine._wire_codes engine._wire_hcc engine._wire_mce engine.client._fast
	$(BIN)/buf lint

$(VENV)/.bench: $(VENV)/.built
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	@touch $@

bench: packs $(VENV)/.bench
	$(BIN)/python -m benchmarks.report

load: packs $(VENV)/.bench
	$(BIN)/python -m benchmarks.load

proto: $(VENV)/.built
	$(BIN)/python proto/generate.py

clean:
	rm -rf $(VENV) build dist *.egg-info engine/_pb engine/*.so engine/*.c engine/client/*.so engine/client/*.c .mypy_cache .ruff_cache .pytest_cache
