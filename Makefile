# The two commands of the README, and what they are made of. Everything a fresh machine needs is installed from here.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock

.PHONY: demo down test started lint unit generated tools go dev e2e bench bench-ledger venv

demo: venv  ## a cluster, two tenants, a decision, and its log verified
	$(BIN)/python e2e/demo/run

down: venv  ## remove what make demo left running
	$(BIN)/python e2e/demo/down

test: started lint generated tools unit go dev e2e  ## everything; what cannot run here says so, and fails under CI=true
	@echo $$(( $$(date +%s) - $$(cat .demo/test.started) )) > .demo/test.seconds
	@echo "make test: everything passed, $$(cat .demo/test.seconds) s"

started:
	@mkdir -p .demo && date +%s > .demo/test.started

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy core operator agents-image cli e2e/simulator/simulator
	$(BIN)/lint-imports

generated: venv  ## crds/ and the chart's templates are what the models say
	$(BIN)/python crds/generate --check

tools:  ## helm, for the charts' tests: built once from its Go module, and kept in the user's cache; openssl, Debian's
	@e2e/cluster/tool helm >/dev/null || { \
	  echo "helm cannot be had here: the charts' tests will say that they are skipped"; test -z "$$CI"; }
	@e2e/cluster/tool openssl >/dev/null || { \
	  echo "openssl cannot be had here: the tests of timestamps by it will say that they are skipped"; test -z "$$CI"; }

unit: venv  ## unit and contract tests, no network
	$(BIN)/pytest tests -m "not e2e" -n auto --cov --cov-report=term

go: venv  ## the test cluster's own equipment
	$(BIN)/python e2e/scenarios/gotest

dev: venv  ## the story without a cluster
	$(BIN)/pytest e2e/dev

e2e: venv  ## the scenarios, on a cluster of their own that is taken down at the end
	$(BIN)/python e2e/scenarios/run

bench: venv  ## memory by container, on the cluster of make demo
	$(BIN)/python bench/measure

bench-ledger: venv  ## the ledger beside Tessera, on this disk: minutes, and 10 GiB of it for a while
	$(BIN)/python bench/ledger

venv: $(VENV)/.installed

# Debian's python3 comes without ensurepip; the package that brings it is named after the minor version's metapackage.
$(VENV)/.installed: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian packages: python3-venv"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get install -y --no-install-recommends python3-venv >/dev/null \
	      || { apt-get update && apt-get install -y --no-install-recommends python3-venv; } >/dev/null; \
	  else echo "please install python3-venv (or set PYTHON to a Python that has ensurepip)"; exit 1; fi; }
	@echo "installing the locked Python packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
