# Two commands do everything: `make demo` and `make test`. The rest is for CI.
PYTHON ?= python3.11
VENV ?= .venv
READY := $(VENV)/.ready

.PHONY: demo test test-service test-others lint constraints

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[training,serving,scenarios,dev]'
	touch $(READY)

demo: $(READY)
	$(VENV)/bin/citybrain demo

# The service's tests and the others side by side, a core each; whichever fails fails both.
test: $(READY)
	$(MAKE) --no-print-directory --jobs 2 --keep-going test-service test-others

test-service: $(READY)
	$(VENV)/bin/python -m pytest tests/serving

test-others: $(READY)
	$(VENV)/bin/python -m pytest tests/datasets tests/models tests/training

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Exact versions of all extras but `ray` and `peers`, whose libraries need torch extensions built on the machine.
constraints: pyproject.toml
	: > constraints.txt
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install --quiet --dry-run --ignore-installed --report $(VENV)-constraints/report.json \
	  'torch==2.13.0' '.[training,serving,scenarios,postgres,dev]'
	$(VENV)-constraints/bin/python -c "import json, sys; \
	  found = json.load(open('$(VENV)-constraints/report.json'))['install']; \
	  names = sorted((p['metadata']['name'].lower().replace('_', '-'), p['metadata']['version'].partition('+')[0]) for p in found); \
	  print('# Written by \`make constraints\`.', *('%s==%s' % n for n in names if n[0] != 'citybrain'), sep='\n')" > constraints.txt
	rm -rf $(VENV)-constraints
