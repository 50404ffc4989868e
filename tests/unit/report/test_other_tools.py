"""The Parquet of a comparison in the tools that the documentation names, by its commands; where they are installed.

Each tool may live in an environment of its own, as long as its command is on the PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import browser, made_up_comparison, rdx_here

from rdxcli.artifacts import Request, create, write_json

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty digits in both models, with pictures."""
    root = tmp_path_factory.mktemp("tools")
    record = made_up_comparison()
    with create(root / "out" / "digits" / "comparisons" / "a--b" / "rdx", Request(kind="comparison")) as draft:
        write_json(draft.path / "concepts.json", record.to_document())
        np.savez(draft.path / "arrays.npz", **record.arrays)
    to = root / "map.parquet"
    done = rdx_here("visualize", draft.result.path, "--to", to, "--pictures", "--outputs", root / "out")
    assert done.returncode == 0, done.stderr
    return to


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


@contextmanager
def served(*command: object) -> Iterator[None]:
    """A server that runs while the context lasts, once it answers."""
    program, *rest = map(str, command)
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen([found, *rest], env={**os.environ, "HF_HUB_OFFLINE": "1"}, **quiet) as process:
        try:
            address = f"http://localhost:{rest[rest.index('--port') + 1]}"
            for _ in range(240):
                try:
                    urllib.request.urlopen(address, timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    assert process.poll() is None, f"{program} ended with {process.returncode}"
                    time.sleep(0.5)
            yield
        finally:
            process.terminate()


@contextmanager
def tab_on(port: int) -> Iterator[Any]:
    with pytest.importorskip("playwright.sync_api").sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        tab = running.new_page(viewport={"width": 1400, "height": 900})
        tab.set_default_timeout(120_000)
        tab.goto(f"http://localhost:{port}")
        yield tab
        running.close()


def test_embedding_atlas(table: Path) -> None:
    port = _free_port()
    with (
        served("embedding-atlas", table, "--image", "picture", "--x", "x_a", "--y", "y_a", "--port", port),
        tab_on(port) as tab,
    ):
        tab.get_by_text("60 / 60 points").or_(tab.get_by_text("60 points")).first.wait_for()
        tab.wait_for_function("() => [...document.images].filter((one) => one.naturalWidth > 1).length >= 5")
        for name in ("id", "concept_a"):
            assert tab.get_by_text(name, exact=True).count()


def test_spotlight(table: Path) -> None:
    port = _free_port()
    given = ("--dtype", "picture=Image", "--no-browser", "--port", port)
    with served("spotlight", table, *given), tab_on(port) as tab:
        tab.get_by_text("x_a", exact=True).first.wait_for()
        tab.get_by_text("0007", exact=True).first.click()
        tab.wait_for_function("() => [...document.images].some((one) => one.naturalWidth > 100)")
