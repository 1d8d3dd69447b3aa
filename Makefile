# One word for everything one does here; `make` alone lists the targets.
# The environment lies outside the checkout, because Flower looks at every file below it whenever a run starts.

VENV ?= $(HOME)/.venvs/clothing1m-fl
PYTHON ?= python3
CLIENTS ?= --federation-config "num-supernodes=10 client-resources-num-cpus=1"

SHELL := /bin/bash
export PATH := $(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup fast test lint docs run

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10
	@echo "The environment is $(VENV); another one: make VENV=... TARGET"

setup: ## make the environment and install the app with all development tools
	$(PYTHON) -m venv "$(VENV)"
	pip install -e ".[dev]"

fast: $(VENV)/bin/pytest ## all tests that need no Ray, in some 15 minutes
	pytest -n 2 -m "not e2e"

test: $(VENV)/bin/pytest ## everything CI checks, whole runs included, in 45 to 65 minutes
	ruff format --check . && ruff check . && mypy . && pytest -n 2 --dist loadfile

lint: $(VENV)/bin/ruff ## format, then check style and types
	ruff format . && ruff check . && mypy .

docs: $(VENV)/bin/python ## write docs/settings.md, the comments in pyproject.toml and config/known.py
	python -m config.settings --write
	python -m server_app.known --write

run: $(VENV)/bin/flwr ## train on the synthetic sample: 10 clients, 14 rounds
	FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 flwr run . --stream $(CLIENTS)

$(VENV)/bin/%:
	@echo "$@ is missing: run 'make setup' first, or name your environment: make VENV=..." >&2; exit 1
