# Toska Mesh. `make up` runs a whole mesh, `make test` proves it; `make help` lists the rest.
PYTHON ?= python3
ARGS   ?=
MINUTES ?= 10
SECONDS ?= 60
WORKERS ?= 2
BIN    := .venv/bin
DEPS   := requirements.lock tools/install $(wildcard pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml cli/pyproject.toml)
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help up down test check fmt compile test-compiled bench fuzz soak churn event-kills dist lock parts clean

up: .venv/.run-stamp    ## run a whole mesh here (ARGS="--ports-from 9000")
	@exec $(BIN)/toska up $(ARGS)
down:                   ## stop the mesh that runs here
	@exec $(BIN)/toska down
test: check parts       ## checks, then every test (ARGS="-k gateway -x"), two files at a time (WORKERS=1)
	@exec $(BIN)/pytest $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0) $(ARGS)
check: .venv/.dev-stamp ## formatting, lint, types, imports between packages
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright && $(BIN)/lint-imports
fmt: .venv/.dev-stamp   ## format, and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet . ; exec $(BIN)/ruff format .
compile: .venv/.run-stamp ## the gateway's hot modules to machine code (needs gcc; ARGS=--remove undoes it)
	@exec tools/compile $(ARGS)
test-compiled: parts    ## what concerns the gateway's data plane, against machine code
	@tools/compile && exec env TOSKA_TEST_COMPILED=1 $(BIN)/pytest tests/gateway tests/conformance $(ARGS)
bench: .venv/.dev-stamp ## measure the gateway beside nginx, haproxy and Envoy (ARGS=all: everything)
	@tools/test-parts bench && exec $(BIN)/python -m benchmarks $(ARGS)
fuzz: .venv/.dev-stamp  ## coverage-guided fuzzing of the HTTP parsers (SECONDS=60 for each)
	@exec tools/fuzz $(SECONDS)
soak: .venv/.dev-stamp  ## mixed traffic through the gateway while workers are killed (MINUTES=10)
	@TOSKA_SOAK_SECONDS=$$(( $(MINUTES) * 60 )) exec $(BIN)/pytest -s --timeout=0 -o faulthandler_timeout=0 tests/faults/test_gateway_soak.py
churn: .venv/.dev-stamp ## ever new routes and endpoints through Envoy, and no request lost (MINUTES=5)
	@TOSKA_CHURN_SECONDS=$$(( $(if $(filter file,$(origin MINUTES)),5,$(MINUTES)) * 60 )) exec $(BIN)/pytest -s --timeout=0 tests/faults/test_envoy_churn.py
event-kills: .venv/.dev-stamp ## 100,000 events through RabbitMQ and the embedded log while all sides are killed
	@tools/test-parts test && TOSKA_EVENTS_KILLS=1 exec $(BIN)/pytest -s --timeout=0 -o faulthandler_timeout=0 tests/events/test_events_killed.py tests/events/test_log_killed.py tests/events/test_rabbitmq_cluster.py
dist: .venv/.dev-stamp  ## wheels of every package, in dist/
	@exec tools/dist
lock: .venv/.dev-stamp  ## pin the dependencies anew (ARGS="--upgrade")
	@exec tools/lock $(ARGS)
parts: .venv/.dev-stamp ## what tests need besides Python packages
	@exec tools/test-parts test
clean:                  ## remove what make made; .toska/, the mesh's own state, stays
	@rm -rf .venv .cache dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
help:                   ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.run-stamp: $(DEPS)
	@tools/install requirements.lock && touch $@
.venv/.dev-stamp: requirements-dev.lock .venv/.run-stamp
	@tools/install requirements-dev.lock && touch $@
