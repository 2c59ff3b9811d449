# Front door of the repository: `make help` lists what it can do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock
AUDIT := .cache/audit
PACKAGES := $(VENV)/.packages
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
HOSTILE := tests/integration/test_hostile.py tests/integration/test_health.py
CODE = $(wildcard models streams tests bench)
COMPILED := .cache/compiled
CORE := streams/engagement/*.py streams/processing/task.py streams/processing/timers.py
# The first interpreter of the list that is new enough and can make environments.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)

SOLVE := .cache/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

.PHONY: help
help: ## list what can be made
	@echo "Pulseline: live engagement scores and cart-abandonment triggers from Kafka. Two commands to begin with: make demo, make test"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.PHONY: demo
demo: env ## bring Kafka and Redis up, simulate shoppers, watch scores and triggers (DURATION=90s ends by itself)
	@$(BIN)/pulseline demo $(if $(DURATION),--duration $(DURATION))

.PHONY: test
test: lint ## everything that must hold: linters, types, import rings, all suites but the long ones
	@PROPERTY_EXAMPLES=$${PROPERTY_EXAMPLES:-60} $(BIN)/python -m pytest -m "not chaos_long and not bench" $(PYTEST)

.PHONY: quick
quick: env ## the unit and property suites alone
	@$(BIN)/python -m pytest -q tests/unit tests/property $(PYTEST)

.PHONY: lint
lint: env ## ruff, mypy and the import rings
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary $(CODE)
	@$(BIN)/lint-imports --no-logo >.cache/lint-imports.log || { cat .cache/lint-imports.log; exit 1; }
	@echo "ruff, mypy and the import rings are content"

.PHONY: format
format: env ## let ruff format the code and repair what it can
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

.PHONY: chaos
chaos: env ## every fault on real Kafka and Redis, as a table (RUNS=3, SCENARIO=kills,flush, GUARANTEE=exactly_once, SEED=7)
	@$(BIN)/python -m tests.chaos.campaign $(if $(RUNS),--runs $(RUNS)) $(if $(SCENARIO),--scenario $(SCENARIO)) \
		$(if $(GUARANTEE),--guarantee $(GUARANTEE)) $(if $(SEED),--seed $(SEED))

.PHONY: long
long: env ## the long tests: a history under fire, and one worker killed ten times in 300,000 events
	@$(BIN)/python -m pytest -m chaos_long --timeout 1800 -s $(HOSTILE:%=--ignore=%) $(PYTEST)

.PHONY: hostile
hostile: env ## one customer with a million events, bursts of rubbish, brokers that are away: memory, latency, lines logged
	@$(BIN)/python -m pytest --timeout 1800 -s $(HOSTILE) $(PYTEST)

.PHONY: simulate
simulate: env ## random faults on the real task code in memory, a run a seed (SEEDS=2000, or SEEDS=7:8 for seed 7)
	@$(BIN)/python -m tests.simulation.campaign $(or $(SEEDS),2000)

.PHONY: mutation
mutation: env ## take each guard of the code out in turn: a test must turn red (GUARDS="tombstone late" for some)
	@$(BIN)/python -m tests.mutation $(GUARDS)

.PHONY: bench
bench: env ## measure; the figures go to bench/report.json
	@$(BIN)/python -m bench $(BENCH)

# A copy beside the sources, so that no compiled module ever hides an edited one; compared with them byte for byte.
.PHONY: compiled
compiled: env ## compile the core to C (a minute or two, needs a C compiler): the same bytes, 1.6 times as fast
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED) && cp -r models streams pyproject.toml $(COMPILED)
	@cd $(COMPILED) && MYPYPATH=. MYPYC_OPT_LEVEL=2 MYPYC_DEBUG_LEVEL=0 $(abspath $(BIN))/mypyc $(CORE) >compile.log 2>&1 \
		|| { tail -n 20 compile.log; exit 1; }
	@pure=$$($(BIN)/python -m tests.support.digest) \
		&& compiled=$$(PYTHONSAFEPATH=1 PYTHONPATH=$(COMPILED):. $(BIN)/python -m tests.support.digest) \
		&& [[ $$compiled == *.so && $${compiled% *} == $${pure% *} ]] \
		|| { echo "the compiled core does not do what its source does" >&2; exit 1; }
	@echo "Run it so: PYTHONSAFEPATH=1 PYTHONPATH=$(abspath $(COMPILED)) $(BIN)/pulseline worker"

.PHONY: audit
audit: $(AUDIT)/.installed ## compare the locked packages with the published advisories (nobody to ask is no all-clear)
	@$(AUDIT)/bin/python .ci/audit.py

$(AUDIT)/.installed: requirements/audit.lock
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r $<
	@touch $@

.PHONY: stack-up
stack-up: env ## bring Kafka and Redis up (.pulseline/stack.json says where) and create the topics
	@$(BIN)/pulseline stack up

.PHONY: stack-down
stack-down: env ## stop them; the data stays
	@$(BIN)/pulseline stack down

.PHONY: env
env: $(INSTALLED) ## make .venv with the locked packages (anew when the lock changed)
	@:

# Entry points are read from the installed distribution, so a change of pyproject.toml installs it again.
$(INSTALLED): $(PACKAGES) pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Kafka's jars take as long as the packages, so both are fetched at once; where that fails, `pulseline stack up` says why.
$(PACKAGES): $(LOCK) requirements/installer.txt
	@test -n "$(PYTHON)" || { echo "Pulseline needs Python 3.11 or newer with the modules venv and ensurepip (Debian, Ubuntu:" \
		"apt-get install python3-venv). None of python3, python3.13, python3.12, python3.11 is that; if there is one elsewhere," \
		"name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@mkdir -p .cache
	@echo "Making $(VENV) with $$($(PYTHON) --version) and the packages of $(LOCK) (a minute at most, once)"
	@docker info >/dev/null 2>&1 || $(PYTHON) -m streams.stack.tools .pulseline/tools >.cache/jars.log 2>&1 & \
	$(PYTHON) -m venv --clear $(VENV) \
	&& { { $(PIP) install --quiet --require-hashes -r requirements/installer.txt \
		&& $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK); } >.cache/uv.log 2>&1 \
		|| $(PIP) install --quiet --require-hashes -r $(LOCK); } \
	&& touch $@

.PHONY: lock
lock: ## solve the versions of pyproject.toml anew: dev.lock, run.lock for the image, and audit.lock for make audit
	@$(PYTHON) -m venv --clear .cache/uv
	@.cache/uv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r requirements/installer.txt
	@$(SOLVE) --upgrade --extra dev pyproject.toml --output-file $(LOCK)
	@$(SOLVE) --constraints $(LOCK) pyproject.toml --output-file requirements/run.lock
	@echo 'pip-audit>=2.9' | $(SOLVE) --upgrade - --output-file requirements/audit.lock
