"""``kill -9`` at random moments of captioning and of training, each time taken up again: nothing of the result changes.

``RDX_KILLS`` sets how many moments are tried (by default few).
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here
from PIL import Image
from processes import Forked
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
        *("--captions-per-image", "5", "--max-tokens", "20", "--batch-size", "1", "--device", "cpu"),
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
    done = rdx_here(
        "encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    command = [
        *("train-surrogate", "--encodings", done.stdout.strip(), "--image-embeddings", "img.npz:values"),
        *("--text-embeddings", "txt.npy", "--text-offsets", "offsets.npy", "--device", "cpu", "--epochs", "60"),
        *("--batch-size", "64", "--learning-rate", "0.5", "--checkpoint-seconds", "0", "--param", "patience=60"),
        "--no-tensorboard",
    ]
    whole, killed = compared(command, tmp_path, "surrogate.safetensors", "metrics.csv")
    assert whole == killed


def compared(command: list[str], folder: Path, *files: str) -> tuple[bytes, bytes]:
    """The bytes of the files after one run, and after a run that was killed at random moments."""
    whole = Forked(*command, "--outputs", folder / "whole", cwd=folder)
    whole.until(lambda: written(folder / "whole"))
    work = time.monotonic()
    assert whole.wait() == 0, whole.communicate()
    seconds = time.monotonic() - work
    rng, moments = np.random.default_rng(int(work * 1e6)), []
    for number in range(KILLS):
        before = written(folder / "killed")
        run = Forked(*command, "--outputs", folder / "killed", cwd=folder)
        run.until(lambda before=before: written(folder / "killed") != before)
        delay = float(rng.uniform(0, seconds / KILLS)) if number else 0.0  # the first one surely meets it at work
        time.sleep(delay)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
        if run.wait() == 0:
            break  # it was over before the signal came
        moments.append((round(delay, 3), len(written(folder / "killed"))))
        if any(".partial" not in str(path) for path in (folder / "killed").rglob(files[0])):
            break  # killed between the end of the work and the end of the process
    print(f"{command[0]}: {seconds:.1f} s of work, killed after (s, files): {moments}")
    assert moments
    last = Forked(*command, "--outputs", folder / "killed", cwd=folder)
    assert last.wait() == 0, last.communicate()
    places = [next((folder / name).rglob("manifest.json")).parent for name in ("whole", "killed")]
    assert not list(folder.rglob("*.partial"))
    read = [b"".join((place / name).read_bytes() for name in files) for place in places]
    return read[0], read[1]


def written(outputs: Path) -> dict[str, int]:
    """Files of unfinished work and when each was written."""
    found: dict[str, int] = {}
    for path in outputs.rglob("*.partial/**/*"):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except OSError:
            continue  # renamed between the look at the folder and the look at the file
    return found
