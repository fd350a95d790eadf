PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: setup demo test lint format clean

setup: $(VENV)/.installed  ## make .venv and install kt with what its tests need

$(VENV)/.installed: pyproject.toml
	@echo "Installing into $(VENV) (torch is large: this takes some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup  ## train a small zoo on real digits, sweep it, show the tables
	@$(BIN)/kt sweep sweeps/demo.toml

test: setup  ## all tests, offline, on the CPU
	$(BIN)/python -m pytest -n $(JOBS)

lint: setup  ## ruff and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the demo wrote and the environment
	rm -rf $(VENV) results/demo build *.egg-info
