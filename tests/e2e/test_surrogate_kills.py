"""``kill -9`` at random moments of captioning and of training, each time taken up again: nothing of the result changes.

``RDX_KILLS`` sets how many moments are tried (by default few: every one costs a start of the program).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx
from PIL import Image
from tiny_models import save_blip2

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("RDX_KILLS", "2"))
IMAGES = 60
WORDS = ["dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "ball", "chair"]


def test_captions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / "photos" / f"{i:02d}.png")
    command = [
        *("caption", "--dataset", f"images:{tmp_path}/photos", "--model", f"hf:{save_blip2(tmp_path / 'blip2')}"),
        *("--captions-per-image", "10", "--max-tokens", "50", "--batch-size", "1", "--device", "cpu"),
    ]
    whole, killed = compared(command, tmp_path, "captions.jsonl")
    assert whole == killed
    assert len(whole.splitlines()) == IMAGES


def test_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    things = rng.normal(size=(len(WORDS), 16))
    captions, images, texts = {}, [], []
    for i in range(240):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        captions[f"im{i:03d}"] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(things[one] + 0.5 * things[two])
        texts += [things[one] + 0.5 * things[two], things[one]]
    (tmp_path / "caps.json").write_text(json.dumps(captions))
    np.savez(tmp_path / "img.npz", values=np.array(images), sample_ids=np.array(list(captions)))
    np.save(tmp_path / "txt.npy", np.array(texts))
    np.save(tmp_path / "offsets.npy", np.arange(0, 481, 2))
    done = rdx(
        "encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    command = [
        *("train-surrogate", "--encodings", done.stdout.strip(), "--image-embeddings", "img.npz:values"),
        *("--text-embeddings", "txt.npy", "--text-offsets", "offsets.npy", "--device", "cpu", "--epochs", "150"),
        *("--batch-size", "64", "--learning-rate", "0.5", "--checkpoint-seconds", "0", "--param", "patience=150"),
    ]
    whole, killed = compared(command, tmp_path, "surrogate.safetensors", "metrics.csv")
    assert whole == killed


def compared(command: list[str], folder: Path, *files: str) -> tuple[bytes, bytes]:
    """The bytes of the files after one run, and after a run that was killed at random moments."""
    start = time.monotonic()
    process = started([*command, "--outputs", str(folder / "whole")], folder, folder / "whole")
    work = time.monotonic()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    whole = Path(folder, stdout.strip())
    seconds = time.monotonic() - work
    rng, moments = np.random.default_rng(int(start * 1e6)), []
    given = [*command, "--outputs", str(folder / "killed")]
    for _ in range(KILLS):
        process = started(given, folder, folder / "killed")
        delay = float(rng.uniform(0, seconds / KILLS))
        time.sleep(delay)
        if process.poll() is not None:
            process.communicate()
            break
        process.kill()
        process.communicate()
        moments.append((round(delay, 3), len(written(folder / "killed"))))
        if any(".partial" not in str(path) for path in (folder / "killed").rglob(files[0])):
            break  # killed between the end of the work and the end of the process
    print(f"{command[0]}: {seconds:.1f} s of work, killed after (s, files): {moments}")
    assert moments
    done = rdx(*given, cwd=folder)
    assert done.returncode == 0, done.stderr
    last = Path(folder, done.stdout.strip())
    read = [b"".join((place / name).read_bytes() for name in files) for place in (whole, last)]
    return read[0], read[1]


def started(command: list[str], folder: Path, outputs: Path) -> subprocess.Popen[str]:
    """The process, once it has written something itself."""
    before = written(outputs)
    process = subprocess.Popen(
        [sys.executable, "-m", "rdxcli.cli.app", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and written(outputs) == before:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


def written(outputs: Path) -> dict[str, int]:
    """Files of unfinished work and when each was written."""
    found: dict[str, int] = {}
    for path in outputs.rglob("*.partial/**/*"):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except OSError:
            continue  # renamed between the look at the folder and the look at the file
    return found
