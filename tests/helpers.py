"""Pieces that several tests use: a made-up comparison, and a real browser."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from rdxcli.records import Comparison, DifferenceConcept
from rdxcli.schemas import kinds, schema

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def random_pictures(folder: Path, n: int) -> Path:
    """``00.png``, ``01.png``, ... of 40 by 30 random pixels."""
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def captions_of(folder: Path) -> dict[str, list[str]]:
    """The captions of an artifact of ``rdx caption`` by sample id."""
    lines = (folder / "captions.jsonl").read_text("utf-8").splitlines()
    return {row["sample_id"]: row["captions"] for row in map(json.loads, lines)}


def rdx_here(*arguments: object, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in this process; `processes.rdx_forked` runs it in one of its own."""
    from rdxcli.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, sys.stdin, Path.cwd()
    logger = logging.getLogger("rdxcli")
    logging_before = logger.propagate, logger.level, list(logger.handlers)
    code: object = 0
    try:
        sys.argv, sys.stdin = ["rdx", *map(str, arguments)], io.StringIO(stdin)
        if cwd is not None:
            os.chdir(cwd)
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, sys.stdin = before[:2]
        os.chdir(before[2])
        logger.propagate, logger.level, logger.handlers[:] = logging_before  # other tests read the log
    if "--json" in arguments and not code:
        check_document(out.getvalue())
    return subprocess.CompletedProcess(list(map(str, arguments)), int(str(code)), out.getvalue(), err.getvalue())


def printed(*arguments: object, cwd: Path | None = None, stdin: str = "") -> str:
    """What a command that succeeds prints."""
    done = rdx_here(*arguments, cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def document_of(*arguments: object, cwd: Path | None = None) -> dict[str, Any]:
    """What a command that succeeds prints with ``--json``."""
    return json.loads(printed(*arguments, "--json", cwd=cwd))


def page_of(document: dict[str, Any], outputs: Path) -> str:
    """The whole text of the page that ``rdx visualize`` makes of an artifact."""
    return whole_page(printed("visualize", document["artifact"], "--outputs", outputs).strip())


def check_document(text: str) -> None:
    """What ``--json`` prints keeps to the schema of its kind."""
    document = json.loads(text)
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind in kinds():
        jsonschema.validate(document, schema(kinds()[kind]))


def made_up_comparison(n: int = 60, found: bool = True, dataset: str | None = "digits", **changes: Any) -> Comparison:
    """A comparison of n digits with two concepts per direction."""
    ids = [str(i) for i in range(n)]
    if dataset == "digits":
        from rdxcli.datasets.registry import open_dataset

        ids = list(open_dataset("digits").sample_ids[:n])
    concepts = [
        DifferenceConcept(side, k, 9, 12.0 / k, rows, [ids[i] for i in rows], 0.9, 0.01, {"3": 0.6, "5": 0.4})
        for side in ("a", "b")
        for k, rows in ((1, list(range(9))), (2, list(range(9, 18))))
    ]
    fields: dict[str, Any] = {
        "method": "rdx",
        "parameters": {"beta": 5.0, "gamma": 0.1},
        "seed": 0,
        "a": {"name": "one", "layer": "pool", "n": n, "d": 32},
        "b": {"name": "two", "layer": "pool", "n": n, "d": 32},
        "n": n,
        "k": 2,
        "difference": {
            "score": 0.6 if found else 0.02,
            "null_mean": 0.4,
            "null_p": 0.01 if found else 0.9,
            "verdict": "difference found" if found else "no difference found",
            "question": "more than two read-outs",
            "found_by": ["score"] if found else [],
            "sentences": [f"Difference score {0.6 if found else 0.02:.3f}; two versions of one model have 0.400."],
            "disagreement": {"value": 0.6 if found else 0.02, "null_mean": 0.4, "null_sd": 0.02, "null_max": 0.47},
            "strength": {"value": 0.2, "null_mean": 0.3, "null_sd": 0.05, "null_max": 0.5},
        },
        "concepts": concepts,
        "scores": {"bsr_a": 0.9, "bsr_b": 0.8, "cka": 0.7},
        "samples": {"dataset": dataset, "joined": n},
        "arrays": made_up_arrays(ids),
    }
    return Comparison(**{**fields, **changes})


def made_up_arrays(ids: list[str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = len(ids)
    labels = np.zeros(n, dtype=np.int32)
    labels[:9], labels[9:18] = 1, 2
    matrix = rng.normal(size=(n, n)).astype(np.float32)
    return {
        **{f"labels_{side}": labels for side in "ab"},
        **{f"map_{side}": rng.normal(size=(n, 2)) for side in "ab"},
        **{f"matrix_{side}": matrix for side in "ab"},
        "sample_ids": np.array(ids),
    }


def browser() -> str:
    """Path of a Chromium; skips the test when there is none."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("install Chromium to run the browser tests")
    return path


def whole_page(path: Path | str) -> str:
    """The text of a page with the rows and cards that it packs, each once."""
    text = Path(path).read_text("utf-8")
    parts = [json.loads(gzip.decompress(base64.b64decode(one))) for one in re.findall('data-cards="([^"]+)"', text)]
    tables = [gzip.decompress(base64.b64decode(one)).decode() for one in re.findall('data-packed="([^"]+)"', text)]
    return "".join([text, *(card for cards in parts for card in cards[1:]), *tables])


def browse(page: Path, folder: Path, width: int = 1240, height: int = 2400) -> tuple[str, Path]:
    """Open ``page`` in a headless browser; returns its DOM after the scripts have run, and a screenshot."""
    shot = folder / "page.png"
    base = [
        *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", "--virtual-time-budget=4000"),
    ]
    command = [*base, "--dump-dom", f"--screenshot={shot}", page.resolve().as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return dom, shot
