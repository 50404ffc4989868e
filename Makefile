# Every target installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# what `rdx` itself needs, and what its tests need besides
PROGRAM := $(VENV)/.installed
STAMP := $(VENV)/.installed-dev
TESTS ?= tests

.PHONY: demo test test-fast lint bench chaos lowest docs clean

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(PROGRAM): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("rdx needs Python 3.11 or newer, got " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(STAMP): $(PROGRAM)
	$(INSTALL) -e '.[dev,ray]'
	touch $@

demo: $(PROGRAM)
	$(BIN)/rdx compare digits-cnn-m35 digits-cnn --k 3 --run demo
	$(BIN)/rdx visualize digits/comparisons/digits-cnn-m35--digits-cnn/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not browser' $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)
	for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

chaos: $(STAMP)
	$(BIN)/python tests/chaos.py --faults 200

# the lowest versions that pyproject.toml allows, in an environment of their own
lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 --dist worksteal -m 'not slow and not browser' $(TESTS)

docs: $(STAMP)
	$(BIN)/python docs/make_cli_reference.py
	$(BIN)/python docs/make_schemas.py

clean:
	rm -rf $(VENV) .venv-lowest build *.egg-info
