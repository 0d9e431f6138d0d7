# make setup   a virtual environment in .venv with everything, by pip
# make demo    the whole job on a small set of videos    (VIDEOS=folder of class folders, GROUP=regex, OUT=folder)
# make test    linter, type checker, tests
# make chaos   the tests that kill workers, nodes and drivers of a cluster, which take minutes
# make check   linter and type checker alone

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= lgd-demo

.PHONY: setup demo test chaos check format

setup: $(VENV)/.installed

# Anew when the requirements change; pip does nothing for what is there already.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/lgd demo --out $(OUT) $(if $(VIDEOS),--videos $(VIDEOS)) $(if $(GROUP),--group '$(GROUP)')

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not chaos'

chaos: setup
	$(BIN)/pytest -m chaos

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
