PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
OLDEST ?= python3.10
OUT ?= results/gpu
MINUTES ?= 8
SOAK_MINUTES ?= 20

.PHONY: docs setup demo test oldest test-slurm soak gpu bench bench-all lint format clean

setup:  ## make .venv and install kt with what its tests need; nothing where BIN names another Python
ifneq ($(origin BIN),command line)
setup: $(VENV)/.installed
endif

$(VENV)/.installed: pyproject.toml
	@echo "Installing into $(VENV) (torch is large: this takes some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup  ## train a small zoo on real digits here, sweep it, show the tables
	@OMP_NUM_THREADS=1 $(BIN)/kt sweep sweeps/demo.toml --executor local  # sums depend on threads

test: setup  ## all tests, offline, on the CPU
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder -m "not slurm and not gpu"

oldest: setup  ## the tests with the oldest versions that pyproject.toml allows, by a Python 3.10
	test -x .venv-oldest/bin/python || $(OLDEST) -m venv .venv-oldest
	$(BIN)/python -m tests.oldest > .venv-oldest/requirements.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-oldest/requirements.txt
	PYTHONPATH=$(CURDIR) .venv-oldest/bin/python -m pytest -n $(JOBS) --dist loadscope -p no:cacheprovider \
	    -W ignore::DeprecationWarning -m "not slurm and not gpu and not browser"

test-slurm: setup  ## sweeps on a real Slurm of one node, which it starts and stops (root, Debian; minutes)
	tests/slurm/start.sh
	KT_REQUIRE_SLURM=1 $(BIN)/python -m pytest -m slurm tests/slurm; \
	    code=$$?; tests/slurm/stop.sh; exit $$code

soak: setup  ## disturb sweeps at random for twenty minutes; their rows must be the undisturbed ones
	$(BIN)/python -m tests.soak --minutes $(SOAK_MINUTES)

gpu: setup  ## what a GPU shows: tests, then benchmarks, in eight minutes; without one at toy size
	$(BIN)/python -m benchmarks.gpu --out $(OUT) --minutes $(MINUTES)

bench: setup  ## time and memory of pairs, predictions, images' identity, transfers and reports, with their ratios
	@rm -f benchmarks/results.json
	$(BIN)/python -m benchmarks.pairs $(PAIRS)
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.identity
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.reuse
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.schedule
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.ranking
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.peers --repeats 1
	$(BIN)/python -m benchmarks.summary

bench-all: PAIRS = --all
bench-all: bench  ## the same, and all pairs of 1,556 models

docs: setup  ## write docs/settings.md and the columns of results/README.md from the code
	$(BIN)/python docs/generate.py

lint: setup  ## ruff and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the demo wrote and the environment
	rm -rf $(VENV) results/demo build *.egg-info
