# Front door of the repository: `make help` lists what it can do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock
STAMP := $(VENV)/.installed
# The first interpreter of the list that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: env
env: $(STAMP) ## make .venv with the locked packages (again when the lock or pyproject.toml changed)

$(STAMP): $(LOCK) pyproject.toml
	@test -n "$(PYTHON)" || { echo "Pulseline needs Python 3.11 or newer with the venv and ensurepip modules (Debian: apt-get install python3-venv)." \
		"None of python3, python3.13, python3.12, python3.11 is that: name one with make PYTHON=/path/to/python $(MAKECMDGOALS)." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) (about a minute the first time)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lock
lock: ## solve the versions anew and write requirements/dev.lock
	@$(PYTHON) -m venv --clear .cache/uv
	@.cache/uv/bin/python -m pip --disable-pip-version-check --no-input install --quiet uv
	@.cache/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml --output-file $(LOCK)
