# Two commands for a new user: `make demo` and `make test`. Each makes the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= demo
SEED ?= 0
BIN = $(VENV)/bin
# Byte code is compiled when a module is first imported; doing it for all of PyTorch up front costs a minute.
PIP = $(BIN)/python -m pip install --no-compile --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/pose3d demo --output $(OUTPUT) --seed $(SEED)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pose3d needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing pose3d and its packages (2 GB) into $(VENV) ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing pose3d, its packages (2 GB) and the test tools into $(VENV) ..."
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-dev: $(VENV)/installed-test
	$(PIP) --editable '.[test,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo
