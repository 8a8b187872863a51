# Two commands do everything: `make demo` and `make test`. The rest is for CI.
PYTHON ?= python3.11
VENV ?= .venv
READY := $(VENV)/.ready

.PHONY: demo test lint

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[training,serving,scenarios,dev]'
	touch $(READY)

demo: $(READY)
	$(VENV)/bin/citybrain demo

test: $(READY)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
