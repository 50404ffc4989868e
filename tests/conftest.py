"""Fixtures every test may use."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# a busy machine is no failure; where every run must give the same answer, the examples are always the same ones
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

# uv installs without bytecode: where none may be written, each process that a test starts would compile torch anew,
# which costs more than most tests
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# as many threads as there are workers would only wait for each other, and forks of a process that has none are safe
os.environ.setdefault("OMP_NUM_THREADS", "1")

# UMAP's code runs on a few dozen points here, which takes seconds without compilation and half a minute with it
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

# a shell that runs the tests in the background has its children ignore Ctrl-C, and theirs too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


NUMBERS = itertools.count()


def pytest_collection_finish() -> None:
    """What the imports left is there to stay: the garbage collector need not look through it again and again."""
    gc.freeze()


def _shared_folder() -> Path | None:
    given = os.environ.get("RDX_SHARED")
    candidates = [Path(given)] if given else [Path(__file__).resolve().parents[2] / "shared"]
    return next((path for path in candidates if (path / "data" / "README.md").is_file()), None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real images, captions and weights; tests that need it skip without it."""
    folder = _shared_folder()
    if folder is None:
        pytest.skip("set RDX_SHARED to the folder with real images and weights")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_server_left() -> Iterator[None]:
    yield
    if "processes" in sys.modules:
        sys.modules["processes"].stop_server()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's own looks through the folders of all tests before for a number that is free."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}{next(NUMBERS)}", numbered=False)


@pytest.fixture(autouse=True)
def _no_inherited_settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep a developer's own outputs and caches out of the tests, and the tests off the network."""
    for name in [
        name for name in os.environ if name.startswith("RDX_") and name not in {"RDX_SHARED", "RDX_GOLDEN", "RDX_CACHE"}
    ]:
        monkeypatch.delenv(name)
    if "tmp_path" in request.fixturenames:
        folder = request.getfixturevalue("tmp_path")
    else:  # made by who writes into it: most tests do not
        folder = tmp_path_factory.getbasetemp() / f"unasked{next(NUMBERS)}"
    monkeypatch.setenv("RDX_OUTPUTS", str(folder / "outputs"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    if "rdxcli.engines.sharing" in sys.modules:  # a command says it for its whole process
        sys.modules["rdxcli.engines.sharing"].set_engine("auto")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What the command line does to the log must not reach the next test."""
    logger = logging.getLogger("rdxcli")
    before = logger.propagate, logger.level, list(logger.handlers)
    yield
    logger.propagate, logger.level, logger.handlers[:] = before
