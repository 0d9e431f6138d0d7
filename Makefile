# make setup        a virtual environment in .venv with everything, installed by pip
# make demo         everything on a small set of videos   (VIDEOS=folder of class folders, GROUP=regex, OUT=folder)
# make test         linter, type checker, and all tests but those of `make chaos`
# make quick        the tests that need no cluster and no server: at most 3 minutes on 2 cores
# make chaos        the tests that kill workers, nodes and drivers of a cluster: several minutes
# make gpu          the tests that need a GPU, and all figures of a GPU in gpu.json
# make property     random videos, compared with PyAV   (N=number of videos, SEED=number: other videos)
# make check        linter and type checker
# make format       format the code
# make docs         write docs/json.md again from the code
# make wheel        build the wheel into dist/
# make constraints  write constraints.txt again: the newest versions that the requirements allow

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= lgd-demo
PIP := -m pip --quiet --disable-pip-version-check
N ?= 1000
SEED ?= 1
CONSTRAINTS ?= constraints.txt

.PHONY: setup demo test quick chaos gpu property check format docs wheel constraints

setup: $(VENV)/.installed

# Repeated when the requirements change; pip does nothing for what is already installed.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is required: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/lgd demo --out $(OUT) $(if $(VIDEOS),--videos $(VIDEOS)) $(if $(GROUP),--group '$(GROUP)')

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25 -m 'not chaos'

quick: setup
	$(BIN)/pytest -n 2 --dist loadfile -m 'not cluster and not s3 and not chaos'

chaos: setup
	$(BIN)/pytest -m chaos

gpu: setup
	GPU=true $(BIN)/pytest -m gpu tests/gpu
	$(BIN)/python -m lgd.benchmarks.gpu --out gpu.json

property: setup
	LGD_PROPERTY_VIDEOS=$(N) LGD_PROPERTY_SEED=$(SEED) $(BIN)/pytest tests/preprocessing/video/test_decode_property.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python -m tests.support.json_page docs/json.md

wheel: setup
	$(BIN)/python -m build --wheel

# Without the local version of a CPU build of torch, and without Triton, of which a CUDA build of torch requires a version
# of its own: pip then takes the build for the machine.
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python $(PIP) install -e '.[dev]'
	(echo '# Versions that were tested together. Written by `make constraints`.'; \
	 build/constraints/bin/python $(PIP) freeze --exclude-editable | sed 's/+cpu$$//; /^triton==/d') > constraints.txt
