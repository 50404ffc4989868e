# Every target installs what it needs into .venv: with uv where it can be had, with pip else (see .ci/install).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# what `rdx` itself needs, and what its tests need besides
PROGRAM := $(VENV)/.installed
STAMP := $(VENV)/.installed-dev
TESTS ?= tests

# uv installs without bytecode: it is written at the first import, or every process would compile torch anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast lint bench chaos lowest locked lock docs mlflow-server site coverage clean

$(PROGRAM): pyproject.toml .ci/install
	$(PYTHON) .ci/install $(VENV)
	touch $@

$(STAMP): $(PROGRAM)
	$(PYTHON) .ci/install $(VENV) dev,ray
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
	$(BIN)/python tests/benchmarks/commands.py
	for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

chaos: $(STAMP)
	$(BIN)/python tests/chaos.py --faults 200

# the lowest versions that pyproject.toml allows, in an environment of their own
lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 --dist worksteal -m 'not slow and not browser' $(TESTS)

# everything at the versions of requirements.lock
locked:
	$(PYTHON) .ci/install $(VENV) --locked
	touch $(PROGRAM) $(STAMP)

# write requirements.lock anew: for all platforms and Python versions, at most the torch that the tests run with
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -c 'import torch, torchvision; print(f"torch<={torch.__version__.split(chr(43))[0]}\ntorchvision<={torchvision.__version__.split(chr(43))[0]}")' > $(VENV)/torch.txt
	env -u UV_INDEX -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet pyproject.toml --universal --all-extras --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --constraint $(VENV)/torch.txt --upgrade --output-file requirements.lock

docs: $(STAMP)
	$(BIN)/python docs/make_cli_reference.py
	$(BIN)/python docs/make_schemas.py

# a server for tests/e2e/test_tracking.py, in an environment of its own: it wants other versions than rdx has
mlflow-server: $(STAMP)
	test -x .venv-mlflow/bin/python || $(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/python -m pip install --quiet mlflow
	$(PYTHON) .ci/install $(VENV) dev,ray,mlflow,wandb,trackio
	$(BIN)/python -m pytest tests/e2e/test_tracking.py

# the site in build/site; tutorials run, warnings are errors
site: $(STAMP)
	$(PYTHON) .ci/install $(VENV) dev,ray,site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# the tests with branch coverage; a little slower than `make test`
coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov=rdxcli --cov-branch --cov-report=term --cov-report=html:build/coverage $(TESTS)

clean:
	rm -rf $(VENV) .venv-lowest .venv-mlflow build *.egg-info
