# Few verbs. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_PROCESSES ?= 2
BENCH_STAMP := $(VENV)/.bench-installed
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export RAY_USAGE_STATS_ENABLED := 0
export GX_ANALYTICS_ENABLED := false
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Images of containers set it; without bytecode each of the tests' hundreds of processes compiles the project again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all check format repro compare bench drills clean

## demo: set up, run the whole pipeline on the embedded sample, print the result table
demo: $(STAMP)
	$(BIN)/python -m hqsam_pipelines.runner.demo

## test: set up if needed, then the tests, a file at a time on each of two processes with one compute thread
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

## test-all: every test at full sizes and counts, also the dear and rarely wrong ones (hours; up to 16 GB of memory), and the guard of the speed
test-all: export HQSAM_TEST_ALL := 1
test-all: $(BENCH_STAMP) test

## check: formatting, lint, types, import rules, spelling
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## repro: run what is out of date, independent stages side by side
repro: $(STAMP)
	$(BIN)/hqsam repro

## compare: make compare A=HEAD~1 [B=HEAD]
compare: $(STAMP)
	$(BIN)/hqsam compare $(A) $(B)

## bench: the benchmark tables, small sizes (minutes); make bench BENCH="metrics --full" for one area at the promised sizes
bench: $(BENCH_STAMP)
	$(BIN)/python -m perf $(BENCH)

## drills: kill parts of real runs at random moments, compare, write docs/reliability.md (hours; goes on where it was ended)
drills: $(STAMP)
	$(BIN)/python -m drills $(DRILLS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# torch goes first and by its exact pin: a later resolver run then keeps the build that this machine's package index offers.
# lvis goes last and without its dependencies: they would put opencv-python over the headless build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps lvis
	$(BIN)/python -m hqsam_pipelines.config.dvc_site
	PYTHONPATH=.:datasets:metrics $(BIN)/python -m hqsam_base.compiled
	touch $(STAMP)

# The programs that the benchmarks compare with.
$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $(BENCH_STAMP)
