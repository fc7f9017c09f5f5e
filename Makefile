# Everything runs in .venv: an activated virtual environment, conda or PYTHONPATH is not looked at.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

UV_VERSION := 0.13.8
BIN := .venv/bin
UV := $(BIN)/uv
STAMP := .venv/.installed
SOURCES := $(wildcard elth orchestrator tests benchmarks faults docs)
SMOKE ?= $(shell grep -l '^scales:' tune_configs/*.yaml)
# Extra arguments for pytest and the benchmarks: make test-unit ARGS='-k masks -x'
ARGS ?=

unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH UV_SYSTEM_PYTHON UV_PYTHON UV_CONSTRAINT UV_OVERRIDE
# Neither Ray nor MLflow reports its use to its makers from here.
export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= true

.PHONY: help setup quickstart smoke test test-unit test-isa test-e2e faults gpu-check lint format bench reference numerics lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the exact versions of requirements.lock

$(UV):
	@found=""; \
	for python in $${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "setup: Python 3.11 or newer was not found (looked for: $${PYTHON:-python3.11 python3.12 python3.13 python3 python})." >&2; \
	    echo "setup: install it, or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! $$found -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    version=$$($$found -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "setup: $$found has no venv module; on Debian or Ubuntu: apt-get install python$$version-venv" >&2; exit 1; \
	fi; \
	echo "setup: .venv with $$($$found --version)"; \
	$$found -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==$(UV_VERSION)'

$(STAMP): requirements.lock pyproject.toml | $(UV)
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes --requirements requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: $(STAMP) ## Run the smallest experiment from end to end
	$(BIN)/elth run tune_configs/quickstart.yaml

smoke: $(STAMP) ## Every table and figure of the papers, small, to its report (in runs-smoke)
	@for config in $(SMOKE); do \
	    echo "==> $$config"; begin=$$SECONDS; \
	    $(BIN)/elth run $$config scale=smoke --store runs-smoke; \
	    echo "==> $$config: $$((SECONDS - begin)) s"; \
	done

test: test-unit test-e2e ## All tests: the unit tests, then the whole runs

test-unit: $(STAMP) ## The unit tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --ignore=tests/e2e -n 2 $(ARGS)

# The lesser instructions of a machine: what most of them have in common, or if it has no more, less.
ISA ?= $(shell grep -qs avx512 /proc/cpuinfo && echo AVX2 || echo SSE41)
test-isa: $(STAMP) ## The tests of elth with older instructions (ISA=AVX2)
	ONEDNN_MAX_CPU_ISA=$(ISA) ATEN_CPU_CAPABILITY=$(if $(filter AVX2,$(ISA)),avx2,default) \
	    OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/elth -n 2 -m 'not anywhere' $(ARGS)

test-e2e: $(STAMP) ## Whole runs, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/e2e -n 2 --dist loadscope $(ARGS)

faults: $(STAMP) ## Runs that are killed and files that are harmed, against undisturbed runs (ARGS='--moments 5')
	OMP_NUM_THREADS=1 $(BIN)/python -m faults $(ARGS)

gpu-check: $(STAMP) ## What only a GPU can show: its tests, then its measurements (ARGS='--data DIR')
	@$(BIN)/python -c 'import torch as t; n = t.cuda.device_count(); \
	    print("gpu-check:", ", ".join(t.cuda.get_device_name(i) for i in range(n)) or "PyTorch sees no GPU here"); \
	    raise SystemExit(n == 0)'
	$(BIN)/python -m pytest tests -m gpu
	$(BIN)/python -m benchmarks train accuracy packing --device cuda $(ARGS)

lint: $(STAMP) ## Style, format, types, and which file may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Put the code in format and mend what can be mended safely
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(STAMP) ## The measurements of docs/performance.md (ARGS='train --data DIR'; --help)
	$(BIN)/python -m benchmarks $(ARGS)

reference: $(STAMP) ## Write docs/reference.md and the configs' trainings anew, from the code
	$(BIN)/python docs/generate.py

numerics: $(STAMP) ## Convolutions and products against float64 under each instruction set (ARGS='--as-is --isa AVX2')
	$(BIN)/python -m benchmarks.numerics $(ARGS)

# What is pinned stays as it is unless a range of pyproject.toml forbids it; UPGRADE=1 takes the newest.
lock: | $(UV) ## Write requirements.lock anew (UPGRADE=1: newest versions)
	$(UV) pip compile pyproject.toml --group dev --python $(BIN)/python --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	    --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock

clean: ## Remove .venv, caches and builds (runs/, runs-smoke/ and data/ stay)
	rm -rf .venv build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -type d -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
