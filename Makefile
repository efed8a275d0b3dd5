# Every target does the set-up it needs. PYTHON and VENV choose another interpreter and place:
#   make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A file's tests share what they set up. In the order of the folders no long file is left to the end.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PACKAGES := cli data regime sage stress

.PHONY: help setup backtest test test-long test-readme check format lint types bench bench-latency bench-deadline faults kills chaos growth-study bench-soak bench-sweep bench-ingest luck-study docs soak soak-short train clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## Make the virtual environment and install SAGE into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "SAGE needs Python 3.11 or newer; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

backtest: setup  ## Run the default backtest and write its report
	$(BIN)/sage backtest

test: setup  ## Run the tests, on up to four cores
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-long: setup  ## Run the tests that take minutes
	$(BIN)/python -m pytest -m long

test-readme: setup  ## Run every command of the README, most on less than it names (5 minutes)
	$(BIN)/python -m pytest -m long tests/test_readme.py -k "test_every_command_runs and README.md"

format: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup  ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup  ## Check types
	$(BIN)/mypy

check: lint types test  ## Format, lint, types, import direction and tests

bench: setup  ## Measure the backtest's speed beside a bare NautilusTrader run
	$(BIN)/python -m stress.bench

bench-latency: setup  ## Measure the 35 M architecture beside tirex-ts: cores free, one busy, long context (5 minutes)
	$(BIN)/sage bench-latency --architecture tirex-35m --engine both --batch 64
	$(BIN)/sage bench-latency --architecture tirex-35m --background 1
	$(BIN)/sage bench-latency --architecture tirex-35m --engine both --context 2048 --seconds 20 || test $$? -eq 5

faults: setup  ## Provoke every fault at every place, and write the matrix to build/faults.html (4 minutes)
	mkdir -p build
	$(BIN)/sage inject-fault --all --html build/faults.html

chaos: setup  ## Run 10,000 random schedules of faults on a simulated machine, and 20 on the real one (35 minutes)
	$(BIN)/sage inject-fault --schedules 10000 --real 20

bench-deadline: setup  ## Measure how late a signal is when the model hangs, dies or is slow (8 minutes)
	$(BIN)/python -m stress.lateness

kills: setup  ## Kill the model process 250 times and look for what grows (2 minutes)
	$(BIN)/sage inject-fault --kills 250

growth-study: setup  ## Measure how often the verdict on memory growth is right, on simulated traces (5 minutes)
	$(BIN)/python -m stress.soak.growth_study

bench-soak: setup  ## Measure what watching a soak costs, in turns with one that nobody looks into (6 minutes)
	$(BIN)/python -m stress.soak.bench

bench-sweep: setup  ## Measure a sweep's scaling and what it costs beside its backtests (40 minutes)
	$(BIN)/python -m stress.sweep_bench

bench-ingest: setup  ## Measure an ingest beside pyarrow alone, and its memory (2 minutes)
	$(BIN)/python -m stress.ingest_bench

luck-study: setup  ## Measure how often a sweep's statistics are right, on simulated returns (3 minutes)
	$(BIN)/python -m stress.luck_study

docs: setup  ## Make the page on the configuration out of its classes
	$(BIN)/python -m sage.config_reference > docs/configuration.md

soak-short: setup  ## See that a soak finds a leak of 500 MB per hour, and in the right process (3 minutes)
	rm -rf build/soak-short
	$(BIN)/sage stress --hours 0.05 --segment-bars 250 --plant native@trading=500 --out build/soak-short; test $$? -eq 1
	$(BIN)/python -c "import json; checks = json.load(open('build/soak-short/stress.json'))['checks']; \
	found = [one['name'] for one in checks if one['status'] == 'failed']; \
	assert found == ['memory of the trading process beyond NautilusTrader'], found; print('found:', *found)"

soak: setup  ## Soak for an hour each: the 35 M architecture with random weights, and the shipped checkpoint
	$(BIN)/sage stress --hours 1 --architecture tirex-35m
	$(BIN)/sage stress --hours 1

train: setup  ## Train the compact checkpoint again into build/checkpoint (an hour on two cores)
	mkdir -p build
	$(BIN)/sage model train --out build/checkpoint --compile

clean:  ## Remove what the targets made
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
